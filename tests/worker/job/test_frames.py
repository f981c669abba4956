"""A job's way from its bytes to its action's function is short enough to be read."""

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

import pytest

from tests.support.job_bench import Bench

Path = list[str]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


def _own_frames() -> Path:
    """Return the product's frames of the running task, outermost first."""
    found, frame = [], sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "_run_once":  # the event loop's own
        name = frame.f_globals.get("__name__", "")
        if name.startswith(("connectors.", "worker.")):
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return found[::-1]


async def _path_to(bench: Bench, action: str) -> Path:
    """Return the frames from `receive` to an action's function, over all tasks that led there."""
    ways: dict[asyncio.Task[Any] | None, Path] = {}
    found: list[Path] = []

    def create_task(loop: Any, function: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        way = ways.get(asyncio.current_task(loop), []) + _own_frames()
        task = asyncio.Task(function, loop=loop, **options)
        ways[task] = way
        return task

    bench.shop.on_start = lambda: found.append(ways[asyncio.current_task()] + _own_frames())
    bench.shop.gate.set()
    loop, factory = asyncio.get_running_loop(), cast("Any", create_task)
    loop.set_task_factory(factory)
    try:
        await bench.replied(bench.send(action, action))
    finally:
        loop.set_task_factory(None)
    return found[0]


async def test_a_read_passes_at_most_8_frames_of_ours(bench: Bench) -> None:
    path = await _path_to(bench, "quick")

    assert "JobProcessor.receive" == path[0]
    assert len(path) <= 8, path


async def test_a_write_passes_at_most_10_frames_of_ours(bench: Bench) -> None:
    path = await _path_to(bench, "order")

    assert "JobProcessor.receive" == path[0]
    assert len(path) <= 10, path
