"""A small HTTP listener for operators: GET and HEAD, one response per connection, bounded everywhere."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from loguru import logger

_SECURITY_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
#: For a response without a policy of its own: nothing may be loaded, framed or run.
_LOCKED_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class ListenerPolicy:
    """What one client may take of the listener."""

    #: Seconds a client has to send its request head, and to read the response.
    head_timeout_s: float = 5.0
    response_timeout_s: float = 10.0
    #: Seconds for responses in progress when the listener closes.
    close_timeout_s: float = 2.0
    #: Bytes of a head. No scraper, probe or browser sends more.
    max_head_bytes: int = 16_384
    #: Connections at a time. Beyond, the connection that has been silent longest is dropped.
    max_connections: int = 64


DEFAULT_POLICY: Final = ListenerPolicy()


@dataclass(frozen=True, slots=True)
class Response:
    """The response to one path."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = field(default=())


Handler = Callable[[str], Awaitable[Response]]


class CannotListen(Exception):
    """The monitoring port cannot be opened; the text is one line that names the setting."""


class PortTaken(CannotListen):
    """Another process listens there."""


def plain(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """Return a response of one line of text."""
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


async def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address.

    Args:
        port: 0 chooses a free one.

    Raises:
        PortTaken: another process listens there.
        CannotListen: there is no such address, or no permission.
    """
    setting = f"CONNECTORS_METRICS_PORT={port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # IPv4 first: `localhost` is both, and probes ask 127.0.0.1.
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        dual = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((str(address[0]), port), family=family, dualstack_ipv6=dual, backlog=128)
    except socket.gaierror as error:
        raise CannotListen(
            f"CONNECTORS_METRICS_HOST={host}: no such address; 127.0.0.1 always works"
        ) from error
    except PermissionError as error:
        raise CannotListen(f"{setting}: not permitted on {host}; set one above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(f"{setting}: the port is taken on {host}; set another one") from error
        raise CannotListen(
            f"CONNECTORS_METRICS_HOST={host}: this machine does not have that address; use 127.0.0.1"
        ) from error


class Listener:
    """Answers HTTP on a bound socket.

    Each connection gets one response and is closed. Its request head must come in time and in size, and the
    response must be read in time. If too many are open, the oldest that has not sent its head yet is closed,
    so that clients that only hold connections cannot keep a probe out.
    """

    def __init__(self, handler: Handler, policy: ListenerPolicy = DEFAULT_POLICY) -> None:
        self._policy = policy
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._reading: dict[asyncio.StreamWriter, None] = {}  # in the order they came

    async def serve(self, bound: socket.socket) -> None:
        """Start to answer requests."""
        self._server = await asyncio.start_server(
            self._connected, sock=bound, limit=self._policy.max_head_bytes
        )

    async def close(self) -> None:
        """Close the port and all connections: a slow reader does not delay the stop."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()
        tasks = [task for task in self._open.values() if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._policy.close_timeout_s)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        self._reading[writer] = None
        if len(self._open) > self._policy.max_connections:
            oldest = next(iter(self._reading))
            oldest.transport.abort()
        try:
            await self._handle_request(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # gone, or too slow: it gets no response
        finally:
            del self._open[writer]
            self._reading.pop(writer, None)
            writer.close()

    async def _handle_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head_only = False
        try:
            async with asyncio.timeout(self._policy.head_timeout_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            response = plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head is too large")
        else:
            del self._reading[writer]
            head_only = head.startswith(b"HEAD ")
            response = await self._respond(head)
        async with asyncio.timeout(self._policy.response_timeout_s):
            writer.write(_head(response) if head_only else _head(response) + response.body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _respond(self, head: bytes) -> Response:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return plain(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1")
        method, target, _ = words
        if method not in {"GET", "HEAD"}:
            return plain(
                HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are allowed", ("Allow", "GET, HEAD")
            )
        try:
            return await self._handler(target.partition("?")[0])
        except Exception as bug:
            logger.opt(exception=bug).error("monitoring request failed")
            return plain(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the monitoring server failed; the worker's log has the traceback",
            )


def _head(response: Response) -> bytes:
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
        *_SECURITY_HEADERS,
        *response.headers,
    ]
    if all(name != "Content-Security-Policy" for name, _ in response.headers):
        headers.append(("Content-Security-Policy", _LOCKED_POLICY))
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}", *(f"{n}: {v}" for n, v in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
