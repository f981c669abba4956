"""A request before it is sent: its parts checked and encoded."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from pydantic import SecretStr

from connectors.sdk.errors import InvalidParams
from connectors.sdk.http.address import Target
from connectors.sdk.http.content_coding import ACCEPT_ENCODING
from connectors.sdk.http.tls_identity import TlsIdentity

QueryValue = str | int | float | bool
Query = Mapping[str, QueryValue | Sequence[QueryValue]]
Headers = Mapping[str, str | SecretStr]

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
#: Methods that carry no body.
BODILESS_METHODS: Final = frozenset({"GET", "HEAD"})
#: Headers of the connection rather than of the request: writing them is the transport's business.
TRANSPORT_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_TOKEN_CHARS: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """How long a whole call may take, redirects and token included, by the pool's clock."""

    #: Seconds of its own, and when they end.
    timeout_s: float
    ends_at: float
    #: The job's deadline: it ends the call only as long as no write of the job has left.
    deadline: float | None = None

    def remaining_s(self, now: float, *, has_sent: bool) -> float:
        """Return the seconds left, 0 or less if there are none."""
        if self.deadline is None or has_sent:
            return self.ends_at - now
        return min(self.ends_at, self.deadline) - now


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, ready to be written."""

    method: str
    target: Target
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    #: Most decoded bytes to take of the answer.
    max_bytes: int
    limit: TimeLimit
    #: Whether it changes nothing, however it ends.
    is_safe: bool
    #: Statuses by which the provider vows that it did nothing.
    unprocessed_statuses: frozenset[int] = frozenset()
    #: Part of the query that is the credential's: written on the wire, and nowhere else.
    secret_query: str = field(default="", repr=False)
    tls: TlsIdentity | None = None
    #: Give an answer over `max_bytes` cut, rather than failing.
    cuts_answer: bool = False

    def url_with_secrets(self) -> str:
        """Return the URL as it is written on the wire; never to be shown."""
        url, query = self.target.url, self.target.query
        if not self.secret_query or self.secret_query in query.split("&"):
            return url
        return f"{url}{'&' if query else '?'}{self.secret_query}"


def encode_query(params: Query) -> str:
    """Encode a query: every character but the unreserved ones, booleans as `true` and `false`.

    Raises:
        InvalidParams: a value is not text, a number or a boolean.
    """
    pairs = []
    for name, value in params.items():
        for item in [value] if isinstance(value, str) or not isinstance(value, Sequence) else value:
            if isinstance(item, bool):
                text = "true" if item else "false"
            elif isinstance(item, str | int | float):
                text = str(item)
            else:
                raise InvalidParams.field(f"query.{name}", "must be text, a number or a boolean")
            try:
                pairs.append(f"{quote(name, safe='')}={quote(text, safe='')}")
            except UnicodeEncodeError:
                raise InvalidParams.field("query", "has characters that cannot be encoded") from None
    return "&".join(pairs)


def encode_body(
    value: Any, content: bytes | str | None, data: Query | None
) -> tuple[bytes | None, str | None]:
    """Encode a JSON value, text or bytes, or a form; return the body and its content type.

    Raises:
        InvalidParams: more than one is given, or it cannot be encoded (NaN, a lone surrogate).
    """
    if sum(part is not None for part in (value, content, data)) > 1:
        raise InvalidParams.field("body", "is given twice: use one of json, content and data")
    try:
        if value is not None:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode(), "application/json"
        if data is not None:
            return encode_query(data).encode(), "application/x-www-form-urlencoded"
        if isinstance(content, str):
            return content.encode(), "text/plain; charset=utf-8"
    except (ValueError, TypeError, RecursionError):
        raise InvalidParams.field("body", "cannot be encoded") from None
    return content, None if content is None else "application/octet-stream"


def add_headers(merged: dict[str, str], headers: Headers) -> None:
    """Add headers, each replacing one of the same name in any case.

    Raises:
        InvalidParams: a name or value that HTTP does not allow, or one that the transport writes.
    """
    for name, secret in headers.items():
        value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if (issue := header_fault(name, value)) is not None:
            raise InvalidParams.field("headers", issue)
        for present in [present for present in merged if present.lower() == name.lower()]:
            del merged[present]
        merged[name] = value


def merge_headers(content_type: str | None, *parts: Headers) -> dict[str, str]:
    """Return the headers of a request; of one name the last is taken.

    Raises:
        InvalidParams: as `add_headers`.
    """
    merged = {"User-Agent": "connectors-service", "Accept": "*/*", "Accept-Encoding": ACCEPT_ENCODING}
    if content_type is not None:
        merged["Content-Type"] = content_type
    for headers in parts:
        add_headers(merged, headers)
    return merged


def header_fault(name: str, value: str) -> str | None:
    """Return what is wrong with a header, never quoting its value; None if nothing is."""
    if not name or not _TOKEN_CHARS.issuperset(name):
        return "a name has characters that HTTP does not allow"
    if name.lower() in TRANSPORT_HEADERS or name.lower().startswith("proxy-"):
        return f"{name} is written by the transport alone"
    if not value.isascii() or not value.replace("\t", " ").isprintable():
        return f"the value of {name} has a line break or another character that HTTP does not allow"
    return None
