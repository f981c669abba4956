"""What a sandbox does wrong when asked to, and what it writes down."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from connectors.sandbox.faults import BaseFault, BaseJournal

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
class Fault(BaseFault):
    """A fault of a method such as `events.insert`, answered as Google answers an error."""

    reason: str = "backendError"

    def refuse(self, status: int) -> web.Response:
        """Return the error that was asked for."""
        body = Refusal(status, self.reason, "as asked").body()
        return web.json_response(body, status=status, headers=self.headers)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that has changed, or a notice that went out."""

    at: str
    #: `created`, `changed`, `cancelled`, `token` or `notified`.
    kind: str
    calendar_id: str
    event_id: str
    detail: Mapping[str, Any]


class Journal(BaseJournal[Effect]):
    """The list of effects, and the count of calls."""

    def write(
        self, at: datetime, kind: str, calendar_id: str = "", event_id: str = "", **detail: Any
    ) -> None:
        """Record an effect."""
        self.append(Effect(at.isoformat(), kind, calendar_id, event_id, detail))

    def of(self, kind: str) -> list[Effect]:
        """List the effects of a kind."""
        return [effect for effect in self.effects if effect.kind == kind]
