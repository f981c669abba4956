"""Header tables as a publisher wrote them: whatever is in them, decoding ends and says what it could not read."""

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

#: Tables and arrays inside one another, and values of one table with all that is inside it.
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 20_000
#: Timestamps above this (the year 2106) are milliseconds.
_MOST_SECONDS: Final = 0xFFFFFFFF

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_DECIMAL: Final = struct.Struct(">Bi")


class Undecodable(ValueError):
    """A value that cannot be decoded; the message says which, and never shows it."""


def read_timestamp(data: bytes, at: int) -> datetime | None:
    """Read a timestamp in seconds or milliseconds; None if it is no date (micro- or nanoseconds, ticks)."""
    (value,) = _U64.unpack_from(data, at)
    try:
        return datetime.fromtimestamp(value if value <= _MOST_SECONDS else value / 1000, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return None


def read_table(data: bytes, at: int, end: int) -> dict[str, Any]:
    """Read the fields of a table; its length was read before.

    Raises:
        Undecodable: a field name is not UTF-8, a type is unknown, something is cut off, too deep or too much.
    """
    try:
        return _Reader(data).table(at, end, 1)
    except (struct.error, IndexError):
        raise Undecodable("the headers are cut off") from None


class _Reader:
    """Reads one table with all that is inside it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = MAX_VALUES

    def table(self, at: int, end: int, depth: int) -> dict[str, Any]:
        data = self._data
        found: dict[str, Any] = {}
        while at < end:
            after = at + 1 + data[at]
            if after > end:
                raise Undecodable("the name of a header is cut off")
            try:
                name = data[at + 1 : after].decode()
            except UnicodeDecodeError:
                raise Undecodable("the name of a header is not UTF-8") from None
            found[name], at = self._value(after, end, depth)
        return found

    def _array(self, at: int, end: int, depth: int) -> list[Any]:
        found = []
        while at < end:
            value, at = self._value(at, end, depth)
            found.append(value)
        return found

    def _value(self, at: int, end: int, depth: int) -> tuple[Any, int]:
        """Read a type and its value; return the value, and where the next one begins."""
        self._left -= 1
        if self._left < 0:
            raise Undecodable(f"there are more than {MAX_VALUES} values in the headers")
        if at >= end:
            return None, at  # a name without a type: void
        kind = self._data[at]
        at += 1
        fixed = _FIXED.get(kind)
        if fixed is not None:
            read, size = fixed
            if at + size > end:
                raise Undecodable("a header is cut off")
            return read(self._data, at), at + size
        return self._sized(kind, at, end, depth)

    def _sized(self, kind: int, at: int, end: int, depth: int) -> tuple[Any, int]:
        """Read a value that says its own length."""
        if kind not in _SIZED:
            raise Undecodable(f"a header has the unknown type {bytes([kind])!r}")
        start = at + 4
        if start > end or (stop := start + _U32.unpack_from(self._data, at)[0]) > end:
            raise Undecodable("a header is cut off")
        if kind == ord("S"):
            raw = self._data[start:stop]
            try:
                return raw.decode(), stop
            except UnicodeDecodeError:
                return raw, stop
        if kind == ord("x"):
            return bytearray(self._data[start:stop]), stop
        if depth >= MAX_DEPTH:
            raise Undecodable(f"the headers are nested deeper than {MAX_DEPTH}")
        if kind == ord("F"):
            return self.table(start, stop, depth + 1), stop
        return self._array(start, stop, depth + 1), stop


def _number(layout: str) -> tuple[Callable[[bytes, int], Any], int]:
    packed = struct.Struct(f">{layout}")
    return (lambda data, at: packed.unpack_from(data, at)[0]), packed.size


def _read_decimal(data: bytes, at: int) -> Decimal:
    scale, value = _DECIMAL.unpack_from(data, at)
    return Decimal(value) * Decimal(10) ** int(-scale)


#: RabbitMQ's types of fixed size: how each is read, and its bytes.
_FIXED: Final[dict[int, tuple[Callable[[bytes, int], Any], int]]] = {
    ord(kind): read
    for kind, read in {
        "t": _number("?"),
        "b": _number("b"),
        "B": _number("B"),
        "s": _number("h"),
        "u": _number("H"),
        "I": _number("i"),
        "i": _number("I"),
        "l": _number("q"),
        "L": _number("q"),
        "f": _number("f"),
        "d": _number("d"),
        "D": (_read_decimal, _DECIMAL.size),
        "T": (read_timestamp, _U64.size),
        "V": (lambda _data, _at: None, 0),
        "\0": (lambda _data, _at: None, 0),
    }.items()
}
_SIZED: Final = frozenset(b"SxFA")
