"""One channel of ours: asked and answered, settled, ended."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from tests.support.fake_wire import FakeWire
from worker.broker.wire.channel import ChannelClosed


@settings(max_examples=200)
@given(st.permutations(range(1, 9)), st.sets(st.integers(1, 8)), st.lists(st.integers(1, 4), max_size=8))
async def test_each_delivery_is_settled_once_however_acks_are_joined(
    order: list[int], rejected: set[int], turns: list[int]
) -> None:
    wire = FakeWire()
    for each_tag in range(1, 9):
        wire.channel.hold(each_tag, 1)
    open_at_broker, settled, sizes = set(range(1, 9)), [], iter(turns)
    left = next(sizes, 99)
    for tag in [*order, 0]:
        if tag:
            assert wire.channel.reject(tag) if tag in rejected else wire.channel.ack(tag)
            left -= 1
            if left > 0:
                continue
            left = next(sizes, 99)
        for each in await wire.written():
            multiple = isinstance(each, commands.Basic.Ack) and each.multiple
            tags = [
                one
                for one in sorted(open_at_broker)
                if one == each.delivery_tag or (multiple and one < each.delivery_tag)
            ]
            assert each.delivery_tag in tags, "settled twice: the broker would close the channel"
            is_reject = isinstance(each, commands.Basic.Reject)
            assert all((one in rejected) == is_reject for one in tags)
            open_at_broker -= set(tags)
            settled += tags

    assert [*range(1, 9)] == sorted(settled)
    assert 0 == wire.channel.unsettled


async def test_acks_of_one_turn_are_one_frame_if_none_is_missing_before_them() -> None:
    wire = FakeWire()
    for tag in (1, 2, 3, 4):
        wire.channel.hold(tag, 1)

    for tag in (3, 1, 2):
        wire.channel.ack(tag)

    (ack,) = await wire.written()
    assert (3, True) == (ack.delivery_tag, ack.multiple)


async def test_a_second_ack_and_one_of_another_channel_are_not_sent() -> None:
    wire = FakeWire()
    wire.channel.hold(1, 1)

    assert wire.channel.ack(1)
    assert not wire.channel.ack(1)
    assert not wire.channel.ack(2)
    assert 1 == len(await wire.written())
    assert not wire.channel.ack(1)
    assert not wire.channel.reject(1)

    assert [] == await wire.written()


async def test_a_closed_channel_sends_its_last_acks_and_no_others() -> None:
    wire = FakeWire()
    wire.channel.hold(1, 1)
    wire.channel.hold(2, 1)
    wire.channel.ack(1)

    closing = asyncio.create_task(wire.channel.close())
    await asyncio.sleep(0)

    assert not wire.channel.ack(2)
    assert ["Basic.Ack", "Channel.Close"] == [each.name for each in await wire.written()]
    wire.come(commands.Channel.CloseOk())
    await closing


async def test_a_channel_that_the_broker_closed_says_why_and_sends_close_ok_last() -> None:
    wire = FakeWire()
    wire.channel.hold(1, 1)
    asking = asyncio.create_task(wire.channel.ask(commands.Basic.Consume(queue="q")))
    await asyncio.sleep(0)
    await wire.written()
    wire.channel.ack(1)

    wire.come(commands.Channel.Close(403, "ACCESS_REFUSED - no", 60, 20))

    with pytest.raises(ChannelClosed, match="ACCESS_REFUSED") as refused:
        await asking
    assert 403 == refused.value.code
    assert ["Channel.CloseOk"] == [each.name for each in await wire.written()]
    with pytest.raises(ChannelClosed):
        await wire.channel.ask(commands.Basic.Qos())


async def test_answers_go_to_who_asked_also_after_one_gave_up() -> None:
    wire = FakeWire()
    first = asyncio.create_task(wire.channel.ask(commands.Basic.Qos()))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(wire.channel.ask(commands.Basic.Consume(queue="q")))
    await asyncio.sleep(0)

    wire.come(commands.Basic.QosOk(), commands.Basic.ConsumeOk("t"))

    assert "t" == (await second).consumer_tag
