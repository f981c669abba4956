"""What the client library cannot decode although it is harmless: timestamps beyond the year 9999.

Milliseconds it reads by itself. Micro- and nanoseconds and .NET's ticks overflow Python's dates, which
would end the connection, and with it the queue's consumer, for a property that no job needs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, cast

from pamqp import decode
from pamqp.base import BasicProperties

#: Bytes of a timestamp on the wire.
_TIMESTAMP_BYTES = 8


def accept_any_timestamp() -> None:
    """Have the client library read a timestamp that is no date as absent, in a property or a header."""
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


@contextmanager
def leaving_out_undecodable_properties() -> Iterator[None]:
    """Have the client library read messages whose properties it cannot decode, without those properties.

    For an operator's look at the poison queue alone: a worker must never take such a message for a job.
    """
    unmarshal = BasicProperties.unmarshal

    def unmarshal_what_can_be(self: BasicProperties, flags: int, data: bytes) -> None:
        with suppress(ValueError, OverflowError, RecursionError):
            unmarshal(self, flags, data)

    BasicProperties.unmarshal = unmarshal_what_can_be  # type: ignore[method-assign]
    try:
        yield
    finally:
        BasicProperties.unmarshal = unmarshal  # type: ignore[method-assign]
