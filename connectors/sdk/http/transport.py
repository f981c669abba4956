"""One request on the wire, over aiohttp, and how far it came when it failed.

The class of aiohttp's error does not tell whether a request left: a POST that is cut after it was
processed and a refused connection look alike. So a `SendProgress` notes the moment before the first byte
is handed to the socket, and each failure is told apart by it.

Deliberately absent: the environment's proxies and .netrc (trust_env is off), cookies, redirects (the
client follows them, hop by hop), and aiohttp's own second try of a GET whose connection was dropped: one
call is one request on the wire, attempts are counted by the worker.
"""

import io
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import httpx
import yarl

from connectors.sdk.errors import ConnectorError, Sent, Unavailable
from connectors.sdk.http.charset import charset_of
from connectors.sdk.http.content_coding import BadContent, BodyDecoder, ContentTooLarge, mark_cut
from connectors.sdk.http.egress import Egress
from connectors.sdk.http.request import HttpRequest
from connectors.sdk.http.resolver import GuardedResolver, Lookup
from connectors.sdk.http.tls import TlsContexts
from schemas.error import Code

#: Seconds a checked answer of DNS is used for.
LOOKUP_TTL_S: Final = 10
#: Seconds an idle connection is kept for the next call: less than the 5 s after which Node, uvicorn
#: and Apache close theirs, for a write that crosses with a close has an unknown outcome.
KEEP_ALIVE_S: Final = 4.0
#: Longest line and header of an answer. aiohttp's own 8190 is short for some policy headers.
MAX_HEADER_BYTES: Final = 16_384
#: Bytes read at a time.
READ_CHUNK_BYTES: Final = 65_536


class SendProgress:
    """How far one request has come.

    Args:
        on_sent: called when its first byte is about to leave; must not block. What it raises keeps the byte back.
    """

    __slots__ = ("_on_sent", "sent")

    def __init__(self, on_sent: Callable[[], None] = lambda: None) -> None:
        self.sent = Sent.NO
        self._on_sent = on_sent

    def record_sent(self) -> None:
        """Record that the first byte is about to leave, unless `on_sent` raises."""
        self._on_sent()
        self.sent = Sent.UNCERTAIN


