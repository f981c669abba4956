"""The ledger in a SQLite file: one thread that owns the connection, and a transaction for whatever waits."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from worker.ledger.faults import TransactionFailed
from worker.ledger.policy import DatabasePolicy
from worker.ledger.schema import LedgerFault
from worker.ledger.script import Ask, Script
from worker.ledger.statements import Question, Rows

T = TypeVar("T")

#: Part of a transaction's time that SQLite waits for a lock: it says so itself before it is cut short.
LOCK_PART: Final = 0.9
#: Seconds that closing waits for what the thread is at; then the thread ends with the process.
CLOSE_S: Final = 0.5

_Work = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]


class Sqlite:
    """A file, and the thread that reads and writes it.

    Created and closed by `Database`.
    """

    is_mixed: Final = True

    def __init__(self, file: Path, policy: DatabasePolicy) -> None:
        self._file = file
        self._timeout_s = policy.statement_timeout_s
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None

    async def execute(self, questions: list[Question]) -> list[Rows]:
        """Answer questions in one transaction: all of them, or none.

        Raises:
            TransactionFailed: it was rolled back, or took too long.
        """
        return await self._in_thread(lambda connection: _commit(connection, questions))

    async def transact(self, script: Script[T]) -> T:
        """Run a script in a transaction of its own.

        Raises:
            TransactionFailed: as `execute`.
        """
        return await self._in_thread(lambda connection: _run(connection, script))

    def drop_idle(self) -> None:
        """Keep the connection: another one has no other file."""

    async def close(self) -> None:
        """End the thread; one that waits for a lock keeps no process from ending."""
        if self._thread is not None:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join, CLOSE_S)

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._work.put((work, answer, loop))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except (sqlite3.Error, OSError, TimeoutError, ValueError, OverflowError) as error:
            raise TransactionFailed(error, self._timeout_s, may_be_done=True) from None

    def _serve(self) -> None:
        """Do what is put, one after another; runs in the thread."""
        while (item := self._work.get()) is not None:
            work, answer, loop = item
            if answer.done():  # given up: it took too long to get here
                continue
            result, error = None, None
            try:
                result = work(self._connected())
            except BaseException as raised:  # the thread goes on; who asked is told
                error = raised
                self._disconnect()
            with suppress(RuntimeError):  # the loop is closed: no one waits any more
                loop.call_soon_threadsafe(_settle, answer, result, error)
            del item, work, answer, result, error
        self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._file, timeout=self._timeout_s * LOCK_PART, isolation_level=None
            )
            self._connection = connection
            # WAL lets readers pass the writer; FULL keeps a claim through a power cut.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        return self._connection

    def _disconnect(self) -> None:
        """Close the connection, which rolls back what it is at."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def create_directory(file: Path) -> None:
    """Create the folder of the file.

    Raises:
        LedgerFault: it cannot be created.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerFault(
            f"CONNECTORS_DATABASE_URL: {file.parent} cannot be created: {error.strerror}"
        ) from None


def answer(connection: sqlite3.Connection, question: Question) -> Rows:
    """Return the rows of one question."""
    cursor = connection.execute(question.statement.sqlite, question.values)
    if cursor.description is None:
        return [()] * cursor.rowcount
    return cursor.fetchall()


def _commit(connection: sqlite3.Connection, questions: list[Question]) -> list[Rows]:
    writes = any(question.statement.writes for question in questions)
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    answers = [answer(connection, question) for question in questions]
    connection.execute("COMMIT")
    return answers


def _run(connection: sqlite3.Connection, script: Script[T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    steps = script()
    try:
        step = next(steps)
        while True:
            texts = (step.text,) if isinstance(step, Ask) else step.texts
            rows = [connection.execute(text).fetchall() for text in texts]
            step = steps.send(rows[-1])
    except StopIteration as ended:
        connection.execute("COMMIT")
        result: T = ended.value
        return result


def _settle(answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
