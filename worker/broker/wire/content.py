"""The content header: a message's properties, read whatever they are, written as RabbitMQ reads them."""

import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from pamqp import encode

from worker.broker.properties import Properties
from worker.broker.wire.values import Undecodable, read_table, read_timestamp

_PERSISTENT: Final = b"\x02"
_BASIC: Final = 60
#: Class, weight, size of the body, flags.
_HEADER: Final = struct.Struct(">HHQH")
HEADER_SIZE: Final = _HEADER.size
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
#: The properties in the order of their flags, from bit 15 down: name, and bytes or "short" string or "table".
_FIELDS: Final = (
    ("content_type", "short"),
    ("content_encoding", "short"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "short"),
    ("reply_to", "short"),
    ("expiration", "short"),
    ("message_id", "short"),
    ("timestamp", "timestamp"),
    ("type", "short"),
    ("user_id", "short"),
    ("app_id", "short"),
    ("cluster_id", "short"),
)
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_CORRELATION_ID, _REPLY_TO, _MESSAGE_ID, _TIMESTAMP, _TYPE, _USER_ID = (
    1 << bit for bit in (10, 9, 7, 6, 5, 4)
)
#: Beyond the fourteen: none is known.
_UNKNOWN_FLAGS: Final = 0b11


def body_size(header: bytes) -> int:
    """Return how many bytes of body follow a content header."""
    return int(_U64.unpack_from(header, 4)[0])


def read_properties(header: bytes) -> tuple[Properties, str | None]:
    """Read the properties of a content header.

    Returns what can be read, and what cannot in words; None if all can. An empty property counts as absent.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    try:
        flags = _HEADER.unpack_from(header)[3]
        _read_fields(header, flags, values, faults)
    except (struct.error, IndexError):
        faults.append("the properties are cut off")
    get = values.get
    correlation_id = get("correlation_id")
    if correlation_id is Undecodable:
        # No caller could tell whose reply that is.
        correlation_id = values["reply_to"] = None
    properties = Properties(
        get("message_id") or None,
        correlation_id or None,
        get("reply_to") or None,
        get("content_type") or None,
        get("content_encoding") or None,
        get("type") or None,
        get("user_id") or None,
        get("timestamp"),
        get("headers") or {},
    )
    return properties, "; ".join(faults) if faults else None


@lru_cache(maxsize=256)
def _fields_of(flags: int) -> tuple[tuple[str, str], ...]:
    return tuple(field for bit, field in enumerate(_FIELDS) if flags & 1 << (15 - bit))


def _read_fields(header: bytes, flags: int, values: dict[str, Any], faults: list[str]) -> None:
    at = HEADER_SIZE
    for name, kind in _fields_of(flags):
        if kind == "short":
            start = at + 1
            at = start + header[at]
            if at > len(header):
                raise IndexError
            try:
                values[name] = header[start:at].decode()
            except UnicodeDecodeError:
                faults.append(f"{name} is not UTF-8")
                if name == "correlation_id":
                    values[name] = Undecodable
        elif kind == "table":
            start = at + 4
            at = start + _U32.unpack_from(header, at)[0]
            if at > len(header):
                raise IndexError
            try:
                values[name] = read_table(header, start, at)
            except Undecodable as undecodable:
                faults.append(str(undecodable))
        elif kind == "timestamp":
            values[name] = read_timestamp(header, at)
            at += 8
        else:
            values[name] = header[at]
            at += 1
    if flags & _UNKNOWN_FLAGS:
        faults.append("there are properties that AMQP 0-9-1 does not know")


def write_properties(properties: Properties, size: int) -> bytes:
    """Return the content header of a persistent message.

    Raises:
        ValueError, TypeError: a property that cannot be written; names it.
    """
    flags = _DELIVERY_MODE | _TIMESTAMP
    parts: list[bytes] = []
    if properties.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(short("content_type", properties.content_type))
    if properties.content_encoding is not None:
        flags |= _CONTENT_ENCODING
        parts.append(short("content_encoding", properties.content_encoding))
    if properties.headers:
        flags |= _HEADERS
        parts.append(_write_table(properties))
    parts.append(_PERSISTENT)
    if properties.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(short("correlation_id", properties.correlation_id))
    if properties.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(short("reply_to", properties.reply_to))
    if properties.message_id is not None:
        flags |= _MESSAGE_ID
        parts.append(short("message_id", properties.message_id))
    parts.append(_U64.pack(_seconds(properties.timestamp or datetime.now(UTC))))
    if properties.type is not None:
        flags |= _TYPE
        parts.append(short("type", properties.type))
    if properties.user_id is not None:
        flags |= _USER_ID
        parts.append(short("user_id", properties.user_id))
    return _HEADER.pack(_BASIC, 0, size, flags) + b"".join(parts)


def _write_table(properties: Properties) -> bytes:
    try:
        return encode.field_table(dict(properties.headers))
    except (OverflowError, struct.error, RecursionError) as error:
        raise ValueError(f"a header cannot be written: {error}") from None


def _seconds(instant: datetime) -> int:
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return max(0, int(instant.timestamp()))


def short(name: str, text: str) -> bytes:
    """Return a short string.

    Raises:
        ValueError: it is longer than 255 bytes, or cannot be encoded.
    """
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raise ValueError(f"{name} has {len(raw)} bytes, and 255 are the most")
    return bytes((len(raw),)) + raw
