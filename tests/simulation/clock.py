"""Time as a simulated process reads it."""

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.simulation.loop import Host

#: When every schedule begins.
EPOCH: Final = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)


class SimulatedClock:
    """The clocks of one process: the wall clock may be wrong, the other never goes back."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return EPOCH + timedelta(seconds=self.monotonic() + self._host.skew_s)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._host.loop.time()

    async def wait(self, futures: Collection["asyncio.Future[Any]"], timeout_s: float | None) -> None:
        """Wait until one of the futures is done or the time is over; cancel none of them."""
        await asyncio.wait(set(futures), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)
