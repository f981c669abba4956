"""What Google's refusals mean: by `error.errors[].reason` first, by status only if that says nothing."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    NotFound,
    PermissionDenied,
    RateLimited,
    Rejected,
    Unavailable,
)
from connectors.sdk.http import sent_of, status_error, wait_asked_s

if TYPE_CHECKING:
    import httpx

_SLOW_DOWN: Final = "asks this account to slow down"

#: Reason → the error, and what it says. One that is not here is judged by its status.
REASONS: Final[Mapping[str, tuple[type[ConnectorError], str]]] = MappingProxyType(
    {
        "authError": (CredentialInvalid, "refuses the access token"),
        "required": (Rejected, "requires a field that is missing"),
        "insufficientPermissions": (
            PermissionDenied,
            "says that the credential's scopes do not allow this",
        ),
        "accessNotConfigured": (
            PermissionDenied,
            "says that the Calendar API is not enabled for the credential's project",
        ),
        "forbidden": (PermissionDenied, "does not let this account do that"),
        "requiredAccessLevel": (PermissionDenied, "lets this account see the calendar, but not change it"),
        "forbiddenForNonOrganizer": (PermissionDenied, "lets only the organizer change that"),
        "forbiddenForServiceAccounts": (
            PermissionDenied,
            "lets a service account invite guests only on behalf of a user: the credential needs a "
            "`subject`, and the administrator's delegation",
        ),
        "variableTermLimitExceeded": (PermissionDenied, "no longer lets this account do that"),
        "rateLimitExceeded": (RateLimited, _SLOW_DOWN),
        "userRateLimitExceeded": (RateLimited, _SLOW_DOWN),
        "quotaExceeded": (RateLimited, "says that a quota of this account is used up"),
        "dailyLimitExceeded": (RateLimited, "says that the project's quota for today is used up"),
        "dailyLimitExceededUnreg": (RateLimited, "says that the project's quota for today is used up"),
        "calendarUsageLimitsExceeded": (RateLimited, "says that a quota of this account is used up"),
        "notFound": (NotFound, "did not find the calendar or event, or this account may not see it"),
        "deleted": (NotFound, "says that the event was deleted"),
        "duplicate": (Conflict, "has an event of this id already"),
        "conditionNotMet": (Conflict, "says that the event was changed meanwhile"),
        "conflict": (Conflict, "says that this collides with another change"),
        "updatedMinTooLongAgo": (Rejected, "does not look back so far"),
        "fullSyncRequired": (Unavailable, "asks to read the calendar anew"),
        "timeRangeEmpty": (Rejected, "says that the time range is empty"),
        "timeRangeTooLong": (Rejected, "says that the time range is too long"),
        "groupTooBig": (Rejected, "cannot ask about a group so large"),
        "tooManyCalendarsRequested": (Rejected, "cannot ask about so many calendars at once"),
        "invalid": (Rejected, "refuses a value"),
        "invalidParameter": (Rejected, "refuses a parameter"),
        "badRequest": (Rejected, "refuses the request"),
        "parseError": (Rejected, "cannot read the request"),
        "backendError": (Unavailable, "is failing"),
        "internalError": (Unavailable, "is failing"),
    }
)
#: What a status means if no reason stands beside it.
_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType(
    {404: "notFound", 409: "duplicate", 410: "deleted", 412: "conditionNotMet"}
)
#: A limit that names no wait: Google's advice is to begin at a second.
UNNAMED_WAIT_S: Final = 1.0


def refusal(response: "httpx.Response") -> ConnectorError:
    """Return the error for an answer of 400 or more; none of its text is copied."""
    status, host = response.status_code, response.url.host
    reason = _reason(response.content)
    if reason not in REASONS:
        reason = _BY_STATUS.get(status, reason)
    # A 5xx is a failure whatever its reason says; a 401 is about the credential.
    known = None if status >= 500 or status in {401, 429} else REASONS.get(reason)
    if known is None:
        error = status_error(status, host=host, headers=response.headers, method=response.request.method)
        data = {"status": status} | ({"reason": reason} if reason in REASONS else {})
        return type(error)(error.message, retry_after_s=error.retry_after_s, data=data, sent=error.sent)
    kind, meaning = known
    wait_s = None
    if kind is RateLimited:
        wait_s = wait_asked_s(response.headers)
        wait_s = UNNAMED_WAIT_S if wait_s is None else wait_s
    return kind(
        f"Google Calendar {meaning} ({reason})",
        retry_after_s=wait_s,
        data={"status": status, "reason": reason},
        sent=sent_of(status, response.request.method),
    )


def calendar_refusal(calendar_id: str, reason: object) -> ConnectorError:
    """Return the error for a calendar that freeBusy refuses inside an answer of 200."""
    kind, meaning = REASONS.get(str(reason), (Unavailable, "cannot tell"))
    data = {"calendar_id": calendar_id} | ({"reason": reason} if reason in REASONS else {})
    return kind(f"free/busy for {calendar_id!r} is unavailable: Google Calendar {meaning}", data=data)


def reason_of(error: ConnectorError) -> str | None:
    """Return the reason behind an error, if it was one of Google's."""
    reason = (error.data or {}).get("reason")
    return reason if isinstance(reason, str) else None


def _reason(content: bytes) -> str:
    try:
        error = json.loads(content)["error"]
        return str(error["errors"][0]["reason"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
