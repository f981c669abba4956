"""Publishing until the broker has it: what counts as a refusal, and what is repaired on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import worker.broker.confirmed_publisher
from worker.broker import BrokerError, Closed, Properties, PublishRefused, PublishUncertain
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome


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
async def publisher(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConfirmedPublisher]:
    monkeypatch.setattr(worker.broker.confirmed_publisher, "PublishChannel", FakeChannel)
    monkeypatch.setattr(worker.broker.confirmed_publisher, "RECONNECT_S", (0.001, 0.002))
    FakeChannel.openings, FakeChannel.opened = iter(()), 0

    async def connect() -> Any:
        return FakeConnection()

    publisher = ConfirmedPublisher(connect, name="test")
    yield publisher
    await publisher.close()


async def _publish(publisher: ConfirmedPublisher, script: list[Any], **how: Any) -> PublishOutcome:
    FakeChannel.script = iter(script)
    async with asyncio.timeout(5):
        return await publisher.publish("", "q", b"{}", Properties(), **how)


def _late() -> PublishUncertain:
    return PublishUncertain("no confirm", broke=False)


def _broken() -> PublishUncertain:
    return PublishUncertain("the connection broke", broke=True)


async def test_a_confirm_that_does_not_come_is_no_refusal_of_a_direct_reply(
    publisher: ConfirmedPublisher,
) -> None:
    """A hung broker or its memory alarm: whoever waits is told once it is over."""
    sent = await _publish(publisher, [_late()] * 6 + [True], mandatory=False, refusals=2)

    assert PublishOutcome.DELIVERED == sent


async def test_a_direct_reply_that_breaks_its_connection_each_time_is_given_up(
    publisher: ConfirmedPublisher,
) -> None:
    sent = await _publish(publisher, [_broken()] * 3, mandatory=False, refusals=2)

    assert PublishOutcome.REFUSED == sent


async def test_a_channel_that_somebody_elses_refusal_closed_is_no_refusal_of_ours(
    publisher: ConfirmedPublisher,
) -> None:
    died = PublishRefused("no such exchange", channel_died=True)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [died, True], refusals=1)
    assert 2 == FakeChannel.opened


async def test_a_full_queue_is_asked_as_often_as_was_said(publisher: ConfirmedPublisher) -> None:
    full = PublishRefused("full?")

    assert PublishOutcome.DELIVERED == await _publish(publisher, [full, full, True], refusals=3)
    assert PublishOutcome.REFUSED == await _publish(publisher, [full, full, full], refusals=3)


async def test_a_queue_of_ours_that_is_gone_is_declared_again(publisher: ConfirmedPublisher) -> None:
    declared = 0

    async def declare(_: Any) -> None:
        nonlocal declared
        declared += 1

    publisher.declare = declare

    assert PublishOutcome.DELIVERED == await _publish(publisher, [False, False, True], must_route=True)
    assert 2 == declared


async def test_an_exchange_of_ours_that_is_gone_is_declared_again(publisher: ConfirmedPublisher) -> None:
    declared = asyncio.Event()

    async def declare(_: Any) -> None:
        declared.set()

    publisher.declare = declare
    gone = PublishRefused("no such exchange", channel_died=True)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [gone, True], must_route=True)
    assert declared.is_set()


async def test_a_channel_that_cannot_be_opened_is_tried_again_at_leisure(
    publisher: ConfirmedPublisher,
) -> None:
    died = PublishRefused("no such exchange", channel_died=True)
    await _publish(publisher, [True])
    FakeChannel.openings = iter([BrokerError("not now")] * 1_000_000)
    publishing = asyncio.create_task(_publish(publisher, [died, True]))

    await asyncio.sleep(0.1)
    tries = FakeChannel.opened
    FakeChannel.openings = iter(())

    assert PublishOutcome.DELIVERED == await publishing
    assert tries < 1000
