"""Time for tests: it passes as it does, and whatever would be waited for can be skipped."""

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any


class FakeClock:
    """A clock with a start of your own, read by everything that a kit runs.

    Args:
        start: now, unless you say otherwise.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime.now(UTC)
        self._began_at = time.monotonic()
        #: Seconds skipped so far.
        self.skipped_s = 0.0
        self._skips: set[asyncio.Future[None]] = set()

    def now(self) -> datetime:
        """Return the time in UTC."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._began_at + self.skipped_s

    def timestamp(self) -> float:
        """Return the seconds since the epoch."""
        return self.now().timestamp()

    def skip(self, seconds: float) -> None:
        """Skip time at once; what waits for it ends."""
        self.skipped_s += max(0.0, seconds)
        for waiter in self._skips:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, futures: Collection["asyncio.Future[Any]"], timeout_s: float | None) -> None:
        """Wait until one of the futures is done or the time is over; cancel none of them."""
        ends_at = None if timeout_s is None else self.monotonic() + timeout_s
        await asyncio.sleep(0)  # asyncio's own wait lets others run, too, even if nothing is to wait for
        while not any(each.done() for each in futures):
            remaining_s = None if ends_at is None else ends_at - self.monotonic()
            if remaining_s is not None and remaining_s <= 0:
                return
            await self._wait_once(futures, remaining_s)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await self.wait((), seconds)

    async def _wait_once(self, futures: Collection["asyncio.Future[Any]"], timeout_s: float | None) -> None:
        skip = asyncio.get_running_loop().create_future()
        self._skips.add(skip)
        try:
            await asyncio.wait({*futures, skip}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._skips.discard(skip)
            skip.cancel()
