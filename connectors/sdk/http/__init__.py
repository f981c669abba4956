"""The outbound HTTP layer that every connector shares, and what reads its answers.

    HttpClient                                  `ctx.http`: calls within the job's deadline, and what came of them
    is_error, status_error, sent_of             what a status means: the error to raise, and how far it came
    wait_asked_s                                the wait that a provider asks for
    charset_of                                  what an answer's text is read as
    read_url, read_host, Target, RefusedAddress   which address may be called
    encode_query, header_fault, TRANSPORT_HEADERS what a request may hold

The client itself loads aiohttp and httpx, so it is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from connectors.sdk.http.address import RefusedAddress, Target, read_host, read_url
from connectors.sdk.http.charset import charset_of
from connectors.sdk.http.job_effects import sent_of
from connectors.sdk.http.request import TRANSPORT_HEADERS, encode_query, header_fault
from connectors.sdk.http.status import is_error, status_error, wait_asked_s

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpClient

__all__ = [
    "TRANSPORT_HEADERS",
    "HttpClient",
    "RefusedAddress",
    "Target",
    "charset_of",
    "encode_query",
    "header_fault",
    "is_error",
    "read_host",
    "read_url",
    "sent_of",
    "status_error",
    "wait_asked_s",
]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for."""
    if name == "HttpClient":
        from connectors.sdk.http.client import HttpClient  # noqa: PLC0415

        return HttpClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
