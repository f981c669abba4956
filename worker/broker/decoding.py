"""What the client library cannot decode although it is harmless: timestamps beyond the year 9999.

Milliseconds it reads by itself. Micro- and nanoseconds and .NET's ticks overflow Python's dates, which
would end the connection, and with it the queue's consumer, for a property that no job needs.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from pamqp import decode

#: Bytes of a timestamp on the wire.
_TIMESTAMP_BYTES = 8


def accept_any_timestamp() -> None:
    """Let the client library read a timestamp that is no date as absent, in a property or a header."""
    if decode.METHODS["timestamp"] is _timestamp:
        return
    decoders = cast(dict[Any, Callable[[bytes], tuple[int, Any]]], decode.METHODS)
    decoders["timestamp"] = _timestamp
    table = cast(dict[Any, Callable[[bytes], tuple[int, Any]]], decode.TABLE_MAPPING)
    table[b"T"] = _timestamp


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        return decode.timestamp(value)
    except (OverflowError, OSError, ValueError):
        if len(value) < _TIMESTAMP_BYTES:
            raise ValueError("a timestamp is cut off") from None
        return _TIMESTAMP_BYTES, None
