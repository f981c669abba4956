"""The threads: bounded, shared fairly, free as soon as their call is of no use."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from connectors.salesforce.bounded_threads import OrgThreads
from connectors.sdk.errors import Sent, Unavailable


def _nothing() -> None:
    """Cancel nothing."""


class Slow:
    """Calls of a slow org: each holds its thread until `end`."""

    def __init__(self, threads: OrgThreads) -> None:
        self._threads = threads
        self._ended = threading.Event()
        self.tasks: list[asyncio.Task[bool]] = []

    async def start(self, org: str, calls: int) -> None:
        self.tasks += [
            asyncio.create_task(self._threads.run(org, lambda: self._ended.wait(30), self._ended.set))
            for _ in range(calls)
        ]
        await asyncio.sleep(0)

    async def end(self) -> None:
        self._ended.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_one_slow_org_leaves_threads_to_the_others() -> None:
    threads = OrgThreads(32)
    slow = Slow(threads)
    await slow.start("slow", 100)

    assert 8 == threads.free
    assert "done" == await asyncio.wait_for(threads.run("other", lambda: "done", _nothing), 2)
    await slow.end()
    assert 32 == threads.free


async def test_many_slow_orgs_leave_a_thread_for_the_next() -> None:
    threads = OrgThreads(32)
    slow = Slow(threads)
    for number in range(4):
        await slow.start(f"slow-{number}", 50)
    held = threads.free

    await slow.end()

    assert 0 <= held < 8
    assert 32 == threads.free


async def test_waiting_calls_get_their_turn_in_order() -> None:
    threads = OrgThreads(1)
    slow = Slow(threads)
    await slow.start("a", 1)
    order: list[int] = []
    waiting = [
        asyncio.create_task(threads.run("a", _appending(order, number), _nothing)) for number in range(5)
    ]
    await asyncio.sleep(0)

    await slow.end()
    await asyncio.gather(*waiting)

    assert [0, 1, 2, 3, 4] == order


def _appending(order: list[int], number: int) -> Callable[[], None]:
    return lambda: order.append(number)


async def test_a_call_that_waits_too_long_sends_nothing() -> None:
    threads = OrgThreads(1)
    slow = Slow(threads)
    await slow.start("a", 1)

    with pytest.raises(Unavailable) as caught:
        await threads.run("a", _nothing, _nothing, wait_s=0.01)

    assert Sent.NO is caught.value.sent
    await slow.end()
    assert 1 == threads.free


async def test_a_cancelled_call_frees_its_thread() -> None:
    threads = OrgThreads(2)
    slow = Slow(threads)
    await slow.start("a", 1)

    slow.tasks[0].cancel()
    await asyncio.wait(slow.tasks)

    assert slow.tasks[0].cancelled()
    assert 2 == threads.free


async def test_a_call_cancelled_while_it_waits_takes_no_turn() -> None:
    threads = OrgThreads(1)
    slow = Slow(threads)
    await slow.start("a", 1)
    waiting = asyncio.create_task(threads.run("a", _nothing, _nothing))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait({waiting})
    await slow.end()

    assert 1 == threads.free
