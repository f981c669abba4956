"""Blocking calls beside the loop: bounded, and waited for by nobody."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from worker.credentials.bounded_threads import BoundedThreads, ThreadsBusy


@pytest.fixture
def threads() -> Iterator[BoundedThreads]:
    threads = BoundedThreads("test", count=2, waiting=3)
    yield threads
    threads.close()


async def test_a_call_gives_its_result_or_raises_its_error(threads: BoundedThreads) -> None:
    def fail() -> None:
        raise LookupError("no such thing")

    assert await threads.run(lambda: 6 * 7) == 42
    with pytest.raises(LookupError, match="no such thing"):
        await threads.run(fail)


async def test_no_more_calls_run_at_once_than_there_are_threads(threads: BoundedThreads) -> None:
    gate, lock = threading.Event(), threading.Lock()
    running, most = 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(5)
        with lock:
            running -= 1

    calls = [asyncio.create_task(threads.run(call)) for _ in range(5)]
    while most < 2:
        await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*calls)

    assert most == 2


async def test_too_many_waiting_calls_are_refused_at_once(threads: BoundedThreads) -> None:
    gate, both = threading.Event(), threading.Barrier(3)

    def call() -> None:
        both.wait(5)
        gate.wait(5)

    running = [asyncio.create_task(threads.run(call)) for _ in range(2)]
    await asyncio.to_thread(both.wait, 5)
    waiting = [asyncio.create_task(threads.run(lambda: None)) for _ in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(ThreadsBusy):
        await threads.run(lambda: None)

    gate.set()
    await asyncio.gather(*running, *waiting)


async def test_a_call_whose_caller_gave_up_is_never_run() -> None:
    threads = BoundedThreads("test", count=1, waiting=3)
    gate, ran = threading.Event(), []
    blocking = asyncio.create_task(threads.run(lambda: gate.wait(5)))
    await asyncio.sleep(0)
    given_up = asyncio.create_task(threads.run(lambda: ran.append("given up")))
    wanted = asyncio.create_task(threads.run(lambda: ran.append("wanted")))
    await asyncio.sleep(0)

    given_up.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(blocking, wanted)

    assert ran == ["wanted"]
    threads.close()


async def test_a_close_ends_the_threads_and_takes_no_more(threads: BoundedThreads) -> None:
    name = await threads.run(lambda: threading.current_thread().name)

    threads.close()
    threads.close()

    with pytest.raises(ThreadsBusy):
        await threads.run(lambda: None)
    async with asyncio.timeout(5):
        while name in {thread.name for thread in threading.enumerate()}:
            await asyncio.sleep(0.001)


def test_a_call_that_hangs_holds_up_no_exit() -> None:
    program = """
import asyncio, time
from worker.credentials.bounded_threads import BoundedThreads

async def main():
    call = asyncio.create_task(BoundedThreads("hung", count=1, waiting=1).run(lambda: time.sleep(60)))
    await asyncio.sleep(0.05)
    call.cancel()

asyncio.run(main())
"""
    started_at = time.monotonic()

    ended = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)

    assert ended.returncode == 0
    assert time.monotonic() - started_at < 15
