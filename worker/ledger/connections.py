"""Connections to PostgreSQL: opened beside the work, looked at before use, given up together."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from worker.database_url import DatabaseUrl
from worker.ledger.faults import DatabaseFault, sort
from worker.ledger.policy import DatabasePolicy, TlsOf
from worker.ledger.statements import Statement

#: Seconds that a connection rests before it is closed: below the 4 minutes after which balancers drop idle ones.
MAX_IDLE_S: Final = 180.0
#: Seconds for the answer of a connection that is asked whether it lives.
PING_TIMEOUT_S: Final = 1.0
#: What asyncpg raises: the server's errors, its own, a broken or refused connection, a value that it cannot send.
ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    ValueError,
    OverflowError,
)


class Link:
    """One connection, with what it knows of each statement.

    Its statements have no name: they are sent along whenever they are executed, since a pooler may give each
    transaction another server. Only their types are kept.
    """

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", *, is_strict: bool) -> None:
        self.connection = connection
        #: The database's default isolation would end claims that waited for each other.
        self.is_strict = is_strict
        self.rests_since = 0.0
        self._statements: dict[Statement, asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]] = {}

    async def prepare(
        self, statement: Statement
    ) -> "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]":
        """Return the statement with its types; they are asked for once."""
        known = self._statements.get(statement)
        if known is None:
            known = self._statements[statement] = await self.connection.prepare(statement.postgresql)
        return known

    async def ping(self) -> None:
        """Ask whether the connection lives."""
        # Without arguments this is one message.
        await self.connection.execute("select 1", timeout=PING_TIMEOUT_S)


class Connections:
    """As many connections as transactions ran at once; the one used last is used first.

    A transaction that finds none has one opened, and takes whichever is free first: to open one takes several
    round trips. Its user bounds how many run at once, and closes it.
    """

    def __init__(self, url: DatabaseUrl, tls: TlsOf, policy: DatabasePolicy) -> None:
        self._tls = tls
        self._idle_s = policy.idle_s
        self._options = _options(url, policy.statement_timeout_s)
        self._idle: deque[Link] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        #: Connections that are being opened.
        self._coming = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """Lend a connection that lives; one whose user failed is closed, unless the server only said no."""
        link = await self._acquire()
        try:
            yield link
        except asyncpg.PostgresError as error:
            if sort(error) is DatabaseFault.CONNECTION:
                link.connection.terminate()
            else:
                self._release(link)
            raise
        except TimeoutError:
            # Closed in peace, which cancels what it is at: it may wait for a lock, and hold others meanwhile.
            self._spawn(_close(link))
            raise
        except BaseException:
            link.connection.terminate()
            raise
        else:
            self._release(link)

    def drop_idle(self) -> None:
        """End every idle connection: what broke one of them broke the others, too.

        One by one they would cost their users a timeout each; a pool kept over a failover would stay
        on the server that writes no more.
        """
        while self._idle:
            self._idle.pop().connection.terminate()

    async def close(self) -> None:
        """Close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        links = list(self._idle)
        self._idle.clear()
        await asyncio.gather(*(_close(link) for link in links))

    async def _acquire(self) -> Link:
        while True:
            link = await self._rested()
            if link is not None:
                return link
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            if self._coming < len(self._waiting):
                self._coming += 1
                self._spawn(self._open())
            try:
                async with asyncio.timeout(self._options["timeout"] + PING_TIMEOUT_S):
                    await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake(None)  # what it was woken for is another's
                raise

    async def _rested(self) -> Link | None:
        """Return an idle connection that lives."""
        while self._idle:
            link = self._idle.pop()
            if link.connection.is_closed():
                continue
            if time.monotonic() - link.rests_since >= self._idle_s:
                try:
                    await link.ping()
                except ERRORS:
                    link.connection.terminate()
                    self.drop_idle()
                    return None
                except BaseException:
                    link.connection.terminate()
                    raise
            return link
        return None

    def _release(self, link: Link) -> None:
        now = link.rests_since = time.monotonic()
        self._idle.append(link)
        while self._idle[0].rests_since < now - MAX_IDLE_S:
            self._idle.popleft().connection.terminate()
        self._wake(None)

    async def _open(self) -> None:
        try:
            link = await self._connected()
        except ERRORS as error:
            self._coming -= 1
            self._wake(error)
        except BaseException:
            self._coming -= 1
            raise
        else:
            self._coming -= 1
            self._release(link)

    def _wake(self, error: Exception | None) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if turn.done():
                continue
            if error is None:
                turn.set_result(None)
            else:
                turn.set_exception(error)
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self) -> Link:
        tls = self._tls()
        options = self._options if tls is None else {**self._options, "ssl": tls}
        connection = await asyncpg.connect(**options)
        try:
            isolation = await connection.fetchval("select current_setting('default_transaction_isolation')")
        except BaseException:
            connection.terminate()
            raise
        return Link(connection, is_strict=isolation != "read committed")


async def _close(link: Link) -> None:
    try:
        async with asyncio.timeout(PING_TIMEOUT_S):
            await link.connection.close()
    except ERRORS:
        link.connection.terminate()
    except BaseException:
        link.connection.terminate()
        raise


def _options(url: DatabaseUrl, timeout_s: float) -> dict[str, Any]:
    given = url.parameters
    session = {name: given[name] for name in ("application_name", "options") if name in given}
    options: Mapping[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "password": url.password,
        "database": url.database,
        "server_settings": session or None,
        "target_session_attrs": given.get("target_session_attrs"),
    }
    return {
        **{name: value for name, value in options.items() if value is not None},
        "timeout": float(given.get("connect_timeout", timeout_s)),
        "command_timeout": timeout_s,
        # Statements without a name: a pooler that changes servers between transactions has nothing to lose.
        "statement_cache_size": 0,
    }
