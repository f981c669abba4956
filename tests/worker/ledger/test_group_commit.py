"""Questions that share a transaction: who waits for what, and who hears of whose failure."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.ledger.faults import TransactionFailed
from worker.ledger.group_commit import GroupCommit
from worker.ledger.statements import Question, Rows, Statement

ONE = Statement("one", "one", writes=True)
OTHER = Statement("other", "other", writes=True)


class Store:
    """A database that does what it is told with each transaction, and keeps what was committed."""

    def __init__(self, **options: Any) -> None:
        self.transactions: list[list[Question]] = []
        self.committed: list[Question] = []
        self.before: Callable[[list[Question]], Awaitable[None]] = self.nothing
        self.after: Callable[[list[Question]], Awaitable[None]] = self.nothing
        self.commits = GroupCommit(
            self.execute, **{"transactions": 1, "is_mixed": True, "wait_s": 30.0, **options}
        )

    async def nothing(self, questions: list[Question]) -> None:
        pass

    async def execute(self, questions: list[Question]) -> list[Rows]:
        self.transactions.append(questions)
        await self.before(questions)
        self.committed += questions
        await self.after(questions)
        return [[question.values] for question in questions]

    def ask(self, *values: Any, of: Statement = ONE) -> "asyncio.Task[Rows]":
        return asyncio.create_task(self.commits.ask(Question(of, values)))

    @property
    def sizes(self) -> list[int]:
        return [len(each) for each in self.transactions]


def failed(*, is_outage: bool = False) -> TransactionFailed:
    error = TransactionFailed(OSError("broke"), 5.0, may_be_done=True)
    error.is_outage = is_outage
    return error


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_shares_a_transaction() -> None:
    store = Store()

    answers = await asyncio.gather(*(store.ask(number) for number in range(100)))

    assert [100] == store.sizes
    assert [[(number,)] for number in range(100)] == answers


async def test_what_comes_while_a_transaction_runs_shares_the_next() -> None:
    store, gate = Store(), asyncio.Event()
    store.before = lambda _: gate.wait()  # type: ignore[assignment, return-value]

    asked = [store.ask(0)]
    await turns()
    asked += [store.ask(number) for number in (1, 2)]
    await turns()
    asked += [store.ask(number) for number in (3, 4, 5)]
    await turns()
    gate.set()
    await asyncio.gather(*asked)

    assert [1, 5] == store.sizes


async def test_no_answer_comes_before_the_commit() -> None:
    store, committed = Store(), asyncio.Event()
    store.before = lambda _: committed.wait()  # type: ignore[assignment, return-value]

    asked = [store.ask(number) for number in range(3)]
    await turns()
    early = [task.done() for task in asked]
    committed.set()
    await asyncio.gather(*asked)

    assert [False] * 3 == early


async def test_a_question_cancelled_while_it_waits_is_not_asked() -> None:
    store, gate = Store(), asyncio.Event()
    store.before = lambda _: gate.wait()  # type: ignore[assignment, return-value]
    first = store.ask(0)
    await turns()
    second, third = store.ask(1), store.ask(2)
    await turns()

    second.cancel()
    await turns()
    gate.set()
    await asyncio.gather(first, third)

    assert [(0,), (2,)] == [question.values for question in store.committed]


async def test_a_question_cancelled_in_its_transaction_takes_no_one_along() -> None:
    store, gate = Store(), asyncio.Event()
    store.before = lambda _: gate.wait()  # type: ignore[assignment, return-value]
    asked = [store.ask(number) for number in range(3)]
    await turns()

    asked[1].cancel()
    await turns()
    gate.set()

    assert [[(0,)], [(2,)]] == [await asked[0], await asked[2]]
    assert 3 == len(store.committed), "what has left may be done"


async def test_one_bad_question_fails_no_neighbour() -> None:
    store = Store()

    async def refuse(questions: list[Question]) -> None:
        if any(each.values == (7,) for each in questions):
            raise failed()

    store.before = refuse

    answers = await asyncio.gather(*(store.ask(number) for number in range(20)), return_exceptions=True)

    assert isinstance(answers.pop(7), TransactionFailed)
    assert all(isinstance(answer, list) for answer in answers)
    assert [20, *[1] * 20] == store.sizes


async def test_an_answer_lost_after_the_commit_is_asked_for_again() -> None:
    store = Store()

    async def lose(questions: list[Question]) -> None:
        if len(store.transactions) == 1:
            raise failed()

    store.after = lose

    answers = await asyncio.gather(*(store.ask(number) for number in range(3)))

    assert [[(0,)], [(1,)], [(2,)]] == answers
    assert [3, 1, 1, 1] == store.sizes


async def test_an_outage_fails_all_at_once_and_asks_no_more() -> None:
    store = Store()

    async def go_down(_: list[Question]) -> None:
        store.commits.fail_waiting("down")
        raise failed(is_outage=True)

    store.before = go_down
    asked = [store.ask(number) for number in range(5)]
    await turns(2)
    asked += [store.ask(number) for number in range(5)]

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, TransactionFailed | LedgerUnavailable) for answer in answers)
    assert 10 >= sum(store.sizes), "none is asked twice"


async def test_a_transaction_that_breaks_unforeseen_leaves_the_next_in_order() -> None:
    store = Store()

    async def crash(_: list[Question]) -> None:
        if len(store.transactions) == 1:
            raise LookupError

    store.before = crash

    with pytest.raises(LedgerUnavailable):
        await store.ask(0)
    assert [(1,)] == await store.ask(1)


async def test_different_statements_share_one_transaction_or_none() -> None:
    mixed, apart = Store(), Store(is_mixed=False, transactions=2)

    for store in (mixed, apart):
        await asyncio.gather(*(store.ask(n, of=of) for n in range(3) for of in (ONE, OTHER)))

    assert [6] == mixed.sizes
    assert [{ONE}, {OTHER}] == [{each.statement for each in group} for group in apart.transactions]


async def test_a_question_waits_for_a_connection_so_long_and_no_longer() -> None:
    store, gate = Store(wait_s=0.05), asyncio.Event()
    store.before = lambda _: gate.wait()  # type: ignore[assignment, return-value]
    first = store.ask(0)
    await turns()
    second = store.ask(1)
    await asyncio.sleep(0.1)
    gate.set()

    assert [(0,)] == await first
    with pytest.raises(LedgerUnavailable, match=r"in use for 0\.05 s"):
        await second


async def test_more_questions_than_the_bound_are_refused_at_once() -> None:
    store = Store(most_waiting=2)

    answers = await asyncio.gather(*(store.ask(number) for number in range(3)), return_exceptions=True)

    assert [list, list, LedgerUnavailable] == [type(answer) for answer in answers]


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_befalls_a_group_an_answer_means_a_commit(seed: int) -> None:
    """Transactions that fail before and after the commit, break, take their time; askers that go away."""
    fate = random.Random(seed)
    store = Store(transactions=fate.choice([1, 3]), is_mixed=fate.random() < 0.5, spread_s=0.0)

    async def befall(_: list[Question]) -> None:
        for _turn in range(fate.randrange(4)):
            await asyncio.sleep(0)
        if fate.random() < 0.2:
            raise failed(is_outage=fate.random() < 0.3)
        if fate.random() < 0.02:
            raise LookupError

    store.before = store.after = befall
    answered: list[Any] = []

    async def ask(number: int) -> None:
        with suppress(TransactionFailed, LedgerUnavailable):
            question = Question(fate.choice([ONE, OTHER]), (number,))
            rows = await store.commits.ask(question)
            assert [(number,)] == rows
            assert any(question is each for each in store.committed)
            answered.append(number)

    asked = []
    for number in range(300):
        asked.append(asyncio.create_task(ask(number)))
        if fate.random() < 0.3:
            await asyncio.sleep(0)
        if fate.random() < 0.1:
            fate.choice(asked).cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*asked, return_exceptions=True)
    await store.commits.close()

    assert len(answered) > 50
    assert all(task.done() for task in asked)
    assert not [task.exception() for task in asked if not task.cancelled() and task.exception()]
