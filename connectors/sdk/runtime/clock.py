"""Time as the core reads it: replaced as a whole by tests and by the simulation."""

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Protocol


class Clock(Protocol):
    """Everything that the core does with time."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    async def wait(self, futures: Collection["asyncio.Future[Any]"], timeout_s: float | None) -> None:
        """Wait until one of the futures is done or the time is over; cancel none of them."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        ...


class SystemClock:
    """The time of the machine."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    async def wait(self, futures: Collection["asyncio.Future[Any]"], timeout_s: float | None) -> None:
        """Wait until one of the futures is done or the time is over; cancel none of them."""
        if len(futures) == 1:
            (future,) = futures
            await _wait_for_one(future, timeout_s)
        else:
            await asyncio.wait(set(futures), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)


async def _wait_for_one(future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
    """Wait as `asyncio.wait` does, for one future, at half its cost: each job waits so for its action."""
    if future.done():
        return
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if timeout_s is None else loop.call_later(timeout_s, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()
