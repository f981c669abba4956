"""Frames and content headers beside pamqp's, both ways."""

import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, frame, header
from pamqp.exceptions import PAMQPException

from tests.support.frames import BAD_FRAMES
from worker.broker import Properties
from worker.broker.wire import frames
from worker.broker.wire.content import HEADER_SIZE, body_size, read_properties, write_properties

SHORT = st.text(max_size=60)
EXCHANGES = st.text("abcXYZ019-_.:", max_size=60)
SOME = st.none() | st.text(min_size=1, max_size=60)
DATES = st.integers(86_400, 4_102_444_800).map(lambda at: datetime.fromtimestamp(at, tz=UTC))
HEADERS = st.dictionaries(
    st.text(max_size=20), st.text(max_size=20) | st.integers(-(2**31), 2**31), max_size=3
)
PROPERTIES = st.builds(Properties, SOME, SOME, SOME, SOME, SOME, SOME, SOME, DATES, HEADERS)


def payload(data: bytes) -> bytes:
    """What is in a frame."""
    return data[frames.FRAME_SIZE : -1]


def theirs(properties: Properties) -> commands.Basic.Properties:
    """The properties as the client's classes hold them."""
    return commands.Basic.Properties(
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        message_type=properties.type,
        user_id=properties.user_id,
        timestamp=properties.timestamp,
        headers=dict(properties.headers) or None,
        delivery_mode=2,
    )


@settings(max_examples=200)
@given(PROPERTIES, st.integers(0, 2**40))
def test_properties_are_written_byte_for_byte_as_the_client_does(properties: Properties, size: int) -> None:
    ours = write_properties(properties, size)

    assert payload(frame.marshal(header.ContentHeader(0, size, theirs(properties)), 1)) == ours
    assert size == body_size(ours)


@settings(max_examples=200)
@given(PROPERTIES)
def test_properties_that_the_client_wrote_are_read(properties: Properties) -> None:
    written = payload(frame.marshal(header.ContentHeader(0, 1, theirs(properties)), 1))

    assert (properties, None) == read_properties(written)


@settings(max_examples=200)
@given(st.integers(0, 2**16 - 1), st.binary(max_size=200))
def test_any_bytes_are_properties_with_or_without_a_fault(flags: int, raw: bytes) -> None:
    written = struct.pack(">HHQH", 60, 0, 0, flags & ~1) + raw
    properties, fault = read_properties(written)

    if fault is None:
        with suppress(PAMQPException, OverflowError):  # a date that is none
            content: Any = frame.unmarshal(struct.pack(">BHI", 2, 1, len(written)) + written + b"\xce")[2]
            found = content.properties
            assert (found.correlation_id or None, found.reply_to or None) == (
                properties.correlation_id,
                properties.reply_to,
            )


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_an_undecodable_message_keeps_what_can_be_read(name: str) -> None:
    flags, raw = BAD_FRAMES[name]
    tail = b"" if flags & 0b1110000000 else b"\x05reply"  # what comes after it, where nothing else does
    flags |= 1 << 9 if tail else 0

    properties, fault = read_properties(struct.pack(">HHQH", 60, 0, 0, flags) + raw + tail)

    assert fault is not None
    assert (None if not tail or "correlation" in name else "reply") == properties.reply_to


def test_a_correlation_id_that_cannot_be_read_leaves_no_one_to_reply_to() -> None:
    flags = 1 << 10 | 1 << 9

    properties, fault = read_properties(struct.pack(">HHQH", 60, 0, 0, flags) + b"\x01\xff\x05reply")

    assert "correlation_id is not UTF-8" == fault
    assert properties.reply_to is None


def test_a_property_too_long_for_the_wire_is_named() -> None:
    with pytest.raises(ValueError, match="correlation_id has 256 bytes"):
        write_properties(Properties(correlation_id="x" * 256), 0)


@given(st.integers(1, 2**16 - 1), st.integers(0, 2**63 - 1), st.booleans())
def test_acks_and_rejects_are_the_clients(channel: int, tag: int, multiple: bool) -> None:
    assert frame.marshal(commands.Basic.Ack(tag, multiple), channel) == frames.ack_frame(
        channel, tag, multiple=multiple
    )
    assert frame.marshal(commands.Basic.Reject(tag, True), channel) == frames.reject_frame(channel, tag)
    assert frame.marshal(commands.Channel.CloseOk(), channel) == frames.close_ok_frame(channel)


@settings(max_examples=200)
@given(EXCHANGES, SHORT, st.booleans(), st.binary(max_size=300), st.integers(20, 120))
def test_a_message_is_split_into_frames_that_the_client_reads(
    exchange: str, key: str, mandatory: bool, body: bytes, frame_max: int
) -> None:
    properties = Properties(correlation_id="c", timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    written = write_properties(properties, len(body))

    data = frames.publish_frames(7, exchange, key, written, body, mandatory=mandatory, frame_max=frame_max)
    found = []
    while data:
        consumed, channel, each = frame.unmarshal(data)
        assert 7 == channel
        found.append(each)
        data = data[consumed:]

    publish: Any = found[0]
    assert (exchange, key, mandatory) == (publish.exchange, publish.routing_key, publish.mandatory)
    content: Any = found[1]
    assert ("c", len(body)) == (content.properties.correlation_id, content.body_size)
    pieces: Any = found[2:]
    assert body == b"".join(piece.value for piece in pieces)
    assert all(len(piece.value) <= frame_max - 8 for piece in pieces)


@given(SHORT, st.integers(0, 2**63 - 1), st.booleans(), EXCHANGES, SHORT)
def test_deliveries_that_the_client_wrote_are_read(
    tag: str, number: int, redelivered: bool, exchange: str, key: str
) -> None:
    deliver = commands.Basic.Deliver(tag, number, redelivered, exchange, key)
    got = commands.Basic.GetOk(number, redelivered, exchange, key, 3)
    returned = commands.Basic.Return(312, tag, exchange, key)

    assert (number, redelivered, key) == frames.read_deliver(payload(frame.marshal(deliver, 1)))
    assert (number, redelivered, key) == frames.read_get_ok(payload(frame.marshal(got, 1)))
    assert (exchange, key) == frames.read_return(payload(frame.marshal(returned, 1)))


@given(st.integers(200, 599), SHORT, st.integers(0, 2**63 - 1), st.booleans())
def test_ends_and_confirms_that_the_client_wrote_are_read(
    code: int, text: str, tag: int, multiple: bool
) -> None:
    closed = commands.Channel.Close(code, text, 0, 0)
    nack = commands.Basic.Nack(tag, multiple, False)

    assert (code, text) == frames.read_close(payload(frame.marshal(closed, 1)))
    assert (tag, multiple) == frames.read_confirm(payload(frame.marshal(nack, 1)), 0)


def test_a_routing_key_that_is_not_utf_8_survives_being_written_again() -> None:
    method = b"\0\0\0\0" + b"\0" + bytes(9) + b"\0" + b"\x02\xff."

    key = frames.read_deliver(method)[2]
    data = frames.publish_frames(1, "", key, b"", b"", mandatory=False, frame_max=100)

    assert b"\x02\xff." in data


def test_the_size_of_a_content_header_is_the_specifications() -> None:
    assert 14 == HEADER_SIZE
