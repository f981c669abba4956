"""What a provider's answer means: the one table from status to error class."""

import re
import time
from collections.abc import Collection, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    NotFound,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Unavailable,
)
from connectors.sdk.http.job_effects import SAFE_METHODS, sent_of

#: Any 5xx that is not here is Unavailable, any other 4xx Rejected (contract, section 9).
STATUS_ERRORS: Final[Mapping[int, type[ConnectorError]]] = MappingProxyType(
    {
        401: CredentialInvalid,
        403: PermissionDenied,
        404: NotFound,
        408: Unavailable,
        409: Conflict,
        429: RateLimited,
    }
)

#: Longest wait taken over from a provider. Beyond it a header is a mistake, or an attack.
MAX_WAIT_S: Final = 3600.0

#: How much of a redirect's path is reported.
MAX_LOCATION_CHARS: Final = 1024

_MEANINGS: Final[Mapping[type[ConnectorError], str]] = MappingProxyType(
    {
        CredentialInvalid: "refuses the credential",
        PermissionDenied: "does not let this account do that",
        NotFound: "does not know what was asked for",
        Conflict: "says that it collides with what is there",
        RateLimited: "asks to slow down",
        Unavailable: "is failing",
        Rejected: "refuses the request",
    }
)
#: How much is left of a limit, and when it is full again.
_LIMIT_HEADERS: Final = (
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
)
_WAIT_HEADERS: Final = frozenset(
    {"retry-after", "ratelimit", *(name for pair in _LIMIT_HEADERS for name in pair)}
)
_SECONDS = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?")
_POLICY_PART = re.compile(r"\b(remaining|reset|r|t)=([0-9]{1,18})\b")


def is_error(status: int, method: str = "GET") -> bool:
    """Return whether a status means that the call failed: a redirect of a write is no success."""
    return status >= 400 or (status >= 300 and method not in SAFE_METHODS)


def status_error(
    status: int,
    *,
    host: str,
    headers: Mapping[str, str],
    now: float | None = None,
    data: Mapping[str, Any] | None = None,
    method: str = "POST",
    unprocessed_statuses: Collection[int] = (),
) -> ConnectorError:
    """Return the error to raise for an answer of 400 or more, or for a write's answer of 300 or more.

    Args:
        host: the provider, for the message.
        headers: lower-case names; Retry-After is read.
        now: seconds since the epoch, to measure dates against; this machine's time by default.
        data: what a program can use; the status alone by default.
        method: of the request, which decides whether a 5xx leaves anything open.
        unprocessed_statuses: statuses of 500 and more by which the provider vows that it did nothing.
    """
    sent = sent_of(status, method, unprocessed_statuses)
    if status < 400:
        return _redirect_error(status, host, headers, sent)
    kind = STATUS_ERRORS.get(status, Unavailable if status >= 500 else Rejected)
    wait_s = None
    if kind in {RateLimited, Unavailable}:
        wait_s = wait_asked_s(headers, now=now)
    return kind(
        f"{host} {_MEANINGS[kind]} (status {status})",
        retry_after_s=wait_s,
        data={"status": status} if data is None else data,
        sent=sent,
    )


def location_of(headers: Mapping[str, str]) -> str | None:
    """Return the path that a redirect names: its host and query may say too much."""
    try:
        path = urlsplit(headers.get("location", "")).path[:MAX_LOCATION_CHARS]
    except ValueError:
        return None
    return "".join(char for char in path if char.isprintable()) or None


def _redirect_error(status: int, host: str, headers: Mapping[str, str], sent: Sent) -> Rejected:
    path = location_of(headers)
    to = "" if path is None else f" to {path}"
    return Rejected(
        f"{host} redirects the request{to} (status {status}), which is not followed",
        data={"status": status, "location": path},
        sent=sent,
    )


def read_retry_after(value: str, *, now: float) -> float | None:
    """Read a Retry-After, in seconds or as a date, as seconds from 0 to MAX_WAIT_S; None if garbage.

    Args:
        now: seconds since the epoch.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return _clamp(float(value))
    if len(value) > 64:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return _clamp(date.timestamp() - now)


def wait_asked_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Return the seconds that the provider asks to wait, by Retry-After or a used-up limit; None if it does not.

    Args:
        headers: lower-case names.
        now: seconds since the epoch; this machine's time by default.
    """
    if _WAIT_HEADERS.isdisjoint(headers):
        return None
    now = time.time() if now is None else now
    if (value := headers.get("retry-after")) is not None:
        return read_retry_after(value, now=now)
    for remaining, reset in _LIMIT_HEADERS:
        if (headers.get(remaining) or "").strip() == "0" and reset in headers:
            return _read_reset(headers[reset].strip(), now=now)
    if (policy := headers.get("ratelimit")) is not None:
        parts: dict[str, str] = dict(_POLICY_PART.findall(policy[:200]))
        if parts.get("remaining", parts.get("r")) == "0":
            return _read_reset(parts.get("reset") or parts.get("t") or "", now=now)
    return None


def _read_reset(value: str, *, now: float) -> float | None:
    """Providers write seconds from now, seconds since the epoch or milliseconds since it."""
    if not _SECONDS.fullmatch(value):
        return None
    reset = float(value)
    if reset > 1e12:
        reset /= 1000
    return _clamp(reset - now if reset > 1e9 else reset)


def _clamp(wait_s: float) -> float:
    return min(max(wait_s, 0.0), MAX_WAIT_S)
