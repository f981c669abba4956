"""The instant after which no call is started, as a value that every part asks."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.clock import Clock
from schemas.error import Code


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the caller stops waiting; `at` is None if it never does."""

    at: datetime | None
    clock: Clock

    def remaining_s(self) -> float | None:
        """Return the seconds left, 0 once it has passed; None without a deadline."""
        return None if self.at is None else max(0.0, (self.at - self.clock.now()).total_seconds())

    @property
    def has_passed(self) -> bool:
        """Whether nothing may be started any more."""
        return self.remaining_s() == 0

    def check(self) -> None:
        """Start nothing after the deadline.

        Raises:
            ConnectorError: DEADLINE_EXCEEDED, not started.
        """
        if self.at is not None and (late_s := (self.clock.now() - self.at).total_seconds()) >= 0:
            raise deadline_exceeded(
                f"the deadline {format_instant(self.at)} passed {late_s:.1f} s before the call could start",
                outcome="not_started",
            )

    def __str__(self) -> str:
        """Return the deadline as it is written on the wire."""
        return "" if self.at is None else format_instant(self.at)


def deadline_exceeded(message: str, *, outcome: str, **more: Any) -> ConnectorError:
    """Create the error of a job whose deadline came.

    Args:
        outcome: `not_started` if no try of the key may have left, else `unknown`.
    """
    return ConnectorError(message, code=Code.DEADLINE_EXCEEDED, data={"outcome": outcome, **more})


def format_instant(instant: datetime) -> str:
    """Return a time as the wire carries it: RFC 3339, UTC, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
