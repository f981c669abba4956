"""What happened to a job before, as its headers carry it from one queue to the next."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.deadline import format_instant
from connectors.sdk.runtime.outcome import Outcome
from schemas.error import Code
from schemas.job import parse_instant
from worker.broker import Delivery

#: No count in a header is believed beyond this.
_MOST: Final = 1_000_000
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

ATTEMPTS: Final = "connectors-attempts"
FAILURES: Final = "connectors-failures"
SNOOZES: Final = "connectors-snoozes"
UNCERTAIN: Final = "connectors-uncertain"
FIRST_SEEN: Final = "connectors-first-seen"
NOT_BEFORE: Final = "connectors-not-before"
PUBLISHER: Final = "connectors-publisher"
REROUTED: Final = "connectors-rerouted"
DEADLINE: Final = "connectors-deadline"

#: A dead letter that found no room: why it is one.
PENDING_REASON: Final = "connectors-pending-reason"
PENDING_ERROR: Final = "connectors-pending-error"

REASON: Final = "connectors-reason"
QUEUE: Final = "connectors-queue"
ERROR: Final = "connectors-error"
TRACEPARENT: Final = "traceparent"

#: Written by a replay: the deadline in the body does not count.
NO_DEADLINE: Final = "none"


@dataclass(frozen=True, slots=True)
class JobHeaders:
    """What our headers say of a job, beside its body, which never changes."""

    first_seen: datetime
    #: The broker user that published the job first, as the broker vouches for it.
    publisher: str | None = None
    #: How often its action was started.
    attempts: int = 0
    #: How often it was seen to fail.
    failures: int = 0
    #: How often it was delayed without an attempt.
    snoozes: int = 0
    #: An earlier attempt may have had its effect; the ledger knows it, too.
    is_uncertain: bool = False
    not_before: datetime | None = None
    #: It was published again already from a queue that was not its own.
    rerouted: bool = False
    #: What a replay put in place of the deadline; None if the body's counts.
    deadline: str | None = None
    #: Why the job is a dead letter that found no room so far; its caller was answered.
    pending: ConnectorError | None = None
    traceparent: str | None = None

    @classmethod
    def read(cls, delivery: Delivery, *, trusted: Collection[str], now: datetime) -> "JobHeaders":
        """Read our headers, which count only from users that are trusted.

        The broker checks `user_id` against the login of the publisher; any other publisher can write
        what it likes into a header, so its message is a new job.
        """
        headers = delivery.properties.headers
        user = delivery.properties.user_id
        traceparent = _text(headers.get(TRACEPARENT))
        if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
            traceparent = None
        if user is None or user not in trusted or FIRST_SEEN not in headers:
            return cls(first_seen=now, publisher=user, attempts=delivery.returns, traceparent=traceparent)
        return cls(
            first_seen=_instant(headers.get(FIRST_SEEN)) or now,
            publisher=_text(headers.get(PUBLISHER)),
            attempts=_count(headers.get(ATTEMPTS)) + delivery.returns,
            failures=_count(headers.get(FAILURES)),
            snoozes=_count(headers.get(SNOOZES)),
            is_uncertain=headers.get(UNCERTAIN) is True,
            not_before=_instant(headers.get(NOT_BEFORE)),
            rerouted=headers.get(REROUTED) is True,
            deadline=_text(headers.get(DEADLINE)),
            pending=_pending(headers),
            traceparent=traceparent,
        )

    def write(self) -> dict[str, Any]:
        """Return the headers that the next reader needs."""
        optional: dict[str, Any] = {
            PUBLISHER: self.publisher,
            UNCERTAIN: self.is_uncertain or None,
            NOT_BEFORE: None if self.not_before is None else format_instant(self.not_before),
            REROUTED: self.rerouted or None,
            DEADLINE: self.deadline,
            PENDING_REASON: None if self.pending is None else self.pending.code.value,
            PENDING_ERROR: None if self.pending is None else self.pending.message,
            TRACEPARENT: self.traceparent,
        }
        return {
            FIRST_SEEN: format_instant(self.first_seen),
            ATTEMPTS: self.attempts,
            FAILURES: self.failures,
            SNOOZES: self.snoozes,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def deadline_of(self, deadline: datetime | None) -> datetime | None:
        """Return the deadline in force, given the body's."""
        if self.deadline is None:
            return deadline
        return None if self.deadline == NO_DEADLINE else _instant(self.deadline)

    def after_failure(self, outcome: Outcome, *, not_before: datetime) -> "JobHeaders":
        """Return the headers of a job whose attempt failed and will be followed by another."""
        return replace(
            self,
            attempts=outcome.attempts,
            failures=self.failures + 1,
            snoozes=0,
            is_uncertain=outcome.is_uncertain,
            not_before=not_before,
        )

    def after_snooze(self, not_before: datetime | None = None) -> "JobHeaders":
        """Return the headers of a job that is delayed without an attempt."""
        snoozes = min(self.snoozes + 1, _MOST)
        return replace(self, snoozes=snoozes, not_before=not_before or self.not_before)

    def after_refused_letter(
        self, error: ConnectorError, *, attempts: int, not_before: datetime
    ) -> "JobHeaders":
        """Return the headers of a dead letter that found no room."""
        return replace(self, attempts=attempts, pending=error, not_before=not_before)


def _pending(headers: Mapping[str, Any]) -> ConnectorError | None:
    reason, message = _text(headers.get(PENDING_REASON)), _text(headers.get(PENDING_ERROR))
    if reason is None or reason not in set(Code):
        return None
    return ConnectorError(message or "", code=Code(reason))


def _count(value: object) -> int:
    return min(max(value, 0), _MOST) if type(value) is int else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _instant(value: object) -> datetime | None:
    try:
        return parse_instant(value)
    except ValueError:
        return None
