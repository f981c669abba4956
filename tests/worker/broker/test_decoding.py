"""Timestamps that are no date: absent, never the end of a connection."""

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import decode

import worker.broker  # noqa: F401  # changes how timestamps are decoded

NOW_S = 1_795_651_200


@settings(max_examples=200)
@given(st.integers(0, 2**64 - 1))
def test_every_timestamp_is_a_date_or_absent(value: int) -> None:
    raw = struct.pack(">Q", value)

    of_property = decode.by_type(raw, "timestamp")
    in_header = decode.embedded_value(b"T" + raw)

    assert 8 == of_property[0]
    assert 9 == in_header[0]
    assert of_property[1] == in_header[1]
    assert of_property[1] is None or isinstance(of_property[1], datetime)


@pytest.mark.parametrize(("unit", "value"), [("s", NOW_S), ("ms", NOW_S * 1000)])
def test_seconds_and_milliseconds_are_read(unit: str, value: int) -> None:
    assert (8, datetime.fromtimestamp(NOW_S, tz=UTC)) == decode.by_type(struct.pack(">Q", value), "timestamp")


@pytest.mark.parametrize("value", [NOW_S * 10**6, NOW_S * 10**9, 639_000_000_000_000_000])
def test_finer_units_are_absent(value: int) -> None:
    assert (8, None) == decode.by_type(struct.pack(">Q", value), "timestamp")


def test_a_timestamp_that_is_cut_off_is_still_an_error() -> None:
    with pytest.raises(ValueError, match="timestamp"):
        decode.by_type(b"\0\0", "timestamp")
