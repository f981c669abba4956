"""Publishing until the broker has it: what counts as a refusal, and what is mended on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import worker.broker.confirmed_publisher
from worker.broker import BrokerError, Closed, Properties, PublishRefused, PublishUncertain
from worker.broker.confirmed_publisher import Outbox, Sending


class FakeConnection:
    """A connection that lives until the test says otherwise."""

    is_open = True
    is_blocked = False

    async def closed(self) -> Closed:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        self.is_open = False


class FakeChannel:
    """A channel that answers publishes, and openings, from a script."""

    script: Iterator[Any]
    openings: Iterator[Any]
    opened = 0

    def __init__(self) -> None:
        self.is_open = True

    @classmethod
    async def open(cls, connection: FakeConnection) -> "FakeChannel":
        FakeChannel.opened += 1
        if (refusal := next(cls.openings, None)) is not None:
            raise refusal
        return cls()

    async def publish(self, *_: Any, **__: Any) -> bool:
        answer = next(self.script)
        if isinstance(answer, PublishRefused) and answer.channel_died:
            self.is_open = False
        if isinstance(answer, BrokerError):
            raise answer
        return bool(answer)


@pytest.fixture
async def outbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outbox]:
    monkeypatch.setattr(worker.broker.confirmed_publisher, "PublishChannel", FakeChannel)
    monkeypatch.setattr(worker.broker.confirmed_publisher, "RECONNECT_S", (0.001, 0.002))
    FakeChannel.openings, FakeChannel.opened = iter(()), 0

    async def connect() -> Any:
        return FakeConnection()

    outbox = Outbox(connect, name="test")
    yield outbox
    await outbox.close()


async def _publish(outbox: Outbox, script: list[Any], **how: Any) -> Sending:
    FakeChannel.script = iter(script)
    async with asyncio.timeout(5):
        return await outbox.publish("", "q", b"{}", Properties(), **how)


def _late() -> PublishUncertain:
    return PublishUncertain("no confirm", broke=False)


def _broken() -> PublishUncertain:
    return PublishUncertain("the connection broke", broke=True)


async def test_a_confirm_that_does_not_come_is_no_refusal_of_a_direct_reply(outbox: Outbox) -> None:
    """A hung broker or its memory alarm: whoever waits is told once it is over."""
    sent = await _publish(outbox, [_late()] * 6 + [True], mandatory=False, refusals=2)

    assert Sending.DELIVERED == sent


async def test_a_direct_reply_that_breaks_its_connection_each_time_is_given_up(outbox: Outbox) -> None:
    sent = await _publish(outbox, [_broken()] * 3, mandatory=False, refusals=2)

    assert Sending.REFUSED == sent


async def test_a_channel_that_somebody_elses_refusal_closed_is_no_refusal_of_ours(outbox: Outbox) -> None:
    died = PublishRefused("no such exchange", channel_died=True)

    assert Sending.DELIVERED == await _publish(outbox, [died, True], refusals=1)
    assert 2 == FakeChannel.opened


async def test_a_full_queue_is_asked_as_often_as_was_said(outbox: Outbox) -> None:
    full = PublishRefused("full?")

    assert Sending.DELIVERED == await _publish(outbox, [full, full, True], refusals=3)
    assert Sending.REFUSED == await _publish(outbox, [full, full, full], refusals=3)


async def test_a_queue_of_ours_that_is_gone_is_declared_again(outbox: Outbox) -> None:
    declared = 0

    async def declare(_: Any) -> None:
        nonlocal declared
        declared += 1

    outbox.declare = declare

    assert Sending.DELIVERED == await _publish(outbox, [False, False, True], must_route=True)
    assert 2 == declared


async def test_an_exchange_of_ours_that_is_gone_is_declared_again(outbox: Outbox) -> None:
    declared = asyncio.Event()

    async def declare(_: Any) -> None:
        declared.set()

    outbox.declare = declare
    gone = PublishRefused("no such exchange", channel_died=True)

    assert Sending.DELIVERED == await _publish(outbox, [gone, True], must_route=True)
    assert declared.is_set()


async def test_a_channel_that_cannot_be_opened_is_tried_again_at_leisure(outbox: Outbox) -> None:
    died = PublishRefused("no such exchange", channel_died=True)
    await _publish(outbox, [True])
    FakeChannel.openings = iter([BrokerError("not now")] * 1_000_000)
    publishing = asyncio.create_task(_publish(outbox, [died, True]))

    await asyncio.sleep(0.1)
    tries = FakeChannel.opened
    FakeChannel.openings = iter(())

    assert Sending.DELIVERED == await publishing
    assert tries < 1000
