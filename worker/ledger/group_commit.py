"""Group commit: questions that wait at the same moment share a transaction, and none of them another's failure."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.ledger.faults import TransactionFailed
from worker.ledger.statements import Question, Rows, Statement

#: Questions of one transaction.
MAX_QUESTIONS: Final = 500
#: Questions that wait; far above the jobs that a worker has in flight.
MAX_WAITING: Final = 20_000
#: Seconds between the starts of two transactions that go on at once, at least: what comes meanwhile shares the second.
SPREAD_S: Final = 0.002
#: Weight of the latest transaction in how long they take.
_LATEST: Final = 0.2

#: Runs questions in one transaction: all of them or none; raises `TransactionFailed`.
Execute = Callable[[list[Question]], Awaitable[list[Rows]]]


class _Waiter:
    """A question, and the future that is done after the commit that holds its answer."""

    __slots__ = ("answer", "asked_at", "question")

    def __init__(self, question: Question, answer: "asyncio.Future[Rows]", asked_at: float) -> None:
        self.question = question
        self.answer = answer
        self.asked_at = asked_at


class _Queue:
    """Questions that may share a transaction."""

    __slots__ = ("running", "started_at", "took_s", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiter] = deque()
        self.running = 0
        self.started_at = 0.0
        #: Seconds that its transactions took lately.
        self.took_s = 0.0


class GroupCommit:
    """Gathers questions while transactions are under way, and gives each its answer after the commit.

    1. a question that comes while nothing runs starts at the end of the loop's turn
    2. what comes meanwhile waits together, and starts as soon as a connection is free and the last start is some
       time ago: the connections to a database that is far away are used in turn, not all at once
    3. a transaction that fails fails no neighbour: each of its questions is asked again alone, unless the
       database is unavailable
    4. a question that is cancelled before its transaction starts is not asked; later, it may have been done

    Args:
        execute: runs a transaction.
        transactions: how many may run at once.
        is_mixed: whether different statements may share a transaction.
        wait_s: how long a question waits for a free connection at most.
    """

    def __init__(
        self,
        execute: Execute,
        *,
        transactions: int,
        is_mixed: bool,
        wait_s: float,
        spread_s: float = SPREAD_S,
        most_waiting: int = MAX_WAITING,
    ) -> None:
        self._execute = execute
        self._transactions = transactions
        self._is_mixed = is_mixed
        self._wait_s = wait_s
        self._spread_s = spread_s
        self._most_waiting = most_waiting
        self._queues: dict[Statement | None, _Queue] = {}
        #: Questions whose transaction failed.
        self._alone: deque[_Waiter] = deque()
        self._count = 0
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None

    async def ask(self, question: Question) -> Rows:
        """Return the answer of a question once it is committed.

        Raises:
            TransactionFailed: this question's own transaction failed, or the database is unavailable.
            LedgerUnavailable: it waited too long, or too many wait.
        """
        if self._count >= self._most_waiting:
            raise LedgerUnavailable(f"{self._most_waiting} questions to the ledger wait already")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(question, loop.create_future(), loop.time())
        kind = None if self._is_mixed else question.statement
        queue = self._queues.get(kind)
        if queue is None:
            queue = self._queues[kind] = _Queue()
        queue.waiting.append(waiter)
        self._count += 1
        self._schedule(loop)
        return await waiter.answer

    def fail_waiting(self, reason: str) -> None:
        """Fail what waits: the database is unavailable."""
        waiting = [*self._alone]
        self._alone.clear()
        for queue in self._queues.values():
            waiting += queue.waiting
            queue.waiting.clear()
        self._count = 0
        for waiter in waiting:
            if not waiter.answer.done():
                waiter.answer.set_exception(LedgerUnavailable(reason))

    async def close(self) -> None:
        """End what runs."""
        if self._timer is not None:
            self._timer.cancel()
        self.fail_waiting("the ledger is closed")
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that what waits starts as soon as it may."""
        if self._timer is not None or not self._count or len(self._running) >= self._transactions:
            return
        if self._alone:
            self._timer = loop.call_soon(self._start, loop)
            return
        starts_at = min(self._starts_at(queue) for queue in self._queues.values() if queue.waiting)
        if starts_at <= loop.time():
            self._timer = loop.call_soon(self._start, loop)
        else:
            self._timer = loop.call_at(starts_at, self._start, loop)

    def _starts_at(self, queue: _Queue) -> float:
        if not queue.running:
            return 0.0
        busy = sum(1 for each in self._queues.values() if each.running or each.waiting)
        return queue.started_at + max(self._spread_s, queue.took_s * busy / self._transactions)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the transactions that may start now: the oldest questions first."""
        self._timer = None
        now = loop.time()
        while self._alone and len(self._running) < self._transactions:
            self._count -= 1
            self._run(_Queue(), [self._alone.popleft()], loop)
        ready = [each for each in self._queues.values() if each.waiting and self._starts_at(each) <= now]
        ready.sort(key=lambda queue: queue.waiting[0].asked_at)
        for queue in ready:
            if len(self._running) >= self._transactions:
                return
            if batch := self._take(queue, now):
                queue.started_at = now
                self._run(queue, batch, loop)
        self._schedule(loop)

    def _take(self, queue: _Queue, now: float) -> list[_Waiter]:
        batch: list[_Waiter] = []
        while queue.waiting and len(batch) < MAX_QUESTIONS:
            waiter = queue.waiting.popleft()
            self._count -= 1
            if waiter.answer.done():  # cancelled
                continue
            if now - waiter.asked_at > self._wait_s:
                reason = f"every connection to the database was in use for {self._wait_s:g} s"
                waiter.answer.set_exception(LedgerUnavailable(reason))
                continue
            batch.append(waiter)
        return batch

    def _run(self, queue: _Queue, batch: list[_Waiter], loop: asyncio.AbstractEventLoop) -> None:
        queue.running += 1
        task = loop.create_task(self._commit(queue, batch))
        self._running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._schedule(asyncio.get_running_loop())

    async def _commit(self, queue: _Queue, batch: list[_Waiter]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            answers = await self._execute([waiter.question for waiter in batch])
        except TransactionFailed as failed:
            if failed.is_outage or len(batch) == 1:
                _fail(batch, failed)
            else:
                self._alone.extend(batch)
                self._count += len(batch)
        except BaseException:
            _fail(batch, LedgerUnavailable("the ledger is closed, or its transaction broke"))
            raise
        else:
            for waiter, rows in zip(batch, answers, strict=True):
                if not waiter.answer.done():
                    waiter.answer.set_result(rows)
        finally:
            queue.running -= 1
            queue.took_s += (loop.time() - began - queue.took_s) * _LATEST


def _fail(batch: list[_Waiter], error: Exception) -> None:
    for waiter in batch:
        if not waiter.answer.done():
            waiter.answer.set_exception(error)
