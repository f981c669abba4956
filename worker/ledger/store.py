"""What happened under which key: claims, leases and results, in SQLite or PostgreSQL."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger.database import CONNECTIONS, Database, LedgerUnavailable, no_tls
from worker.ledger.engine import TlsOf
from worker.ledger.schema import LedgerFault, entries
from worker.settings import SettingError, Settings
from worker.tls import database_tls

#: Seconds a claim holds without being renewed. After a crash another worker takes over within this.
LEASE_S: Final = 15.0
#: Seconds between removals of expired rows, and how many go at once.
SWEEP_S: Final = 600.0
SWEEP_ROWS: Final = 1000


class Identity(NamedTuple):
    """Same identity: the same effect, once."""

    tenant: str
    connector: str
    action: str
    key: str


@dataclass(frozen=True, slots=True)
class Owned:
    """The effect is ours to bring about, as long as the lease lasts."""

    fence: int
    #: How often the action was started under this key, by whomever.
    starts: int
    #: A call by somebody before us may have happened.
    calling: bool
    #: Seconds until that call can no longer land.
    settles_in_s: float
    #: A run has stored what it returned: the effect is surely there.
    happened: bool = False
    #: What it returned, where an undo takes it back.
    result: Any = None


@dataclass(frozen=True, slots=True)
class Done:
    """The effect has happened."""

    result: Any
    starts: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else brings it about just now."""

    lease_s: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened; nobody can tell until an operator does."""

    starts: int


@dataclass(frozen=True, slots=True)
class Undone:
    """It was taken back, or is to be: it may not happen any more."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key stands for other parameters or another credential."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is known under this key."""


Known = Done | Busy | Unknown | Undone | Mismatch | Absent
Claim = Owned | Done | Busy | Unknown | Undone | Mismatch


def fingerprint_of(params: Mapping[str, Any], credential: str) -> str:
    """Digest what a key stands for: the parameters as sent, in canonical JSON, and the credential's name."""
    canonical = json.dumps([params, credential], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Ledger:
    """One table, one atomic claim; the same statements on SQLite and PostgreSQL.

    1. `claim` gives the effect to one worker, or says what is known
    2. `begin` is the last look before a call leaves: the lease must still be ours
    3. `renew` while it runs
    4. `complete`, `forget`, `release` or `mark_unknown` write down how it ended; all are void for
       whoever lost the lease meanwhile

    Started and closed by the service.
    """

    def __init__(
        self, url: str, *, ttl_hours: float = 720.0, tls: TlsOf = no_tls, connections: int = CONNECTIONS
    ) -> None:
        self._ttl_s = ttl_hours * 3600
        self._database = Database(url, tls, connections=connections)
        self._insert = sqlite.insert if self._database.is_sqlite else postgresql.insert
        self._now: sa.ColumnElement[float] = (
            sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
            if self._database.is_sqlite
            else sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Double)
        )
        self._ask = self._database.ask
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def id(self) -> str | None:
        """Tell ledgers apart: two workers of one broker must share one. None until it was reached."""
        return self._database.id

    @property
    def unavailable_reason(self) -> str | None:
        """Why the ledger cannot be asked; None while it can."""
        return self._database.unavailable_reason

    async def start(self) -> None:
        """Open the database and make its schema; where it is away, keep trying in the background.

        Raises:
            LedgerFault: it can never serve: no permission, a later schema, a bad path.
        """
        await self._database.start()
        self._sweeper = asyncio.create_task(self._sweep_now_and_then())

    async def close(self) -> None:
        """Let the connections go."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self._database.close()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        return await self._database.wait_available(timeout_s)

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Take the effect, or learn what is known of it: one statement decides among any number.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        return await self._ask(lambda connection: self._claim(connection, identity, fingerprint))

    async def claim_undo(self, identity: Identity) -> Owned | Busy | Undone:
        """Take the undoing of an effect, known or not; from here on no run of the key begins."""
        return await self._ask(lambda connection: self._claim_undo(connection, identity))

    async def is_undone(self, identity: Identity) -> bool:
        """Say whether the effect was taken back, claiming nothing."""

        async def look(connection: AsyncConnection) -> bool:
            undone = sa.select(entries.c.key).where(
                _is(identity), entries.c.state == "undone", entries.c.expires_at >= self._now
            )
            return (await connection.execute(undone)).one_or_none() is not None

        return await self._ask(look)

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Say what is known, claiming nothing."""

        async def look(connection: AsyncConnection) -> Known:
            return await self._known(connection, identity, fingerprint)

        return await self._ask(look)

    async def begin(self, identity: Identity, fence: int, *, settles_in_s: float) -> bool:
        """Write down that a call leaves now. False: the lease is lost, and nothing may be sent."""
        return await self._update(
            identity,
            fence,
            entries.c.lease_until > self._now,
            starts=entries.c.starts + 1,
            calling=True,
            settles_at=self._now + settles_in_s,
            lease_until=self._now + LEASE_S,
        )

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer. False: it is lost."""
        return await self._update(
            identity, fence, entries.c.lease_until > self._now, lease_until=self._now + LEASE_S
        )

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result: the effect has happened. False: somebody else took over; ours is void."""
        return await self._update(
            identity,
            fence,
            state="done",
            calling=False,
            lease_until=0.0,
            result=json.dumps(result),
            expires_at=self._now + self._ttl_s,
        )

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark that the effect was taken back."""
        return await self._update(
            identity,
            fence,
            state="undone",
            calling=False,
            lease_until=0.0,
            result=None,
            expires_at=self._now + self._ttl_s,
        )

    async def release(self, identity: Identity, fence: int, *, calling: bool) -> bool:
        """Let go, for a later try. `calling`: a call may still have happened."""
        return await self._update(identity, fence, calling=calling, lease_until=0.0)

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Write down that nobody can tell; no run of this key begins until an operator can."""
        return await self._update(identity, fence, state="unknown", lease_until=0.0)

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim: surely nothing happened, and the key is free again."""

        async def remove(connection: AsyncConnection) -> bool:
            removed = await connection.execute(
                sa.delete(entries).where(_is(identity), entries.c.fence == fence)
            )
            return bool(removed.rowcount)

        return await self._ask(remove)

    async def resolve(self, identity: Identity, *, happened: bool) -> bool:
        """Settle an unknown outcome by an operator's word. False: there is none under this key."""
        unknown = sa.and_(_is(identity), entries.c.state == "unknown")
        # An undo that could not find out leaves the key marked: no run may begin, whatever is settled.
        undoing = sa.and_(
            _is(identity),
            entries.c.state == "undoing",
            entries.c.calling,
            entries.c.lease_until < self._now,
        )
        settled = {"calling": False, "expires_at": self._now + self._ttl_s}
        statements: tuple[sa.Update | sa.Delete, ...] = (
            (
                sa.update(entries).where(unknown).values(state="done", result="null", **settled),
                sa.update(entries).where(undoing).values(result="null", **settled),
            )
            if happened
            else (
                sa.delete(entries).where(unknown),
                sa.update(entries).where(undoing).values(state="undone", **settled),
            )
        )

        async def settle(connection: AsyncConnection) -> bool:
            return any([(await connection.execute(statement)).rowcount for statement in statements])

        return await self._ask(settle)

    async def sweep(self) -> int:
        """Remove expired rows, a batch at a time, and say how many went."""
        removed = 0
        while True:
            batch = await self._ask(self._sweep_batch)
            removed += batch
            if batch < SWEEP_ROWS:
                return removed

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            with suppress(LedgerUnavailable):
                logger.info("ledger swept", removed=await self.sweep())

    async def _sweep_batch(self, connection: AsyncConnection) -> int:
        key = (entries.c.tenant, entries.c.connector, entries.c.action, entries.c.key)
        old = sa.select(*key).where(entries.c.expires_at < self._now).limit(SWEEP_ROWS)
        return (await connection.execute(sa.delete(entries).where(sa.tuple_(*key).in_(old)))).rowcount

    async def _claim(self, connection: AsyncConnection, identity: Identity, fingerprint: str) -> Claim:
        expired = entries.c.expires_at < self._now
        orphaned = sa.and_(
            entries.c.state == "running",
            entries.c.lease_until < self._now,
            entries.c.fingerprint == fingerprint,
        )
        statement = (
            self._insert(entries)
            .values(
                **identity._asdict(),
                fingerprint=fingerprint,
                state="running",
                fence=_new_fence(),
                lease_until=self._now + LEASE_S,
                calling=False,
                settles_at=0.0,
                starts=0,
                expires_at=self._now + self._ttl_s,
            )
            .on_conflict_do_update(
                index_elements=["tenant", "connector", "action", "key"],
                set_={
                    "fingerprint": fingerprint,
                    "state": "running",
                    "fence": entries.c.fence + 1,
                    "lease_until": self._now + LEASE_S,
                    "calling": sa.and_(entries.c.calling, sa.not_(expired)),
                    "starts": sa.case((expired, 0), else_=entries.c.starts),
                    "result": None,
                    "expires_at": self._now + self._ttl_s,
                },
                where=sa.or_(expired, orphaned),
            )
            .returning(*self._owned_columns())
        )
        taken = (await connection.execute(statement)).one_or_none()
        if taken is not None:
            return _owned(taken)
        known = await self._known(connection, identity, fingerprint)
        # Removed between the two statements: whoever had it is done without effect. Come back.
        return Busy(lease_s=0.0) if isinstance(known, Absent) else known

    async def _known(  # noqa: PLR0911  # one return a state
        self, connection: AsyncConnection, identity: Identity, fingerprint: str
    ) -> Known:
        found = (
            await connection.execute(
                sa.select(
                    entries.c.fingerprint,
                    entries.c.state,
                    entries.c.starts,
                    entries.c.calling,
                    entries.c.result,
                    (entries.c.lease_until - self._now).label("lease_s"),
                ).where(_is(identity), entries.c.expires_at >= self._now)
            )
        ).one_or_none()
        if found is None:
            return Absent()
        if found.state in {"undone", "undoing"}:
            return Undone()
        if found.fingerprint != fingerprint:
            return Mismatch()
        if found.state == "done":
            return Done(json.loads(found.result or "null"), found.starts)
        if found.state == "unknown":
            return Unknown(found.starts)
        if found.lease_s <= 0 and not found.calling:
            return Absent()
        return Busy(found.lease_s)

    async def _claim_undo(self, connection: AsyncConnection, identity: Identity) -> Owned | Busy | Undone:
        alive = sa.and_(
            entries.c.state.in_(("running", "undoing")),
            entries.c.lease_until >= self._now,
            entries.c.expires_at >= self._now,
        )
        undone = sa.and_(entries.c.state == "undone", entries.c.expires_at >= self._now)
        statement = (
            self._insert(entries)
            .values(
                **identity._asdict(),
                fingerprint="",
                state="undoing",
                fence=_new_fence(),
                lease_until=self._now + LEASE_S,
                calling=False,
                settles_at=0.0,
                starts=0,
                expires_at=self._now + self._ttl_s,
            )
            .on_conflict_do_update(
                index_elements=["tenant", "connector", "action", "key"],
                set_={
                    "state": "undoing",
                    "fence": entries.c.fence + 1,
                    "lease_until": self._now + LEASE_S,
                    "expires_at": self._now + self._ttl_s,
                },
                where=sa.and_(sa.not_(alive), sa.not_(undone)),
            )
            .returning(*self._owned_columns())
        )
        taken = (await connection.execute(statement)).one_or_none()
        if taken is not None:
            return _owned(taken)
        found = (
            await connection.execute(
                sa.select(entries.c.state, (entries.c.lease_until - self._now).label("lease_s")).where(
                    _is(identity)
                )
            )
        ).one_or_none()
        if found is None:
            return Busy(lease_s=0.0)  # removed between the two statements: its run ended without effect
        return Undone() if found.state == "undone" else Busy(found.lease_s)

    def _owned_columns(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (
            entries.c.fence,
            entries.c.starts,
            entries.c.calling,
            (entries.c.settles_at - self._now).label("settles_in_s"),
            entries.c.result,
        )

    async def _update(
        self, identity: Identity, fence: int, *conditions: sa.ColumnElement[bool], **values: Any
    ) -> bool:
        statement = (
            sa.update(entries)
            .where(
                _is(identity),
                entries.c.fence == fence,
                entries.c.state.in_(("running", "undoing")),
                *conditions,
            )
            .values(**values)
        )

        async def execute(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(statement)).rowcount)

        return await self._ask(execute)


def _is(identity: Identity) -> sa.ColumnElement[bool]:
    return sa.and_(*(entries.c[name] == value for name, value in identity._asdict().items()))


def _owned(row: Any) -> Owned:
    return Owned(
        fence=row.fence,
        starts=row.starts,
        calling=bool(row.calling),
        settles_in_s=max(0.0, row.settles_in_s),
        happened=row.result is not None,
        result=None if row.result is None else json.loads(row.result),
    )


def _new_fence() -> int:
    """Begin a new row above every fence of a removed one: a late holder must never match."""
    return time.time_ns() // 1000


def ledger_of(settings: Settings) -> Ledger:
    """Create the ledger that the settings name.

    Raises:
        SettingError: its directory cannot be created.
    """
    try:
        return Ledger(
            settings.ledger_url,
            ttl_hours=settings.ledger_ttl_hours,
            tls=partial(database_tls, settings),
            connections=settings.database_connections,
        )
    except LedgerFault as fault:
        raise SettingError(str(fault)) from None
