"""The database behind the ledger: one transaction at a time within its time, and noticing when it is unavailable."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from loguru import logger
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.database_url import DatabaseUrl
from worker.ledger.engine import SQLITE_CONNECTIONS, Connections, TlsOf
from worker.ledger.faults import DatabaseFault, brief, sort
from worker.ledger.policy import DEFAULT_POLICY, DatabasePolicy
from worker.ledger.probe import probe
from worker.ledger.schema import LedgerFault, upgrade

T = TypeVar("T")
Question = Callable[[AsyncConnection], Awaitable[T]]


class _Failed(Exception):
    """One transaction failed."""

    def __init__(self, error: BaseException, timeout_s: float, *, is_committing: bool) -> None:
        self.fault = sort(error)
        self.reason = brief(error, timeout_s)
        self.at = time.monotonic()
        #: Doing it again is safe: it was not committed. An outcome that is not known is not repeated here.
        self.may_repeat = self.fault is DatabaseFault.RACE or (
            self.fault is DatabaseFault.CONNECTION
            and not is_committing
            and not isinstance(error, TimeoutError)
        )


def no_tls() -> None:
    """Leave encryption to the driver."""


class Database:
    """SQLite or PostgreSQL, with the ledger's schema in it.

    A failure is sorted before anybody else hears of it:
    1. others were in the way: once more
    2. the connection broke: the idle ones are ended, too, and once more on a new one
    3. still failing: a probe writes as a claim does. Where it can, only this question fails, a little
       later so that its asker does not spin; where it cannot, the database is unavailable for all
       until a probe can again
    A wait for our own connections is none of these.

    Started and closed by the ledger.
    """

    def __init__(self, url: str, tls: TlsOf = no_tls, *, policy: DatabasePolicy = DEFAULT_POLICY) -> None:
        try:
            parsed = DatabaseUrl.parse(url)
        except ValueError as fault:
            raise LedgerFault(f"CONNECTORS_DATABASE_URL: {fault}") from None
        self.is_sqlite = parsed.is_sqlite
        self._policy = policy
        connections = policy.connections
        if parsed.file is not None:
            connections = SQLITE_CONNECTIONS
            _create_directory(parsed)
        self._count = connections
        self._slots = asyncio.Semaphore(connections)
        self._connections = Connections(parsed, tls, policy, size=connections + 1)
        self._up = asyncio.Event()
        self._reason: str | None = "not connected yet"
        self._watcher: asyncio.Task[None] | None = None
        self._probing = asyncio.Lock()
        self._proved_at = 0.0
        self._refusals = 0
        #: Two workers of one broker must share a ledger; this tells them apart.
        self.id: str | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why it cannot be asked; None while it can."""
        return self._reason

    async def start(self) -> None:
        """Create or upgrade the schema; if the database is unavailable, keep trying in the background.

        Raises:
            LedgerFault: it can never serve: no permission, a later schema, a bad path.
        """
        try:
            await self._open()
        except _Failed as failed:
            self._mark_down(failed.reason)
            if failed.fault is DatabaseFault.SETTING:
                await self._connections.close()
                raise LedgerFault(f"CONNECTORS_DATABASE_URL: {failed.reason}") from None
        except LedgerFault:
            await self._connections.close()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="watch the ledger")

    async def close(self) -> None:
        """Close the connections."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._connections.close()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def ask(self, question: Question[T]) -> T:
        """Run one transaction within its time.

        Raises:
            LedgerUnavailable: it failed or took too long. What was asked may have been done.
        """
        if not self._up.is_set():
            raise LedgerUnavailable(self._reason or "not connected yet")
        try:
            async with self._slot():
                return await self._answer(question)
        except _Failed as failed:
            await self._blame(failed)
            raise LedgerUnavailable(failed.reason) from None

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._policy.pool_wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise LedgerUnavailable(
                f"each of {self._count} connections to the database was in use"
                f" for {self._policy.pool_wait_s:g} s"
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    async def _answer(self, question: Question[T]) -> T:
        races = lost = 0
        while True:
            try:
                return await self._transact(question)
            except _Failed as failed:
                races += failed.fault is DatabaseFault.RACE
                lost += failed.fault is DatabaseFault.CONNECTION
                if not failed.may_repeat or races >= self._policy.max_races or lost > 1:
                    raise
            await asyncio.sleep(random.uniform(0.0, 0.05) * races)  # noqa: S311  # jitter, not a secret

    async def _transact(self, question: Question[T]) -> T:
        is_committing, timeout_s = False, self._policy.statement_timeout_s
        try:
            async with asyncio.timeout(timeout_s), self._connections.engine.begin() as connection:
                answer = await question(connection)
                is_committing = True
            return answer
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            failed = _Failed(error, timeout_s, is_committing=is_committing)
            if failed.fault is DatabaseFault.CONNECTION:
                self._connections.drop_idle()
            raise failed from None

    async def _blame(self, failed: _Failed) -> None:
        """Find out whether the database failed, or one question alone."""
        if failed.fault is not DatabaseFault.RACE:
            async with self._probing:  # of many that fail at once, one probes
                if self._up.is_set() and self._proved_at < failed.at:
                    await self._probe()
        if self._up.is_set():
            logger.warning("ledger question failed", reason=failed.reason)
            await asyncio.sleep(self._policy.pace_s)

    async def _probe(self) -> None:
        try:
            await self._answer(probe)
        except _Failed as failed:
            self._mark_down(failed.reason)
        else:
            self._proved_at = time.monotonic()

    async def _watch(self) -> None:
        """Notice when the database is unavailable, and when it is back."""
        while True:
            await asyncio.sleep(self._pause_s())
            if self._up.is_set():
                async with self._probing:
                    await self._probe()
                continue
            try:
                await self._open()
            except _Failed as failed:
                self._refusals = self._refusals + 1 if failed.fault is DatabaseFault.SETTING else 0
                self._reason = failed.reason
            except LedgerFault as fault:
                self._reason = str(fault)
            else:
                logger.info("ledger available")

    def _pause_s(self) -> float:
        if self._up.is_set():
            return self._policy.check_s
        return min(self._policy.max_refused_s, self._policy.probe_s * 2.0 ** min(self._refusals, 10))

    async def _open(self) -> None:
        """Create or upgrade the schema, and prove that it can be written."""

        async def look(connection: AsyncConnection) -> str:
            identity = await upgrade(connection, is_sqlite=self.is_sqlite)
            await probe(connection)
            return identity

        self.id = await self._answer(look)
        self._proved_at = time.monotonic()
        self._reason, self._refusals = None, 0
        self._up.set()

    def _mark_down(self, reason: str) -> None:
        if self._up.is_set() or self._watcher is None:
            logger.warning("ledger unavailable", reason=reason)
        self._up.clear()
        self._reason = reason


def _create_directory(url: DatabaseUrl) -> None:
    assert url.file is not None
    try:
        url.file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerFault(
            f"CONNECTORS_DATABASE_URL: {url.file.parent} cannot be created: {error.strerror}"
        ) from None
