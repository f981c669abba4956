"""The database behind the ledger: one transaction at a time within its time, and noticing when it is away."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import sqlalchemy as sa
from loguru import logger
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.ledger.schema import LedgerFault, upgrade

#: Seconds for one statement, its wait for a connection included.
STATEMENT_TIMEOUT_S: Final = 5.0
#: Seconds between looks whether a database that was down is back.
PROBE_S: Final = 1.0
#: Connections of one worker to PostgreSQL.
POOL_SIZE: Final = 8

T = TypeVar("T")


class Database:
    """SQLite or PostgreSQL, with the ledger's schema in it.

    Once a transaction fails it counts as away, and nobody asks it in vain until a look of our own
    finds it back. Started and closed by the ledger.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | bool | None = None) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self._engine = _engine(url, tls)
        self._up = asyncio.Event()
        self._reason: str | None = "not connected yet"
        self._watcher: asyncio.Task[None] | None = None
        #: Two workers of one broker must share a ledger; this tells them apart.
        self.id: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why it cannot be asked; None while it can."""
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

    async def ask(self, question: Callable[[AsyncConnection], Awaitable[T]]) -> T:
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
        """Notice when the database is back."""
        while True:
            await asyncio.sleep(PROBE_S)
            if self._up.is_set():
                continue
            try:
                await self._open()
            except LedgerUnavailable:
                continue
            except LedgerFault as fault:
                self._reason = str(fault)
                continue
            logger.info("ledger available")

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S * 2), self._engine.begin() as connection:
                self.id = await upgrade(connection, is_sqlite=self.is_sqlite)
        except DBAPIError as error:
            if _is_setting(error):
                raise LedgerFault(f"CONNECTORS_DATABASE_URL: {_brief(error)}") from None
            raise LedgerUnavailable(self._down(error)) from None
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(self._down(error)) from None
        self._reason = None
        self._up.set()


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


def database_host(url: str) -> str | None:
    """Name the host of a PostgreSQL URL; None for SQLite."""
    return None if url.startswith("sqlite") else urlsplit(url).hostname
