"""What happened under which key: claims, leases and results, in SQLite or PostgreSQL."""

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

#: Seconds a claim holds without being renewed. After a crash another worker takes over within this.
LEASE_S: Final = 15.0
#: Seconds between renewals while an action runs.
RENEW_S: Final = 5.0
#: Seconds for one statement, its wait for a connection included.
STATEMENT_TIMEOUT_S: Final = 5.0
#: Seconds between looks whether a ledger that was down is back.
PROBE_S: Final = 1.0
#: Seconds between removals of expired rows, and how many go at once.
SWEEP_S: Final = 600.0
SWEEP_ROWS: Final = 1000
#: Connections of one worker to PostgreSQL.
POOL_SIZE: Final = 8

_METADATA = sa.MetaData()

#: Facts about the ledger itself: its identity and the version of its schema.
_facts = sa.Table(
    "connectors_ledger_facts",
    _METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)

_entries = sa.Table(
    "connectors_ledger",
    _METADATA,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("connector", sa.String(63), primary_key=True),
    sa.Column("action", sa.String(63), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    #: running, done, unknown, undoing, undone
    sa.Column("state", sa.String(8), nullable=False),
    #: Grows with every claim; whoever holds an older one is late.
    sa.Column("fence", sa.BigInteger, nullable=False),
    #: Epoch seconds by the database's clock, here and below.
    sa.Column("lease_until", sa.Double, nullable=False),
    #: A call may be on its way, or has been cut off: its outcome is not known.
    sa.Column("calling", sa.Boolean, nullable=False),
    #: From here on that call can no longer land.
    sa.Column("settles_at", sa.Double, nullable=False),
    sa.Column("starts", sa.Integer, nullable=False),
    #: JSON text; null until done.
    sa.Column("result", sa.Text),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
)

#: Raised by one with each change; `_upgrade` knows the steps.
SCHEMA_VERSION: Final = 1


class Identity(NamedTuple):
    """Same identity: the same effect, once."""

    tenant: str
    connector: str
    action: str
    key: str


class LedgerUnavailable(Exception):
    """The database does not answer; jobs that need it wait."""


class LedgerFault(Exception):
    """The database cannot serve as a ledger as it is set up; one line that says what to do."""


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
    #: What a run stored, where an undo takes it back.
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
T = TypeVar("T")


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
        self, url: str, *, ttl_hours: float = 720.0, tls: ssl.SSLContext | bool | None = None
    ) -> None:
        self._url = url
        self._ttl_s = ttl_hours * 3600
        self._is_sqlite = url.startswith("sqlite")
        self._engine = _engine(url, tls)
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert
        self._now: sa.ColumnElement[float] = (
            sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
            if self._is_sqlite
            else sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Double)
        )
        self._up = asyncio.Event()
        self._reason: str | None = "not connected yet"
        self._watcher: asyncio.Task[None] | None = None
        #: Two workers of one broker must share a ledger; this tells them apart.
        self.id: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why the ledger cannot be asked; None while it can."""
        return self._reason

    async def start(self) -> None:
        """Create or upgrade the schema; where the database is away, keep trying in the background.

        Raises:
            LedgerFault: it can never serve: no permission, a later schema, a bad path.
        """
        try:
            with suppress(LedgerUnavailable):
                await self._open()
        except LedgerFault:
            await self._engine.dispose()
            raise
        self._watcher = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Let the connections go."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._engine.dispose()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Take the effect, or learn what is known of it: one statement decides among any number.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        return await self._ask(lambda connection: self._claim(connection, identity, fingerprint))

    async def claim_undo(self, identity: Identity) -> Owned | Busy | Undone:
        """Take the undoing of an effect, known or not; from here on no run of the key begins."""
        return await self._ask(lambda connection: self._claim_undo(connection, identity))

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
            _entries.c.lease_until > self._now,
            starts=_entries.c.starts + 1,
            calling=True,
            settles_at=self._now + settles_in_s,
            lease_until=self._now + LEASE_S,
        )

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer. False: it is lost."""
        return await self._update(
            identity, fence, _entries.c.lease_until > self._now, lease_until=self._now + LEASE_S
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
                sa.delete(_entries).where(_is(identity), _entries.c.fence == fence)
            )
            return bool(removed.rowcount)

        return await self._ask(remove)

    async def resolve(self, identity: Identity, *, happened: bool) -> bool:
        """Settle an unknown outcome by an operator's word. False: there is none under this key."""

        async def settle(connection: AsyncConnection) -> bool:
            unknown = (_is(identity), _entries.c.state == "unknown")
            if happened:
                statement: sa.Update | sa.Delete = (
                    sa.update(_entries)
                    .where(*unknown)
                    .values(state="done", calling=False, result="null", expires_at=self._now + self._ttl_s)
                )
            else:
                statement = sa.delete(_entries).where(*unknown)
            return bool((await connection.execute(statement)).rowcount)

        return await self._ask(settle)

    async def sweep(self) -> int:
        """Remove expired rows, a batch at a time, and say how many went."""
        removed = 0
        while True:
            batch = await self._ask(self._sweep_batch)
            removed += batch
            if batch < SWEEP_ROWS:
                return removed

    async def _sweep_batch(self, connection: AsyncConnection) -> int:
        key = (_entries.c.tenant, _entries.c.connector, _entries.c.action, _entries.c.key)
        old = sa.select(*key).where(_entries.c.expires_at < self._now).limit(SWEEP_ROWS)
        return (await connection.execute(sa.delete(_entries).where(sa.tuple_(*key).in_(old)))).rowcount

    async def _claim(self, connection: AsyncConnection, identity: Identity, fingerprint: str) -> Claim:
        expired = _entries.c.expires_at < self._now
        orphaned = sa.and_(
            _entries.c.state == "running",
            _entries.c.lease_until < self._now,
            _entries.c.fingerprint == fingerprint,
        )
        statement = (
            self._insert(_entries)
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
                    "fence": _entries.c.fence + 1,
                    "lease_until": self._now + LEASE_S,
                    "calling": sa.and_(_entries.c.calling, sa.not_(expired)),
                    "starts": sa.case((expired, 0), else_=_entries.c.starts),
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
                    _entries.c.fingerprint,
                    _entries.c.state,
                    _entries.c.starts,
                    _entries.c.calling,
                    _entries.c.result,
                    (_entries.c.lease_until - self._now).label("lease_s"),
                ).where(_is(identity), _entries.c.expires_at >= self._now)
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
            _entries.c.state.in_(("running", "undoing")),
            _entries.c.lease_until >= self._now,
            _entries.c.expires_at >= self._now,
        )
        undone = sa.and_(_entries.c.state == "undone", _entries.c.expires_at >= self._now)
        statement = (
            self._insert(_entries)
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
                    "fence": _entries.c.fence + 1,
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
        state, lease_s = (
            await connection.execute(
                sa.select(_entries.c.state, _entries.c.lease_until - self._now).where(_is(identity))
            )
        ).one()
        return Undone() if state == "undone" else Busy(lease_s)

    def _owned_columns(self) -> tuple[sa.ColumnElement[Any], ...]:
        return (
            _entries.c.fence,
            _entries.c.starts,
            _entries.c.calling,
            (_entries.c.settles_at - self._now).label("settles_in_s"),
            _entries.c.result,
        )

    async def _update(
        self, identity: Identity, fence: int, *conditions: sa.ColumnElement[bool], **values: Any
    ) -> bool:
        statement = (
            sa.update(_entries)
            .where(
                _is(identity),
                _entries.c.fence == fence,
                _entries.c.state.in_(("running", "undoing")),
                *conditions,
            )
            .values(**values)
        )

        async def execute(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(statement)).rowcount)

        return await self._ask(execute)

    async def _ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run one transaction within its time.

        Raises:
            LedgerUnavailable: the database failed or took too long. What was asked may have been done.
        """
        if not self._up.is_set():
            raise LedgerUnavailable(self._reason or "not connected yet")
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S), self._engine.begin() as connection:
                return await question(connection)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            reason = self._down(error)
            raise LedgerUnavailable(reason) from None

    def _down(self, error: BaseException) -> str:
        reason = _brief(error)
        if self._up.is_set():
            logger.warning("ledger unavailable", reason=reason)
        self._up.clear()
        self._reason = reason
        return reason

    async def _watch(self) -> None:
        """Notice when the database is back, and remove what has expired."""
        loop = asyncio.get_running_loop()
        sweep_at = loop.time() + SWEEP_S
        while True:
            await asyncio.sleep(PROBE_S)
            if not self._up.is_set():
                try:
                    await self._open()
                except LedgerUnavailable:
                    continue
                except LedgerFault as fault:
                    self._reason = str(fault)
                    continue
                logger.info("ledger available")
            if loop.time() >= sweep_at:
                with suppress(LedgerUnavailable):
                    removed = await self.sweep()
                    logger.info("ledger swept", removed=removed)
                sweep_at = loop.time() + SWEEP_S

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S * 2), self._engine.begin() as connection:
                await self._upgrade(connection)
        except DBAPIError as error:
            if _is_setting(error):
                raise LedgerFault(f"CONNECTORS_DATABASE_URL: {_brief(error)}") from None
            raise LedgerUnavailable(self._down(error)) from None
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(self._down(error)) from None
        self._reason = None
        self._up.set()

    async def _upgrade(self, connection: AsyncConnection) -> None:
        """Bring the schema up to date; of workers that start at once, one does it and the rest wait."""
        if self._is_sqlite:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.execute(sa.text("select pg_advisory_xact_lock(7017012)"))
        await connection.run_sync(_METADATA.create_all)
        facts = {
            row.name: row.value for row in await connection.execute(sa.select(_facts.c.name, _facts.c.value))
        }
        for name, value in (("schema", str(SCHEMA_VERSION)), ("id", uuid4().hex)):
            if name not in facts:
                await connection.execute(_facts.insert().values(name=name, value=value))
                facts[name] = value
        if int(facts["schema"]) > SCHEMA_VERSION:
            raise LedgerFault(
                f"the ledger's schema is version {facts['schema']}, this worker knows {SCHEMA_VERSION}; "
                "upgrade this worker"
            )
        self.id = facts["id"]


def _is(identity: Identity) -> sa.ColumnElement[bool]:
    return sa.and_(*(_entries.c[name] == value for name, value in identity._asdict().items()))


def _owned(row: Any) -> Owned:
    return Owned(
        fence=row.fence,
        starts=row.starts,
        calling=bool(row.calling),
        settles_in_s=max(0.0, row.settles_in_s),
        result=None if row.result is None else json.loads(row.result),
    )


def _engine(url: str, tls: ssl.SSLContext | bool | None) -> AsyncEngine:
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        if path != ":memory:":
            directory = Path(path).expanduser().parent
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LedgerFault(
                    f"CONNECTORS_DATABASE_URL: {directory} cannot be made: {error.strerror}"
                ) from None
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}", connect_args={"timeout": STATEMENT_TIMEOUT_S}, pool_size=2
        )

        @sa.event.listens_for(engine.sync_engine, "connect")
        def tune(connection: Any, _record: Any) -> None:
            # WAL lets readers pass the writer; FULL keeps a claim through a power cut.
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")

        return engine
    target = sa.make_url(url).set(drivername="postgresql+asyncpg")
    sslmode = target.query.get("sslmode")
    target = target.difference_update_query(["sslmode"])
    if tls is None and sslmode == "disable":
        tls = False
    return create_async_engine(
        target,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=STATEMENT_TIMEOUT_S,
        connect_args={
            "timeout": STATEMENT_TIMEOUT_S,
            "command_timeout": STATEMENT_TIMEOUT_S,
            **({} if tls is None else {"ssl": tls}),
        },
    )


#: PostgreSQL's codes for what no waiting mends: wrong password, no such role, database or permission.
_FAULTY_STATES: Final = frozenset({"28P01", "28000", "3D000", "42501"})
_FAULTY_FILES: Final = ("unable to open database file", "readonly database", "not a database")


def _is_setting(error: DBAPIError) -> bool:
    """Tell what is set up wrong from what is away."""
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    return state in _FAULTY_STATES or any(sign in str(error.orig) for sign in _FAULTY_FILES)


def _brief(error: BaseException) -> str:
    """Say a database error without its statement, its parameters or its URL."""
    original = getattr(error, "orig", None) or error
    if isinstance(error, TimeoutError):
        return f"the database gave no answer in {STATEMENT_TIMEOUT_S:g} s"
    text = " ".join(str(original).split())
    return (text.split("[SQL")[0] or type(original).__name__)[:200]


def _new_fence() -> int:
    """Begin a new row above every fence of a removed one: a late holder must never match."""
    return time.time_ns() // 1000


def database_host(url: str) -> str | None:
    """Name the host of a PostgreSQL URL; None for SQLite."""
    return None if url.startswith("sqlite") else urlsplit(url).hostname
