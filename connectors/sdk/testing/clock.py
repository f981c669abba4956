"""Time for tests: it passes as it does, and whatever would be waited for is skipped."""

import time
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Tell the time from a start of your own.

    Args:
        start: now, unless you say otherwise.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime.now(UTC)
        self._began_at = time.monotonic()
        #: Seconds skipped so far.
        self.skipped_s = 0.0

    def now(self) -> datetime:
        """Tell the time, in UTC."""
        return self._start + timedelta(seconds=time.monotonic() - self._began_at + self.skipped_s)

    def skip(self, seconds: float) -> None:
        """Let time pass at once."""
        self.skipped_s += max(0.0, seconds)
