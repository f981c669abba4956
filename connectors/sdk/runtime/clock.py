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
        await asyncio.wait(set(futures), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds."""
        await asyncio.sleep(seconds)
