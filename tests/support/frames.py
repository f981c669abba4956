"""A publisher that writes AMQP frames by hand: what no client library agrees to send (B01-B13)."""

import socket
import struct
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
#: Bits of the property flags, in the order of basic's properties.
_CONTENT_TYPE, _HEADERS, _CORRELATION, _REPLY_TO = 1 << 15, 1 << 13, 1 << 10, 1 << 9
_MESSAGE_ID, _TIMESTAMP = 1 << 7, 1 << 6


def short(text: bytes) -> bytes:
    """A short string."""
    return bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    """A long string, or a table."""
    return struct.pack(">I", len(text)) + text


def nested_tables(depth: int) -> bytes:
    """A header table with tables inside one another."""
    table = b""
    for _ in range(depth):
        table = short(b"k") + b"F" + long(table)
    return long(table)


def nested_arrays(depth: int) -> bytes:
    """A header table with arrays inside one another."""
    array = b""
    for _ in range(depth):
        array = b"A" + long(array)
    return long(short(b"k") + array)


#: Property flags and property bytes by case of the fault list.
BAD_FRAMES: dict[str, tuple[int, bytes]] = {
    "B01 correlation_id": (_CORRELATION, short(b"\xff\xfe")),
    "B02 reply_to": (_REPLY_TO, short(b"\xff\xfe")),
    "B03 content_type": (_CONTENT_TYPE, short(b"\xff\xfe")),
    "B04 message_id": (_MESSAGE_ID, short(b"\xff\xfe")),
    "B05 header name": (_HEADERS, long(short(b"\xff\xfe") + b"S" + long(b"x"))),
    "B08 nested tables": (_HEADERS, nested_tables(1000)),
    "B09 nested arrays": (_HEADERS, nested_arrays(2000)),
}


def odd_timestamps(reply_to: str) -> dict[str, tuple[int, bytes]]:
    """Property flags and bytes of calls whose timestamps are no date: other units, or nonsense."""
    found = {}
    for name, value in {
        "B06": 2**64 - 1,
        "us": 1_795_651_200 * 10**6,
        "ticks": 639_000_000_000_000_000,
    }.items():
        stamp = struct.pack(">Q", value)
        address = short(f"{name} property".encode()) + short(reply_to.encode())
        found[f"{name} property"] = (_CORRELATION | _REPLY_TO | _TIMESTAMP, address + stamp)
        headers = long(short(b"t") + b"T" + stamp)
        address = headers + short(f"{name} header".encode()) + short(reply_to.encode())
        found[f"{name} header"] = (_HEADERS | _CORRELATION | _REPLY_TO, address)
    return found


def callers_own(table: bytes, correlation_id: str, reply_to: str) -> tuple[int, bytes]:
    """Property flags and bytes of a call whose headers are this table."""
    address = short(correlation_id.encode()) + short(reply_to.encode())
    return _HEADERS | _CORRELATION | _REPLY_TO, table + address


class FramePublisher:
    """One connection and channel, spoken by hand."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=10)
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._read_frame()  # connection.start
        login = f"\0{unquote(parts.username or '')}\0{unquote(parts.password or '')}".encode()
        self._method(0, 10, 11, long(b"") + short(b"PLAIN") + long(login) + short(b"en_US"))
        self._read_frame()  # connection.tune
        self._method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0))
        self._method(0, 10, 40, short(unquote(parts.path[1:] or "/").encode()) + short(b"") + b"\0")
        self._read_frame()  # connection.open-ok
        self._method(1, 20, 10, short(b""))
        self._read_frame()  # channel.open-ok

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def publish(self, exchange: str, key: str, body: bytes, flags: int, properties: bytes) -> None:
        """Publish a body under properties written as they are, and wait until the broker has it."""
        self._method(1, 60, 40, b"\0\0" + short(exchange.encode()) + short(key.encode()) + b"\0")
        self._frame(_HEADER, 1, struct.pack(">HHQH", 60, 0, len(body), flags) + properties)
        self._frame(_BODY, 1, body)
        self._method(1, 20, 20, b"\1")  # channel.flow: answered once what came before was read
        self._read_frame()

    def _method(self, channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        self._frame(_METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + _END)

    def _read_frame(self) -> bytes:
        kind, _, size = struct.unpack(">BHI", self._read(7))
        payload = self._read(size + 1)[:-1]
        class_id, method_id = struct.unpack(">HH", payload[:4]) if kind == _METHOD else (0, 0)
        assert (class_id, method_id) not in {(10, 50), (20, 40)}, f"the broker refused: {payload!r}"
        return payload

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            assert chunk, "the broker hung up"
            data += chunk
        return data
