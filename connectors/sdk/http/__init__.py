"""The outbound HTTP layer that every connector shares, and what reads its answers.

    HttpClient                                  `ctx.http`: calls within the job's deadline, and what came of them
    is_error, status_error, sent_of             what a status means: the error to raise, and how far it came
    wait_asked_s                                the wait that a provider asks for
    decode_text                                 an answer's text, by its mark, charset or XML declaration
    read_url, read_host, Target, RefusedAddress   which address may be called
    encode_query, header_fault, TRANSPORT_HEADERS what a request may hold
    is_cut                                      whether an answer's body is whole
    TlsIdentity                                 a credential's authorities, and its client certificate

The client itself loads aiohttp and httpx, so it is imported when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from connectors.sdk.http.address import RefusedAddress, Target, read_host, read_url
from connectors.sdk.http.charset import decode_text
from connectors.sdk.http.content_coding import is_cut
from connectors.sdk.http.job_effects import sent_of
from connectors.sdk.http.request import TRANSPORT_HEADERS, encode_query, header_fault
from connectors.sdk.http.status import is_error, status_error, wait_asked_s
from connectors.sdk.http.tls_identity import TlsIdentity

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpClient

__all__ = [
    "TRANSPORT_HEADERS",
    "HttpClient",
    "RefusedAddress",
    "Target",
    "TlsIdentity",
    "decode_text",
    "encode_query",
    "header_fault",
    "is_cut",
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
