"""What happened to a job before: read from its headers, and written to them again."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from schemas.job import parse_instant
from worker.broker import Delivery

#: No count in a header is believed beyond this.
_MOST: Final = 1_000_000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

STARTS: Final = "connectors-attempts"
FAILURES: Final = "connectors-failures"
HOPS: Final = "connectors-snoozes"
FIRST_SEEN: Final = "connectors-first-seen"
NOT_BEFORE: Final = "connectors-not-before"
PUBLISHER: Final = "connectors-publisher"
REROUTED: Final = "connectors-rerouted"
DEADLINE: Final = "connectors-deadline"

REASON: Final = "connectors-reason"
ATTEMPTS: Final = "connectors-attempts"
QUEUE: Final = "connectors-queue"
ERROR: Final = "connectors-error"
TRACEPARENT: Final = "traceparent"

#: Written by a replay: the deadline in the body does not count.
NO_DEADLINE: Final = "none"


@dataclass(frozen=True, slots=True)
class JobHeaders:
    """A job's past, beside its body, which never changes."""

    first_seen: datetime
    #: The broker user that published the job first, as the broker vouches for it.
    publisher: str | None = None
    #: How often its action was started.
    starts: int = 0
    #: How often it was seen to fail.
    failures: int = 0
    #: How often it went through a rung without a try.
    hops: int = 0
    not_before: datetime | None = None
    #: It was sent on from a wrong queue already.
    rerouted: bool = False
    #: What a replay put in the deadline's place; None where the body's counts.
    deadline: str | None = None
    traceparent: str | None = None

    @classmethod
    def read(cls, delivery: Delivery, *, trusted: Collection[str], now: datetime) -> "JobHeaders":
        """Read the headers of ours, which count only from users that are trusted.

        The broker checks `user_id` against the login of whoever publishes; anybody else can write
        what they like into a header, so theirs is a new job.
        """
        headers = delivery.properties.headers
        user = delivery.properties.user_id
        traceparent = _text(headers.get(TRACEPARENT))
        if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
            traceparent = None
        if user is None or user not in trusted or FIRST_SEEN not in headers:
            return cls(first_seen=now, publisher=user, starts=delivery.returns, traceparent=traceparent)
        return cls(
            first_seen=_instant(headers.get(FIRST_SEEN)) or now,
            publisher=_text(headers.get(PUBLISHER)),
            starts=_count(headers.get(STARTS)) + delivery.returns,
            failures=_count(headers.get(FAILURES)),
            hops=_count(headers.get(HOPS)),
            not_before=_instant(headers.get(NOT_BEFORE)),
            rerouted=headers.get(REROUTED) is True,
            deadline=_text(headers.get(DEADLINE)),
            traceparent=traceparent,
        )

    def headers(self) -> dict[str, Any]:
        """Write what the next reader needs to know."""
        written: dict[str, Any] = {
            FIRST_SEEN: write_instant(self.first_seen),
            STARTS: self.starts,
            FAILURES: self.failures,
            HOPS: self.hops,
        }
        if self.publisher is not None:
            written[PUBLISHER] = self.publisher
        if self.not_before is not None:
            written[NOT_BEFORE] = write_instant(self.not_before)
        if self.rerouted:
            written[REROUTED] = True
        if self.deadline is not None:
            written[DEADLINE] = self.deadline
        if self.traceparent is not None:
            written[TRACEPARENT] = self.traceparent
        return written

    def deadline_of(self, deadline: datetime | None) -> datetime | None:
        """Say which deadline is in force, given the body's."""
        if self.deadline is None:
            return deadline
        return None if self.deadline == NO_DEADLINE else _instant(self.deadline)

    def after(self, *, starts: int, failed: bool, not_before: datetime) -> "JobHeaders":
        """Write down an attempt that will be followed by another."""
        return replace(self, starts=starts, failures=self.failures + failed, hops=0, not_before=not_before)

    def after_hop(self, not_before: datetime | None = None) -> "JobHeaders":
        """Write down a detour that was no attempt."""
        return replace(self, hops=min(self.hops + 1, _MOST), not_before=not_before or self.not_before)


def write_instant(instant: datetime) -> str:
    """Write a time as headers carry it: RFC 3339, UTC, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _count(value: object) -> int:
    return min(max(value, 0), _MOST) if type(value) is int else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _instant(value: object) -> datetime | None:
    try:
        return parse_instant(value)
    except ValueError:
        return None
