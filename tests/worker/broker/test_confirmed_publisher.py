"""Publishing until the broker has it: what counts as a refusal, and what is repaired on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import worker.broker.confirmed_publisher
from worker.broker import BrokerError, Closed, Properties, PublishRefused, PublishUncertain, Refusal
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

    async def close(self) -> None:
        self.is_open = False

    async def publish(self, *_: Any, **__: Any) -> bool:
        answer = next(self.script)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return True
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


def _broken() -> PublishUncertain:
    return PublishUncertain("the connection broke")


async def test_a_late_confirm_is_waited_for_and_nothing_published_again(
    publisher: ConfirmedPublisher,
) -> None:
    """A hung broker or its memory alarm: a second copy would wait in the same socket."""
    confirmed = asyncio.Event()
    FakeChannel.script = iter([confirmed])
    publishing = asyncio.create_task(publisher.publish("", "q", b"{}", Properties(), refusals=1))
    while not publisher.is_open:
        await asyncio.sleep(0)

    confirmed.set()

    assert PublishOutcome.DELIVERED == await asyncio.wait_for(publishing, 5)
    assert not list(FakeChannel.script)


async def test_nothing_is_published_while_the_broker_blocks_publishers(
    publisher: ConfirmedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(publisher, [True])
    monkeypatch.setattr(FakeConnection, "is_blocked", True)
    publisher.flowing.clear()
    FakeChannel.script = iter([True])
    publishing = asyncio.create_task(publisher.publish("", "q", b"{}", Properties()))
    await asyncio.sleep(0.01)

    assert not publishing.done()
    assert "alarm" in (publisher.fault or "")
    monkeypatch.setattr(FakeConnection, "is_blocked", False)
    publisher.flowing.set()
    assert PublishOutcome.DELIVERED == await asyncio.wait_for(publishing, 5)


async def test_a_refusal_that_is_final_is_asked_once_more_alone(publisher: ConfirmedPublisher) -> None:
    large = PublishRefused("larger than", Refusal.TOO_LARGE)
    forged = PublishRefused("user_id", Refusal.INVALID)

    assert PublishOutcome.TOO_LARGE == await _publish(publisher, [large, large], refusals=3)
    assert PublishOutcome.REFUSED == await _publish(publisher, [forged], refusals=3)


async def test_a_job_that_is_refused_for_good_is_kept_and_named(publisher: ConfirmedPublisher) -> None:
    forged = PublishRefused("user_id of somebody", Refusal.INVALID)
    later = asyncio.Event()
    FakeChannel.script = iter([forged, forged, forged, later])
    publishing = asyncio.create_task(publisher.publish("x", "q", b"{}", Properties(), must_route=True))
    while list(getattr(publisher, "_refused")) == [] or publisher.fault is None:  # noqa: B009
        await asyncio.sleep(0)

    assert "user_id of somebody" in (publisher.fault or "")
    later.set()
    assert PublishOutcome.DELIVERED == await asyncio.wait_for(publishing, 5)
    assert publisher.fault is None


async def test_a_direct_reply_that_breaks_its_connection_each_time_is_given_up(
    publisher: ConfirmedPublisher,
) -> None:
    sent = await _publish(publisher, [_broken()] * 3, mandatory=False, refusals=2)

    assert PublishOutcome.REFUSED == sent


async def test_a_channel_closed_by_another_refusal_is_no_refusal_of_ours(
    publisher: ConfirmedPublisher,
) -> None:
    died = PublishRefused("no such exchange", Refusal.MISSING)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [died, True], refusals=1)
    assert 2 == FakeChannel.opened  # one that all share, one of its own


async def test_a_full_queue_is_asked_as_often_as_was_said(publisher: ConfirmedPublisher) -> None:
    full = PublishRefused("full?", Refusal.FULL)

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
    gone = PublishRefused("no such exchange", Refusal.MISSING)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [gone, gone, True], must_route=True)
    assert declared.is_set()


async def test_a_channel_that_cannot_be_opened_is_tried_again_at_leisure(
    publisher: ConfirmedPublisher,
) -> None:
    died = PublishRefused("no such exchange", Refusal.MISSING)
    await _publish(publisher, [True])
    FakeChannel.openings = iter([BrokerError("not now")] * 1_000_000)
    publishing = asyncio.create_task(_publish(publisher, [died, True]))

    await asyncio.sleep(0.1)
    tries = FakeChannel.opened
    FakeChannel.openings = iter(())

    assert PublishOutcome.DELIVERED == await publishing
    assert tries < 1000
