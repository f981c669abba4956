"""What a sandbox does wrong when asked to, and what it writes down."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

#: Reasons whose domain is not `global` at Google.
_DOMAINS: Mapping[str, str] = {
    "rateLimitExceeded": "usageLimits",
    "userRateLimitExceeded": "usageLimits",
    "quotaExceeded": "usageLimits",
    "dailyLimitExceeded": "usageLimits",
    "accessNotConfigured": "usageLimits",
    "forbiddenForServiceAccounts": "calendar",
    "requiredAccessLevel": "calendar",
    "timeRangeEmpty": "calendar",
}


class Refusal(Exception):
    """An error as Google answers it."""

    def __init__(
        self, status: int, reason: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error as the Calendar API does."""
        detail = {
            "domain": _DOMAINS.get(self.reason, "global"),
            "reason": self.reason,
            "message": self.message,
        }
        return {"error": {"errors": [detail], "code": self.status, "message": self.message}}


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with a call.

    A `cut` closes the connection, `before` or `after` the work is done; `truncate` and `drip_s` spoil
    an answer whose work is done; `body` stands in for it.
    """

    #: A method such as `events.insert`, `token` for the token endpoint, `*` for any.
    operation: str = "*"
    #: How many calls it spoils; None: all of them.
    times: int | None = 1
    #: Calls that it lets pass before.
    skip: int = 0
    status: int | None = None
    reason: str = "backendError"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the work is done first: before a `status` is answered, or the call is held.
    does_work: bool = False
    delay_s: float = 0.0
    #: Held until this is set.
    until: asyncio.Event | None = None
    cut: Literal["before", "after"] | None = None
    #: How many bytes of the answer are sent before the connection closes.
    truncate: int | None = None
    #: Seconds between one byte of the answer and the next.
    drip_s: float | None = None
    body: bytes | None = None
    #: Set once a call meets it; where it does the work, once that is done.
    met: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """The faults that were asked for, in order."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    def take(self, operation: str) -> Fault | None:
        """Return the fault that this call meets, and use it up."""
        for fault in self._faults:
            if fault.operation not in {"*", operation}:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
            return fault
        return None


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that has changed, or a notice that went out."""

    at: str
    #: `created`, `changed`, `cancelled`, `token` or `notified`.
    kind: str
    calendar_id: str
    event_id: str
    detail: Mapping[str, Any]


class Journal:
    """The list of effects, and the count of calls.

    Args:
        file: effects are appended here, one JSON object a line, each on disk before it is answered:
            a test that kills workers judges by it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.effects: list[Effect] = []
        #: Calls by operation, failed ones included.
        self.calls: Counter[str] = Counter()
        self._file = file

    def write(
        self, at: datetime, kind: str, calendar_id: str = "", event_id: str = "", **detail: Any
    ) -> None:
        """Append an effect."""
        effect = Effect(at.isoformat(), kind, calendar_id, event_id, detail)
        self.effects.append(effect)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(effect)) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def of(self, kind: str) -> list[Effect]:
        """List the effects of a kind."""
        return [effect for effect in self.effects if effect.kind == kind]
