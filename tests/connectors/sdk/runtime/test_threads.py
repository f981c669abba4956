"""Threads for synchronous actions: bounded for each connector, and given up honestly."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from connectors.sdk.runtime.threads import HEADROOM, Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1)
    yield threads
    threads.close()


async def test_a_function_runs_in_a_thread_of_its_connector(threads: Threads) -> None:
    call = threads.start("crm", lambda: threading.current_thread().name)

    assert (await call.result()).startswith("crm-action")


async def test_an_exception_of_the_function_is_raised(threads: Threads) -> None:
    with pytest.raises(ZeroDivisionError):
        await threads.start("crm", lambda: 1 // 0).result()


async def test_a_cancelled_wait_leaves_the_thread_alone(threads: Threads) -> None:
    gate = threading.Event()
    call = threads.start("crm", gate.wait)
    waiting = asyncio.create_task(call.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    ended = call.give_up()
    gate.set()

    assert ended is not None
    assert await ended
    assert not call.never_started


async def test_a_connector_that_hangs_its_threads_keeps_no_other_out(threads: Threads) -> None:
    gate = threading.Event()
    hung = [threads.start("crm", gate.wait) for _ in range(HEADROOM)]
    late = threads.start("crm", lambda: "late")

    assert "quick" == await threads.start("erp", lambda: "quick").result()
    assert late.give_up() is None
    assert late.never_started
    gate.set()
    assert [True] * HEADROOM == [await each.result() for each in hung]


async def test_a_call_that_is_done_cannot_be_given_up(threads: Threads) -> None:
    call = threads.start("crm", lambda: 1)
    await call.result()

    assert call.give_up() is None
    assert not call.never_started
