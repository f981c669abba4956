"""The ledger in SQL: claims, leases and results, in SQLite or PostgreSQL."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import (
    Absent,
    Claim,
    Claimed,
    Identity,
    InProgress,
    Known,
    LedgerUnavailable,
    Undone,
    claim_of,
    known_of,
)
from worker.ledger.database import Database, no_tls
from worker.ledger.engine import TlsOf
from worker.ledger.policy import DEFAULT_POLICY, DatabasePolicy
from worker.ledger.schema import LedgerFault, entries
from worker.settings import SettingError, Settings
from worker.tls import database_tls

#: No lease is longer; one that ends later was written before the database's clock was set back.
MAX_LEASE_S: Final = 60.0
#: Seconds between removals of expired rows, and how many go at once.
SWEEP_S: Final = 600.0
SWEEP_ROWS: Final = 1000


class SqlLedger:
    """One table, one atomic claim; the same statements on SQLite and PostgreSQL.

    1. `claim` gives the effect to one worker, or says what is known
    2. `begin` is the last look before a call leaves: the lease must still be ours
    3. `renew` while it runs
    4. `complete`, `forget`, `release` or `mark_unknown` record how it ended; all are void for a
       worker that lost the lease meanwhile

    Started and closed by the service.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_hours: float = 720.0,
        tls: TlsOf = no_tls,
        policy: LeasePolicy | None = None,
        database: DatabasePolicy = DEFAULT_POLICY,
    ) -> None:
        self._lease_s = (policy or LeasePolicy()).lease_s
        self._ttl_s = ttl_hours * 3600
        self._database = Database(url, tls, policy=database)
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
        """What tells ledgers apart: two workers of one broker must share one. None until it was reached."""
        return self._database.id

    @property
    def unavailable_reason(self) -> str | None:
        """Why the ledger cannot be asked; None while it can."""
        return self._database.unavailable_reason

    async def start(self) -> None:
        """Open the database and create its schema; if it is unavailable, keep trying in the background.

        Raises:
            LedgerFault: it can never serve: no permission, a later schema, a bad path.
        """
        await self._database.start()
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def close(self) -> None:
        """Close the connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        await self._database.close()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        return await self._database.wait_available(timeout_s)

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Claim the effect, or return what is known of it: one statement decides among any number of workers.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        return await self._ask(lambda connection: self._claim(connection, identity, fingerprint))

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Claim the undo of an effect, known or not; no run of the key begins from here on."""
        return await self._ask(lambda connection: self._claim_undo(connection, identity))

    async def is_undone(self, identity: Identity) -> bool:
        """Return whether the effect was undone, claiming nothing."""

        async def look(connection: AsyncConnection) -> bool:
            undone = sa.select(entries.c.key).where(
                _is(identity), entries.c.state == "undone", entries.c.expires_at >= self._now
            )
            return (await connection.execute(undone)).one_or_none() is not None

        return await self._ask(look)

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Return what is known, claiming nothing."""

        async def look(connection: AsyncConnection) -> Known:
            return await self._known(connection, identity, fingerprint)

        return await self._ask(look)

    async def begin(self, identity: Identity, fence: int, *, lands_within_s: float) -> bool:
        """Record that a call leaves now; False if the lease is lost, and then nothing may be sent."""
        return await self._update(
            identity,
            fence,
            entries.c.lease_until > self._now,
            attempts=entries.c.attempts + 1,
            in_flight=True,
            lands_at=self._now + lands_within_s,
            lease_until=self._now + self._lease_s,
        )

    async def begin_undo(self, identity: Identity, fence: int) -> bool:
        """Record that the call of an undo leaves now; False if the lease is lost, and then nothing may be sent."""
        return await self._update(
            identity,
            fence,
            entries.c.lease_until > self._now,
            undo_in_flight=True,
            lease_until=self._now + self._lease_s,
        )

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer; False if it is lost."""
        return await self._update(
            identity, fence, entries.c.lease_until > self._now, lease_until=self._now + self._lease_s
        )

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result: the effect has happened. False if another worker took over."""
        return await self._update(
            identity,
            fence,
            state="done",
            in_flight=False,
            lease_until=0.0,
            result=json.dumps(result),
            expires_at=self._now + self._ttl_s,
        )

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark that the effect was undone."""
        return await self._update(
            identity,
            fence,
            state="undone",
            in_flight=False,
            undo_in_flight=False,
            lease_until=0.0,
            result=None,
            expires_at=self._now + self._ttl_s,
        )

    async def record_step(self, identity: Identity, fence: int, steps: Mapping[str, Any]) -> bool:
        """Store what the steps so far returned."""
        return await self._update(identity, fence, steps=json.dumps(dict(steps)))

    async def abort_undo(self, identity: Identity, fence: int) -> bool:
        """Put back what the key was before `claim_undo`: the effect is as it was."""
        ours = sa.and_(_is(identity), entries.c.fence == fence, entries.c.state == "undoing")
        statements = (
            sa.delete(entries).where(ours, entries.c.before_undo.is_(None)),
            sa.update(entries)
            .where(ours)
            .values(state=entries.c.before_undo, before_undo=None, undo_in_flight=False, lease_until=0.0),
        )

        async def put_back(connection: AsyncConnection) -> bool:
            return any([(await connection.execute(each)).rowcount for each in statements])

        return await self._ask(put_back)

    async def release(
        self, identity: Identity, fence: int, *, in_flight: bool, undo_in_flight: bool = False
    ) -> bool:
        """Release the claim for a later attempt, and say which calls may still have happened."""
        return await self._update(
            identity, fence, in_flight=in_flight, undo_in_flight=undo_in_flight, lease_until=0.0
        )

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Record that no one can tell; no run of the key begins until an operator can."""
        return await self._update(identity, fence, state="unknown", lease_until=0.0)

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim: certainly nothing happened, and the key is free again."""

        async def remove(connection: AsyncConnection) -> bool:
            removed = await connection.execute(
                sa.delete(entries).where(_is(identity), entries.c.fence == fence)
            )
            return bool(removed.rowcount)

        return await self._ask(remove)

    async def knows(self, identity: Identity) -> bool:
        """Return whether there is a row for this key, whatever its state."""

        async def look(connection: AsyncConnection) -> bool:
            row = sa.select(entries.c.key).where(_is(identity), entries.c.expires_at >= self._now)
            return (await connection.execute(row)).one_or_none() is not None

        return await self._ask(look)

    async def resolve(self, identity: Identity, fingerprint: str, *, happened: bool) -> bool:
        """Settle an unknown outcome as an operator says; False if the key's outcome is known.

        A key whose row is gone gets a new one: without it a replay would have the effect twice.
        """
        unknown = sa.and_(_is(identity), entries.c.state == "unknown")
        # An undo that could not find out leaves the key marked: no run may begin, whatever is settled.
        undoing = sa.and_(
            _is(identity),
            entries.c.state == "undoing",
            sa.or_(entries.c.in_flight, entries.c.undo_in_flight),
            entries.c.lease_until < self._now,
        )
        settled = {"in_flight": False, "undo_in_flight": False, "expires_at": self._now + self._ttl_s}
        outcome = (
            {"state": "done", "result": "null"} if happened else {"state": "running", "lease_until": 0.0}
        )
        missing = self._insert(entries).values(
            **{
                **identity._asdict(),
                "fingerprint": fingerprint,
                "fence": _new_fence(),
                "lease_until": 0.0,
                "lands_at": 0.0,
                "attempts": 0,
                **settled,
                **outcome,
            }
        )
        statements = (
            sa.update(entries).where(unknown).values(**settled, **outcome),
            sa.update(entries)
            .where(undoing)
            .values(
                **(
                    {"result": sa.func.coalesce(entries.c.result, "null")}
                    if happened
                    else {"state": "undone"}
                ),
                **settled,
            ),
            missing.on_conflict_do_nothing(index_elements=["tenant", "connector", "action", "key"]),
        )

        async def settle(connection: AsyncConnection) -> bool:
            return any([(await connection.execute(statement)).rowcount for statement in statements])

        return await self._ask(settle)

    async def sweep(self) -> int:
        """Remove expired rows in batches, and return how many."""
        removed = 0
        while True:
            batch = await self._ask(self._sweep_batch)
            removed += batch
            if batch < SWEEP_ROWS:
                return removed

    async def _sweep_forever(self) -> None:
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
            sa.not_(self._is_leased()),
            entries.c.fingerprint == fingerprint,
        )
        statement = self._claiming(
            identity,
            sa.or_(expired, orphaned),
            state="running",
            fingerprint=fingerprint,
            result=None,
            before_undo=None,
        )
        taken = (await connection.execute(statement)).one_or_none()
        if taken is not None:
            return claim_of(taken, taken.lands_within_s)
        known = await self._known(connection, identity, fingerprint)
        # Removed between the two statements: its run ended without effect. Come back.
        return InProgress(lease_s=0.0) if isinstance(known, Absent) else known

    async def _known(self, connection: AsyncConnection, identity: Identity, fingerprint: str) -> Known:
        kept = sa.select(entries, (entries.c.lease_until - self._now).label("lease_s"))
        found = await connection.execute(kept.where(_is(identity), entries.c.expires_at >= self._now))
        row = found.one_or_none()
        if row is None:
            return Absent()
        return known_of(row, fingerprint, row.lease_s if row.lease_s <= MAX_LEASE_S else 0.0)

    async def _claim_undo(
        self, connection: AsyncConnection, identity: Identity
    ) -> Claimed | InProgress | Undone:
        expired = entries.c.expires_at < self._now
        alive = sa.and_(entries.c.state.in_(("running", "undoing")), self._is_leased(), sa.not_(expired))
        undone = sa.and_(entries.c.state == "undone", sa.not_(expired))
        statement = self._claiming(
            identity,
            sa.and_(sa.not_(alive), sa.not_(undone)),
            state="undoing",
            result=sa.case((expired, None), else_=entries.c.result),
            before_undo=sa.case(
                (expired, None), (entries.c.state == "undoing", entries.c.before_undo), else_=entries.c.state
            ),
        )
        taken = (await connection.execute(statement)).one_or_none()
        if taken is not None:
            return claim_of(taken, taken.lands_within_s)
        found = (
            await connection.execute(
                sa.select(entries.c.state, (entries.c.lease_until - self._now).label("lease_s")).where(
                    _is(identity)
                )
            )
        ).one_or_none()
        if found is None:
            return InProgress(lease_s=0.0)  # removed between the two statements: its run ended without effect
        return Undone() if found.state == "undone" else InProgress(found.lease_s)

    def _claiming(
        self,
        identity: Identity,
        is_free: sa.ColumnElement[bool],
        *,
        state: str,
        fingerprint: str | None = None,
        **taken_over: Any,
    ) -> sa.Executable:
        """Build the statement that claims a key: a new row, or the one that is there if it is free."""
        expired = entries.c.expires_at < self._now
        if fingerprint is not None:
            taken_over["fingerprint"] = fingerprint
        return (
            self._insert(entries)
            .values(
                **identity._asdict(),
                fingerprint=fingerprint or "",
                state=state,
                fence=_new_fence(),
                lease_until=self._now + self._lease_s,
                in_flight=False,
                lands_at=0.0,
                attempts=0,
                expires_at=self._now + self._ttl_s,
            )
            .on_conflict_do_update(
                index_elements=["tenant", "connector", "action", "key"],
                set_={
                    "state": state,
                    "fence": entries.c.fence + 1,
                    "lease_until": self._now + self._lease_s,
                    "in_flight": sa.and_(entries.c.in_flight, sa.not_(expired)),
                    "undo_in_flight": sa.and_(entries.c.undo_in_flight, sa.not_(expired)),
                    "attempts": sa.case((expired, 0), else_=entries.c.attempts),
                    "steps": sa.case((expired, None), else_=entries.c.steps),
                    "expires_at": self._now + self._ttl_s,
                    **taken_over,
                },
                where=is_free,
            )
            .returning(*self._claimed_columns())
        )

    def _claimed_columns(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (
            entries.c.fence,
            entries.c.attempts,
            entries.c.in_flight,
            entries.c.undo_in_flight,
            (entries.c.lands_at - self._now).label("lands_within_s"),
            entries.c.steps,
            entries.c.result,
        )

    def _is_leased(self) -> sa.ColumnElement[bool]:
        """Whether a row's lease holds; one that ends too far away was written by a clock that was set back since."""
        return sa.and_(entries.c.lease_until >= self._now, entries.c.lease_until <= self._now + MAX_LEASE_S)

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


def _new_fence() -> int:
    """Begin a new row above every fence of a removed one: a late holder must never match."""
    return time.time_ns() // 1000


def ledger_of(settings: Settings, policy: LeasePolicy | None = None) -> SqlLedger:
    """Create the ledger that the settings name.

    Raises:
        SettingError: its directory cannot be created.
    """
    try:
        return SqlLedger(
            settings.ledger_url,
            ttl_hours=settings.ledger_ttl_hours,
            tls=partial(database_tls, settings),
            policy=policy,
            database=DatabasePolicy(connections=settings.database_connections),
        )
    except LedgerFault as fault:
        raise SettingError(str(fault)) from None