class Transport:
    """The process's connections: one aiohttp session, created when the first request needs it.

    Args:
        egress: what may have addresses inside.
        ca_file: certificates to trust beside the public ones.
        proxy_url: where calls of public hosts go through; None to call them directly.
        lookup: resolves names; the system's resolver if None.

    Raises:
        ValueError: the CA file cannot be read.
    """

    def __init__(
        self,
        *,
        egress: Egress,
        ca_file: Path | None,
        proxy_url: str | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        proxy_host = None if proxy_url is None else urlsplit(proxy_url).hostname
        # The operator names the proxy, which mostly stands inside.
        if proxy_host is not None:
            egress = replace(egress, hosts=egress.hosts | {proxy_host})
        self._resolver = GuardedResolver(egress, lookup)
        self._tls = TlsContexts(ca_file)
        self._proxy_url = proxy_url
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def send(
        self,
        request: HttpRequest,
        progress: SendProgress,
        *,
        goes_out: bool = True,
    ) -> httpx.Response:
        """Send one request and read its answer whole, decoded.

        An answer of 400 or more whose body breaks off counts as answered, with what came of it.

        Args:
            goes_out: whether it leaves for the public network, through the proxy if there is one.

        Raises:
            RefusedAddress: the host's name leads to an address that is refused.
            ConnectorError: no usable answer; `sent` says whether the request may have been processed.
        """
        session = self._session or self._start()
        tls = await self._tls.of(request.tls)
        try:
            async with session.request(
                request.method,
                yarl.URL(request.url_with_secrets(), encoded=True),
                headers=request.headers,
                data=_payload(request.body),
                allow_redirects=False,
                ssl=tls,
                proxy=self._proxy_url if goes_out else None,
                trace_request_ctx=progress,
            ) as answer:
                return await _read(answer, request)
        except (aiohttp.ClientError, OSError, BadContent) as error:
            failure = _explain(error, request.target.host, progress)
        # Raised outside of the handler: aiohttp's errors hold the request's headers, secrets included.
        raise failure

    async def close(self) -> None:
        """Close every connection."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    def _start(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise RuntimeError("the HTTP pool is closed")
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_headers_sent)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # `host_room` bounds them, and fairly: aiohttp lets new calls pass waiting ones
                resolver=self._resolver,
                ttl_dns_cache=LOOKUP_TTL_S,
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=self._tls.default,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Decoded by `content_coding`, which checks that the body is whole.
            auto_decompress=False,
            # The client's total deadline is the only one: aiohttp's would be taken for it.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            skip_auto_headers=("User-Agent", "Content-Type"),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            read_bufsize=READ_CHUNK_BYTES,
            trace_configs=[trace],
        )
        # As aiohttp's own test client does: no second request behind our back.
        session._retry_connection = False
        self._session = session
        return session


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    # aiohttp writes bytes in one piece; over 1 MiB it warns of that, and reads a file in pieces.
    return body if body is None or len(body) <= 2**20 else io.BytesIO(body)


async def _note_headers_sent(_session: object, trace: SimpleNamespace, _params: object) -> None:
    """Called when the connection stands and the headers are about to be written."""
    progress: SendProgress = trace.trace_request_ctx
    progress.record_sent()


async def _read(answer: aiohttp.ClientResponse, request: HttpRequest) -> httpx.Response:
    host = request.target.host
    if answer.status < 200:
        raise Unavailable(f"{host} answered with a change of protocol", sent=Sent.UNCERTAIN)
    chunks: list[bytes] = []
    try:
        await _read_into(chunks, answer, request)
    except (aiohttp.ClientError, OSError, BadContent, ContentTooLarge) as error:
        answer.close()
        is_too_large = isinstance(error, ContentTooLarge)
        if answer.status < 400 and not (is_too_large and request.cuts_answer):
            if is_too_large:
                raise _too_large(request) from None
            raise
        response = _as_httpx(answer, request, b"".join(chunks))
        mark_cut(response)
        return response
    return _as_httpx(answer, request, b"".join(chunks))


async def _read_into(chunks: list[bytes], answer: aiohttp.ClientResponse, request: HttpRequest) -> None:
    """Read and decode the body; what came before a failure is kept."""
    coding = "" if request.method == "HEAD" else answer.headers.get("content-encoding", "")
    decoder = BodyDecoder(coding, request.max_bytes)
    async for chunk in answer.content.iter_any():
        for piece in decoder.feed(chunk):
            chunks.append(piece)  # noqa: PERF402  # kept though the next one fails
    decoder.finish()


def _too_large(request: HttpRequest) -> ConnectorError:
    # The provider has done what was asked; only its answer is of no use.
    return ConnectorError(
        f"the answer of {request.target.host} is over {request.max_bytes} bytes",
        code=Code.RESULT_TOO_LARGE,
        sent=Sent.UNCERTAIN,
    )


class RawResponse(httpx.Response):
    """An answer read whole, which creates its request only if it is asked for: that costs more than the rest."""

    asked: tuple[str, str]
    #: Whether the request changes nothing.
    is_safe: bool

    def json(self, **options: Any) -> Any:
        """Read the body as JSON.

        Raises:
            Unavailable: it is none. A write may have been done; its answer is of no use.
        """
        try:
            return super().json(**options)
        except (ValueError, RecursionError):
            pass  # raised below, outside of the handler: the library's error holds the body
        host = urlsplit(self.asked[1]).hostname
        sent = Sent.NO if self.is_safe else Sent.UNCERTAIN
        raise Unavailable(f"{host} did not return JSON", sent=sent)

    @property
    def request(self) -> httpx.Request:
        """The request's method and URL; not its headers, so that an error shows no secret."""
        if self._request is None:
            self._request = httpx.Request(*self.asked)
        return self._request

    @request.setter
    def request(self, value: httpx.Request) -> None:
        self._request = value


def _as_httpx(answer: aiohttp.ClientResponse, request: HttpRequest, content: bytes) -> httpx.Response:
    headers = answer.raw_headers
    if "content-encoding" in answer.headers and request.method != "HEAD":
        # The body is decoded: what describes its encoded form would have httpx decode it again.
        headers = tuple(
            (name, value)
            for name, value in headers
            if name.lower() not in {b"content-encoding", b"content-length"}
        )
    response = RawResponse(answer.status, headers=list(headers), content=content)
    response.asked, response.is_safe = (request.method, request.target.url), request.is_safe
    content_type = answer.headers.get("content-type", "")
    if "charset" in content_type:
        response.encoding = charset_of(content_type)
    return response


def _explain(error: Exception, host: str, progress: SendProgress) -> ConnectorError:
    """Return what happened in our own words; a third party's text may hold what it must not."""
    if progress.sent is Sent.NO:
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            what = f"the name {host} cannot be resolved"
        elif isinstance(error, aiohttp.ClientProxyConnectionError):
            what = "the proxy of CONNECTORS_PROXY_URL cannot be reached"
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            what = f"the proxy of CONNECTORS_PROXY_URL refuses the way to {host} (status {error.status})"
        elif isinstance(error, aiohttp.ClientConnectorCertificateError):
            what = f"the certificate of {host} is not trusted; CONNECTORS_CA_FILE adds an authority"
        elif isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            what = f"no TLS connection with {host}"
        elif isinstance(getattr(error, "os_error", error), ConnectionRefusedError):
            what = f"{host} refuses the connection"
        else:
            what = f"{host} cannot be reached"
        return Unavailable(what, sent=Sent.NO)
    if isinstance(error, aiohttp.ClientPayloadError | BadContent):
        what = f"{host} broke off its answer, or encoded it wrongly"
    elif isinstance(error, aiohttp.ClientResponseError):
        what = f"{host} answered with what is not HTTP"
    else:
        what = f"{host} closed the connection before it answered"
    return Unavailable(what, sent=Sent.UNCERTAIN)
