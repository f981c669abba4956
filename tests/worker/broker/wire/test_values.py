"""Header tables: what pamqp writes is read the same, and what it cannot read ends in one error of ours."""

import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import decode, encode

from tests.support.frames import long, nested_arrays, nested_tables, short
from worker.broker.wire.values import MAX_DEPTH, MAX_VALUES, Undecodable, read_table, read_timestamp

NOW_S = 1_795_651_200

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=32, allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | st.integers(86_400, 4_102_444_800).map(lambda at: datetime.fromtimestamp(at, tz=UTC))
    | st.integers(0, 2**31 - 1).map(lambda value: Decimal(value).scaleb(-2))
)
NAMES = st.text(st.characters(max_codepoint=0x7F), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def read(table: bytes) -> dict[str, Any]:
    """Read a whole table, its length before it."""
    return read_table(table, 4, len(table))


@settings(max_examples=200)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_what_the_client_writes_is_read_as_it_reads_it(headers: dict[str, Any]) -> None:
    written = encode.field_table(headers)

    assert decode.field_table(written)[1] == read(written)


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_table_or_one_error(raw: bytes) -> None:
    with suppress(Undecodable):
        read(long(raw))


@settings(max_examples=200)
@given(st.sampled_from(b"tbBsuIilLfdDSATFV\0x"), st.binary(max_size=40))
def test_what_is_read_of_any_bytes_is_what_the_client_reads(kind: int, raw: bytes) -> None:
    table = long(short(b"k") + bytes([kind]) + raw)
    try:
        ours = read(table)
    except Undecodable:
        return  # the client reads past the end of what is cut off

    with suppress(OverflowError, ValueError):  # a timestamp that is no date is absent for us
        theirs = decode.field_table(table)[1]
        assert repr(theirs) == repr(ours)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (long(short(b"\xff\xfe") + b"V"), "not UTF-8"),
        (long(short(b"k") + b"?"), "unknown type b'?'"),
        (long(short(b"k") + b"I\0"), "cut off"),
        (long(short(b"k") + b"S" + struct.pack(">I", 2**31) + b"x"), "cut off"),
        (long(b"\x09k"), "cut off"),
        (nested_tables(1000), f"deeper than {MAX_DEPTH}"),
        (nested_arrays(2000), f"deeper than {MAX_DEPTH}"),
        (long(short(b"k") + b"A" + long(b"V" * (MAX_VALUES + 1))), f"more than {MAX_VALUES}"),
    ],
    ids=["name", "type", "number", "string", "end", "tables", "arrays", "many"],
)
def test_what_cannot_be_read_is_named(table: bytes, fault: str) -> None:
    with pytest.raises(Undecodable, match=fault.replace("?", r"\?")):
        read(table)


def test_a_string_that_is_not_utf_8_is_read_as_bytes() -> None:
    assert {"k": b"\xff\xfe"} == read(long(short(b"k") + b"S" + long(b"\xff\xfe")))


@settings(max_examples=200)
@given(st.integers(0, 2**64 - 1))
def test_every_timestamp_is_a_date_or_absent(value: int) -> None:
    raw = struct.pack(">Q", value)

    of_property, in_header = read_timestamp(raw, 0), read(long(short(b"k") + b"T" + raw))["k"]

    assert of_property == in_header
    assert of_property is None or isinstance(of_property, datetime)


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (NOW_S, datetime.fromtimestamp(NOW_S, tz=UTC)),
        (NOW_S * 1000, datetime.fromtimestamp(NOW_S, tz=UTC)),
        (NOW_S * 10**6, None),
        (NOW_S * 10**9, None),
        (639_000_000_000_000_000, None),
    ],
    ids=["s", "ms", "us", "ns", "ticks"],
)
def test_seconds_and_milliseconds_are_dates_and_finer_units_absent(
    value: int, read_as: datetime | None
) -> None:
    assert read_as == read_timestamp(struct.pack(">Q", value), 0)


def test_deep_tables_end_before_the_stack_does() -> None:
    deepest: Callable[[int], bytes] = nested_tables

    assert read(deepest(MAX_DEPTH - 1))
