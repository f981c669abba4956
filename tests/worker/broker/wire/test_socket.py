"""One socket for two: frames cut whatever the pieces, ours to us, theirs to the client."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import body, commands, frame, header

from tests.support.fake_wire import NUMBER, FakeWire
from worker.broker.wire import socket
from worker.broker.wire.frames import HEARTBEAT_FRAME


def message(payload: bytes) -> list[Any]:
    """A delivery as the broker sends it."""
    properties = commands.Basic.Properties(correlation_id="c")
    content = header.ContentHeader(0, len(payload), properties)
    return [commands.Basic.Deliver("tag", 1, False, "", "key"), content, body.ContentBody(payload)]


@settings(max_examples=100)
@given(st.lists(st.integers(1, 400), max_size=30), st.binary(min_size=1, max_size=100))
async def test_frames_are_the_same_in_whatever_pieces_they_come(cuts: list[int], payload: bytes) -> None:
    wire, came = FakeWire(), []
    wire.channel.on_content = lambda *content: came.append(content[3])
    theirs = frame.marshal(commands.Basic.Ack(1), 1) + frame.marshal(commands.Basic.Ack(2), 1)
    ours = b"".join(frame.marshal(each, NUMBER) for each in message(payload))
    stream = theirs + ours + theirs + ours

    for cut in cuts:
        piece, stream = stream[:cut], stream[cut:]
        if piece:
            wire.socket.data_received(piece)
    wire.socket.data_received(stream)
    wire.reader.feed_eof()

    assert [payload, payload] == came
    assert theirs + theirs == (await wire.reader.read()).replace(HEARTBEAT_FRAME, b"")


async def test_what_is_no_frame_is_left_to_the_client() -> None:
    for garbage in (b"AMQP\x00\x00\x09\x01", b"\x01\x00\x01\x00\x00\x00\x01xx----"):
        wire = FakeWire()

        wire.socket.data_received(garbage)
        wire.reader.feed_eof()

        assert garbage == await wire.reader.read()


async def test_a_piece_of_a_frame_before_the_end_is_shown_to_the_client() -> None:
    wire = FakeWire()

    wire.socket.data_received(b"\x01\x00\x00\x00")
    wire.socket.eof_received()

    assert b"\x01\x00\x00\x00" == await wire.reader.read()


async def test_while_only_ours_come_the_client_sees_a_heartbeat() -> None:
    wire = FakeWire()

    wire.come(*message(b"x"))
    wire.come(*message(b"x"))

    wire.reader.feed_eof()
    assert HEARTBEAT_FRAME == await wire.reader.read(), "one, and not one for each"


async def test_what_is_sent_in_one_turn_is_one_write() -> None:
    wire = FakeWire()

    for number in range(5):
        wire.socket.send(b"%d" % number)
    await asyncio.sleep(0)

    assert [b"01234"] == wire.transport.writes


async def test_too_many_bytes_in_flight_stop_the_reading_until_half_is_settled() -> None:
    wire = FakeWire()
    wire.channel.hold(1, socket.MOST_IN_FLIGHT // 2)
    assert wire.is_read()
    wire.channel.hold(2, socket.MOST_IN_FLIGHT // 2 + 1)
    assert not wire.is_read()

    wire.channel.ack(1)
    assert not wire.is_read(), "half and one byte are still in flight"
    wire.channel.reject(2)

    assert wire.is_read()
    wire.reader.feed_eof()
    assert HEARTBEAT_FRAME == await wire.reader.read(), "the client took no one for dead"


async def test_what_a_dead_channel_held_is_in_flight_no_more() -> None:
    wire = FakeWire()
    wire.channel.hold(1, socket.MOST_IN_FLIGHT + 1)
    assert not wire.is_read()

    wire.come(commands.Channel.Close(406, "PRECONDITION_FAILED", 60, 80))

    assert wire.is_read()


async def test_an_alarm_and_a_full_buffer_each_hold_publishes_back() -> None:
    wire = FakeWire()

    wire.come(commands.Connection.Blocked("low on memory"), channel=0)
    assert wire.socket.is_blocked
    assert not wire.socket.may_publish.is_set()
    wire.come(commands.Connection.Unblocked(), channel=0)
    assert wire.socket.may_publish.is_set()
    wire.socket.pause_writing()
    assert not wire.socket.may_publish.is_set()
    wire.socket.resume_writing()

    assert wire.socket.may_publish.is_set()


async def test_the_brokers_goodbye_ends_our_channels_before_the_socket_goes() -> None:
    wire = FakeWire()
    wire.socket.pause_writing()

    wire.come(commands.Connection.Close(320, "CONNECTION_FORCED - by an operator", 0, 0), channel=0)

    assert wire.channel.is_closed
    assert "CONNECTION_FORCED - by an operator" == str(wire.channel.ended.result())
    assert wire.socket.may_publish.is_set(), "who waits to publish learns of it"
