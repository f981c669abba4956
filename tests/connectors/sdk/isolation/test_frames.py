"""Frames carry JSON alone, and nothing that the other side sends is believed unread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.errors import ConnectorError, CredentialInvalid, RateLimited, Sent
from connectors.sdk.isolation.frames import (
    LENGTH_BYTES,
    MAX_FRAME_BYTES,
    BadFrame,
    decode,
    encode,
    error_as_json,
    error_of,
    length_of,
)
from schemas.error import Code, Detail

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1), st.lists(_VALUES, max_size=3))
def test_a_frame_is_read_as_it_was_written(kind: str, values: list[object]) -> None:
    data = encode(kind, *values)

    assert length_of(data[:LENGTH_BYTES]) == len(data) - LENGTH_BYTES
    assert [kind, *values] == decode(data[LENGTH_BYTES:])


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        assert isinstance(decode(data)[0], str)
    except BadFrame:
        pass


def test_a_frame_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(BadFrame):
        length_of((MAX_FRAME_BYTES + 1).to_bytes(LENGTH_BYTES, "big"))
    with pytest.raises(BadFrame):
        encode("end", "x" * MAX_FRAME_BYTES)


@pytest.mark.parametrize(
    "error",
    [
        CredentialInvalid(
            "it is refused", details=[Detail(field="key", issue="is refused")], sent=Sent.ANSWERED
        ),
        RateLimited("wait", retry_after_s=2.5),
        ConnectorError("too large", code=Code.RESULT_TOO_LARGE, data={"size": 1}),
    ],
)
def test_an_error_is_read_as_it_was_written(error: ConnectorError) -> None:
    read = error_of(error_as_json(error))

    assert type(error) is type(read)
    assert error_as_json(error) == error_as_json(read)


@given(st.dictionaries(st.text(), _VALUES))
def test_an_error_that_is_none_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadFrame):
        error_of(fields)
