"""Transactions of the table of credentials, on SQLite or PostgreSQL: few, since what is read is kept in memory."""

import asyncio
import sqlite3
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from worker.credentials.script import Script
from worker.credentials.source import WholeVaultUnavailable
from worker.database_url import DatabaseUrl
from worker.settings import SettingError

T = TypeVar("T")

#: Seconds for one transaction, and for a connection.
TIMEOUT_S: Final = 5.0
#: Connections to PostgreSQL; more wait.
CONNECTIONS: Final = 4
#: Transactions that wait for SQLite's thread; more are refused at once.
MOST_WAITING: Final = 200
#: Part of the time that SQLite waits for a lock: it says so itself before it is cut short.
_LOCK_PART: Final = 0.8
_SETTINGS: Final = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

#: The TLS of a connection about to be made: a context, None for the driver's own choice, False for none.
TlsOf = Callable[[], ssl.SSLContext | bool | None]


class TableDatabase(Protocol):
    """A database that runs scripts, each in a transaction."""

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file."""
        ...

    async def transact(self, script: Script[T]) -> T:
        """Run a script: all of it, or nothing.

        Raises:
            WholeVaultUnavailable: the database failed, or took too long; the commit may have happened.
            SettingError: it refuses us.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def table_database(url: str, tls: TlsOf) -> TableDatabase:
    """Return the database that a URL names; nothing is opened so far."""
    parsed = DatabaseUrl.parse(url)
    return SqliteTable(parsed.file) if parsed.file is not None else PostgresqlTable(parsed, tls)


class SqliteTable:
    """A file; one thread reads and writes it, and opens it anew each time."""

    is_sqlite: Final = True

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="credentials")
        self._waiting = 0

    async def transact(self, script: Script[T]) -> T:
        """Run a script in the thread."""
        if self._waiting >= MOST_WAITING:
            raise WholeVaultUnavailable("too many reads of the table of credentials wait already")
        self._waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._run, script)
        running.add_done_callback(self._count_back)
        try:
            # The thread ends by itself: a lock is given up before this is.
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.shield(running)
        except (sqlite3.Error, OSError) as error:
            raise WholeVaultUnavailable(f"the table of credentials: {error}") from None
        except TimeoutError:
            raise WholeVaultUnavailable(
                f"the table of credentials gave no answer in {TIMEOUT_S:g} s"
            ) from None

    async def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _count_back(self, running: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not running.cancelled():
            running.exception()  # retrieved: who waited may be gone

    def _run(self, script: Script[T]) -> T:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file.touch(mode=0o600)
        with closing(
            sqlite3.connect(self._file, timeout=TIMEOUT_S * _LOCK_PART, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            steps = script()
            try:
                step = next(steps)
                while True:
                    cursor = connection.execute(step.text.replace("$", "?"), step.values)
                    step = steps.send(cursor.fetchall())
            except StopIteration as ended:
                connection.execute("COMMIT")
                result: T = ended.value
                return result


class PostgresqlTable:
    """A database server."""

    is_sqlite: Final = False

    def __init__(self, url: DatabaseUrl, tls: TlsOf) -> None:
        self._url = url
        self._tls = tls
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[asyncpg.Connection[asyncpg.Record]] = []

    async def transact(self, script: Script[T]) -> T:
        """Run a script on an idle connection, or on a new one; one that broke while it was idle is no failure."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._slots:
                while self._idle:
                    connection = self._idle.pop()
                    if await _lives(connection):
                        return await self._run(connection, script)
                return await self._run(await self._connect(), script)
        except _SETTINGS as error:
            raise SettingError(f"CONNECTORS_DATABASE_URL: {error}") from None
        except TimeoutError:
            raise WholeVaultUnavailable(
                f"the table of credentials gave no answer in {TIMEOUT_S:g} s"
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise WholeVaultUnavailable(
                f"the table of credentials: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from None

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().terminate()

    async def _run(self, connection: "asyncpg.Connection[asyncpg.Record]", script: Script[T]) -> T:
        try:
            async with connection.transaction(isolation="read_committed"):
                result = await _ask(connection, script)
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)
        return result

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        url, options = self._url, _options(self._url.parameters)
        if (context := self._tls()) is not None:
            options["ssl"] = context
        return await asyncpg.connect(
            host=url.host,
            port=url.port,
            user=url.user,
            password=url.password,
            database=url.database,
            timeout=TIMEOUT_S,
            # Unnamed statements: a pooler that changes servers between transactions has nothing to lose.
            statement_cache_size=0,
            **options,
        )


async def _ask(connection: "asyncpg.Connection[asyncpg.Record]", script: Script[T]) -> T:
    steps = script()
    try:
        step = next(steps)
        while True:
            step = steps.send(await connection.fetch(step.text, *step.values))
    except StopIteration as ended:
        result: T = ended.value
        return result


async def _lives(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    try:
        await connection.execute("select 1", timeout=1.0)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()
        return False
    return True


def _options(parameters: Mapping[str, str]) -> dict[str, Any]:
    session = {name: parameters[name] for name in ("application_name", "options") if name in parameters}
    attrs = parameters.get("target_session_attrs")
    return {
        **({"server_settings": session} if session else {}),
        **({"target_session_attrs": attrs} if attrs else {}),
    }
