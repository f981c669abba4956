"""The database behind the ledger: each failure sorted, and noticing when it is unavailable."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from loguru import logger

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.database_url import DatabaseUrl
from worker.ledger.faults import DatabaseFault, TransactionFailed
from worker.ledger.group_commit import GroupCommit
from worker.ledger.policy import DEFAULT_POLICY, DatabasePolicy, TlsOf
from worker.ledger.probe import probe
from worker.ledger.schema import LedgerFault, upgrade
from worker.ledger.script import Script, Steps
from worker.ledger.statements import Question, Rows

T = TypeVar("T")


class Driver(Protocol):
    """One kind of database. What fails raises `TransactionFailed`."""

    @property
    def is_mixed(self) -> bool:
        """Whether different statements may share a transaction."""
        ...

    async def execute(self, questions: list[Question]) -> list[Rows]:
        """Answer questions in one transaction: all of them, or none."""
        ...

    async def transact(self, script: Script[T]) -> T:
        """Run a script in a transaction of its own."""
        ...

    def drop_idle(self) -> None:
        """End every idle connection."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


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

    def __init__(self, driver: Driver, *, is_sqlite: bool, policy: DatabasePolicy = DEFAULT_POLICY) -> None:
        self.is_sqlite = is_sqlite
        self._policy = policy
        self._driver = driver
        self._commits = GroupCommit(
            self._execute,
            transactions=1 if is_sqlite else policy.connections,
            is_mixed=driver.is_mixed,
            wait_s=policy.pool_wait_s,
        )
        self._scripts = asyncio.Semaphore(policy.connections)
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
        except TransactionFailed as failed:
            self._mark_down(failed.reason)
            if failed.fault is DatabaseFault.SETTING:
                await self._driver.close()
                raise LedgerFault(f"CONNECTORS_DATABASE_URL: {failed.reason}") from None
        except LedgerFault:
            await self._driver.close()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="watch the ledger")

    async def close(self) -> None:
        """Close the connections."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._commits.close()
        await self._driver.close()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def ask(self, question: Question) -> Rows:
        """Return the answer of one question, committed together with others that wait.

        Raises:
            LedgerUnavailable: it failed or took too long. What was asked may have been done.
        """
        if not self._up.is_set():
            raise LedgerUnavailable(self._reason or "not connected yet")
        try:
            return await self._commits.ask(question)
        except TransactionFailed as failed:
            await self._pace(failed)
            raise LedgerUnavailable(failed.reason) from None

    async def transact(self, script: Script[T]) -> T:
        """Run several statements in a transaction of their own.

        Raises:
            LedgerUnavailable: as `ask`.
        """
        if not self._up.is_set():
            raise LedgerUnavailable(self._reason or "not connected yet")
        try:
            async with self._scripts:
                return await self._repeated(lambda: self._driver.transact(script))
        except TransactionFailed as failed:
            await self._blame(failed)
            await self._pace(failed)
            raise LedgerUnavailable(failed.reason) from None

    async def _execute(self, questions: list[Question]) -> list[Rows]:
        try:
            return await self._repeated(lambda: self._driver.execute(questions))
        except TransactionFailed as failed:
            await self._blame(failed)
            failed.is_outage = not self._up.is_set()
            raise

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try a transaction again as long as that is safe and may help."""
        races = lost = 0
        while True:
            try:
                return await attempt()
            except TransactionFailed as failed:
                if failed.fault is DatabaseFault.CONNECTION:
                    self._driver.drop_idle()
                races += failed.fault is DatabaseFault.RACE
                lost += failed.fault is DatabaseFault.CONNECTION
                if not failed.may_repeat or races >= self._policy.max_races or lost > 1:
                    raise
            await asyncio.sleep(random.uniform(0.0, 0.05) * races)  # noqa: S311  # jitter, not a secret

    async def _blame(self, failed: TransactionFailed) -> None:
        """Find out whether the database failed, or one question alone."""
        if failed.fault is not DatabaseFault.RACE:
            async with self._probing:  # of many that fail at once, one probes
                if self._up.is_set() and self._proved_at < failed.at:
                    await self._probe()

    async def _pace(self, failed: TransactionFailed) -> None:
        """Keep the asker of a question that failed by itself from asking again at once."""
        if self._up.is_set():
            logger.warning("ledger question failed", reason=failed.reason)
            await asyncio.sleep(self._policy.pace_s)

    async def _probe(self) -> None:
        try:
            await self._repeated(lambda: self._driver.transact(probe))
        except TransactionFailed as failed:
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
            except TransactionFailed as failed:
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

        def look() -> Steps[str]:
            identity = yield from upgrade(is_sqlite=self.is_sqlite)
            yield from probe()
            return identity

        self.id = await self._repeated(lambda: self._driver.transact(look))
        self._proved_at = time.monotonic()
        self._reason, self._refusals = None, 0
        self._up.set()

    def _mark_down(self, reason: str) -> None:
        if self._up.is_set() or self._watcher is None:
            logger.warning("ledger unavailable", reason=reason)
        self._up.clear()
        self._reason = reason
        self._commits.fail_waiting(reason)


def database_of(url: str, tls: TlsOf, policy: DatabasePolicy) -> Database:
    """Create the database that a URL names; its driver is imported only then.

    Raises:
        LedgerFault: the URL cannot be read, or the file's folder cannot be created.
    """
    try:
        parsed = DatabaseUrl.parse(url)
    except ValueError as fault:
        raise LedgerFault(f"CONNECTORS_DATABASE_URL: {fault}") from None
    if parsed.file is not None:
        from worker.ledger.sqlite import Sqlite, create_directory  # noqa: PLC0415

        create_directory(parsed.file)
        return Database(Sqlite(parsed.file, policy), is_sqlite=True, policy=policy)
    from worker.ledger.postgresql import Postgresql  # noqa: PLC0415

    return Database(Postgresql(parsed, tls, policy), is_sqlite=False, policy=policy)
