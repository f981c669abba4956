"""Confirms, returns and refusals, each for the message that it is about."""

import asyncio
from typing import Any

import pytest
from pamqp import body, commands, header

from tests.support.fake_wire import FakeWire
from worker.broker import BrokerRefusal, Properties, PublishChannel, PublishRefused, PublishUncertain


async def publish(channel: PublishChannel, *names: str, key: str = "callers") -> "list[asyncio.Task[bool]]":
    """Publish messages of one address, told apart by their correlation ids."""
    found = [
        asyncio.create_task(channel.publish("", key, b"x", Properties(correlation_id=name), timeout_s=None))
        for name in names
    ]
    await asyncio.sleep(0)
    return found


def returned(name: str, key: str = "callers") -> list[Any]:
    """What the broker sends back."""
    content = header.ContentHeader(0, 1, commands.Basic.Properties(correlation_id=name))
    return [commands.Basic.Return(312, "NO_ROUTE", "", key), content, body.ContentBody(b"x")]


async def test_confirms_are_counted_one_by_one_and_many_at_once() -> None:
    wire = FakeWire()
    sent = await publish(PublishChannel(wire.channel), "a", "b", "c", "d")

    wire.come(commands.Basic.Ack(3), commands.Basic.Ack(2, True), commands.Basic.Nack(4))

    assert [True, True, True] == await asyncio.gather(*sent[:3])
    with pytest.raises(PublishRefused, match="full") as full:
        await sent[3]
    assert full.value.refusal is BrokerRefusal.FULL


async def test_a_returned_message_is_the_one_that_was_not_routed() -> None:
    wire = FakeWire()
    sent = await publish(PublishChannel(wire.channel), "a", "b", "c")

    wire.come(*returned("b"), commands.Basic.Ack(3, True))

    assert [True, False, True] == await asyncio.gather(*sent)


async def test_two_copies_that_return_are_both_returned() -> None:
    wire = FakeWire()
    sent = await publish(PublishChannel(wire.channel), "a", "a", "b")

    wire.come(*returned("a"), *returned("a"), commands.Basic.Ack(3, True))

    assert [False, False, True] == await asyncio.gather(*sent)


@pytest.mark.parametrize(
    ("code", "text", "refusal"),
    [
        (403, "ACCESS_REFUSED - no", BrokerRefusal.FORBIDDEN),
        (404, "NOT_FOUND - no exchange", BrokerRefusal.MISSING),
        (406, "PRECONDITION_FAILED - user_id", BrokerRefusal.INVALID),
        (406, "message size 9 is larger than configured max size 8", BrokerRefusal.TOO_LARGE),
    ],
)
async def test_a_refusal_that_closes_the_channel_says_why(
    code: int, text: str, refusal: BrokerRefusal
) -> None:
    wire = FakeWire()
    channel = PublishChannel(wire.channel)
    (sent,) = await publish(channel, "a")

    wire.come(commands.Channel.Close(code, text, 60, 40))

    with pytest.raises(PublishRefused, match=text) as refused:
        await sent
    assert refusal is refused.value.refusal
    assert not channel.is_open


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_lost_connection_leaves_it_uncertain(moment: str) -> None:
    wire = FakeWire()
    channel = PublishChannel(wire.channel)
    if moment == "before":
        wire.socket.pause_writing()
    (sent,) = await publish(channel, "a")

    wire.socket.connection_lost(ConnectionResetError("reset by peer"))

    with pytest.raises(PublishUncertain, match="closed before" if moment == "before" else "reset by peer"):
        await sent


async def test_headers_that_fit_no_frame_are_refused_and_end_nothing() -> None:
    wire = FakeWire()
    channel = PublishChannel(wire.channel)

    with pytest.raises(PublishRefused, match="its headers have") as refused:
        await channel.publish("", "k", b"", Properties(headers={"h": "x" * 5000}))

    assert refused.value.refusal is BrokerRefusal.TOO_LARGE
    assert channel.is_open


async def test_a_property_that_cannot_be_written_is_refused_and_ends_nothing() -> None:
    wire = FakeWire()
    channel = PublishChannel(wire.channel)

    with pytest.raises(PublishRefused, match="correlation_id has 300 bytes") as refused:
        await channel.publish("", "k", b"", Properties(correlation_id="x" * 300))

    assert refused.value.refusal is BrokerRefusal.INVALID
    assert [] == await wire.written()


async def test_a_publish_with_a_timeout_does_not_wait_for_ever() -> None:
    channel = PublishChannel(FakeWire().channel)

    with pytest.raises(PublishUncertain, match=r"no confirm in 0\.01 s"):
        await channel.publish("", "k", b"", Properties(), timeout_s=0.01)
