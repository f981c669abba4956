"""Connections to the ledger's database: how they are made, looked at before use, and given up together."""

import asyncio
import sqlite3
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import aiosqlite
import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from worker.database_url import DatabaseUrl
from worker.ledger.policy import DatabasePolicy

#: Connections to SQLite: one writes at a time, and one reads beside it.
SQLITE_CONNECTIONS: Final = 2
#: Part of a transaction's time that SQLite waits for a lock: it says so itself before it is cut short.
LOCK_PART: Final = 0.9
#: Seconds after which a connection is made anew: below the 4 minutes after which balancers drop idle ones.
RECYCLE_S: Final = 180
#: Seconds for the answer of a connection that is asked whether it lives.
PING_TIMEOUT_S: Final = 1.0

#: The TLS of a connection about to be made: a context, None for the driver's own choice, False for none.
TlsOf = Callable[[], ssl.SSLContext | bool | None]


class PlainDialect(PGDialect_asyncpg):
    """SQLAlchemy's own, less what it asks at connect: pgbouncer may split that over two servers."""

    supports_statement_cache = True

    def on_connect(self) -> None:
        """Set up no JSON codecs: the ledger keeps text."""
        return


registry.register("postgresql.ledger", __name__, PlainDialect.__name__)


class Connections:
    """The pool, and the idle connections in it, which `drop_idle` ends at once.

    Created and closed by `Database`.
    """

    def __init__(self, url: DatabaseUrl, tls: TlsOf, policy: DatabasePolicy, *, size: int) -> None:
        timeout_s, self._idle_s = policy.statement_timeout_s, policy.idle_s
        self._idle: set[asyncpg.Connection[asyncpg.Record]] = set()
        if url.is_sqlite:
            self.engine = _sqlite(url, size, timeout_s)
        else:
            self.engine = _postgresql(url, tls, size, timeout_s)
            self._watch_idle()

    async def close(self) -> None:
        """Close the connections."""
        self.drop_idle()
        await self.engine.dispose()

    def drop_idle(self) -> None:
        """End every idle connection: what broke one of them broke the others, too.

        One by one they would cost their users a timeout each; a pool kept over a failover would stay
        on the server that writes no more.
        """
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    def _watch_idle(self) -> None:
        pool = self.engine.sync_engine

        @sa.event.listens_for(pool, "checkin")
        def returned(connection: Any, record: Any) -> None:
            record.info["returned_at"] = time.monotonic()
            if connection is not None:
                self._idle.add(connection.driver_connection)

        @sa.event.listens_for(pool, "checkout")
        def taken(connection: Any, record: Any, _proxy: Any) -> None:
            driver = connection.driver_connection
            self._idle.discard(driver)
            rested_s = time.monotonic() - record.info.pop("returned_at", time.monotonic())
            if not driver.is_closed() and rested_s < self._idle_s:
                return
            try:
                connection.run_async(_ping)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                driver.terminate()
                self.drop_idle()
                raise sa.exc.InvalidatePoolError from None


async def _ping(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # Without arguments this is one message: no prepared statement that a pooler could lose.
    await connection.execute("select 1", timeout=PING_TIMEOUT_S)


class SqliteConnection(aiosqlite.Connection):
    """A connection that is stopped once.

    aiosqlite carries out no second order to stop, and a task that awaits it waits for ever: a cancelled
    transaction gives two, and a worker that ends would hang in its event loop's last step.
    """

    _is_stopped = False

    def stop(self) -> "asyncio.Future[Any] | None":
        """Stop the thread; None if it is stopping already."""
        if self._is_stopped:
            return None
        self._is_stopped = True
        return super().stop()


def _sqlite(url: DatabaseUrl, size: int, timeout_s: float) -> AsyncEngine:
    async def connect() -> aiosqlite.Connection:
        connection = SqliteConnection(
            partial(sqlite3.connect, str(url.file), timeout=timeout_s * LOCK_PART), 64
        )
        connection._thread.daemon = True  # one that waits for a lock keeps no process from ending
        return await connection

    engine = create_async_engine(
        sa.URL.create("sqlite+aiosqlite", database=str(url.file)),
        async_creator=connect,
        pool_size=size,
        max_overflow=0,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def tune(connection: Any, _record: Any) -> None:
        # WAL lets readers pass the writer; FULL keeps a claim through a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgresql(url: DatabaseUrl, tls: TlsOf, size: int, timeout_s: float) -> AsyncEngine:
    engine = create_async_engine(
        sa.URL.create("postgresql+ledger", url.user, url.password, url.host, url.port, url.database),
        pool_size=size,
        max_overflow=0,
        pool_recycle=RECYCLE_S,
        # A database's own default may be stricter, and would end claims that waited for each other.
        isolation_level="READ COMMITTED",
        connect_args={
            "timeout": float(url.parameters.get("connect_timeout", timeout_s)),
            "command_timeout": timeout_s,
            # Unnamed statements, used up in their own transaction: a pooler that changes servers
            # between transactions has nothing to lose.
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": str,
            **_libpq(url.parameters),
        },
    )

    @sa.event.listens_for(engine.sync_engine, "do_connect")
    def encrypt(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> None:
        if (context := tls()) is not None:
            options["ssl"] = context

    return engine


def _libpq(parameters: Mapping[str, str]) -> dict[str, Any]:
    session = {name: parameters[name] for name in ("application_name", "options") if name in parameters}
    attrs = parameters.get("target_session_attrs")
    return {
        **({"server_settings": session} if session else {}),
        **({"target_session_attrs": attrs} if attrs else {}),
    }
