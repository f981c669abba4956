"""Publishing until the broker has it: what counts as a refusal, and what is repaired on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.broker import BrokerError, BrokerRefusal, Closed, Properties, PublishRefused, PublishUncertain
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome
from worker.broker.reconnect import ReconnectPolicy

QUICK = ReconnectPolicy(first_s=0.0001, most_s=0.002)


class FakeChannel:
    """A channel that answers publishes, and openings, from a script."""

    script: Iterator[Any]
    openings: Iterator[Any]
    opened = 0

    def __init__(self) -> None:
        self.is_open = True

    @classmethod
    async def open(cls) -> "FakeChannel":
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


class FakeConnection:
    """A connection that lives until the test says otherwise."""

    is_open = True
    is_blocked = False

    async def closed(self) -> Closed:
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        self.is_open = False

    async def publish_channel(self) -> FakeChannel:
        return await FakeChannel.open()


@pytest.fixture
async def publisher() -> AsyncIterator[ConfirmedPublisher]:
    FakeChannel.openings, FakeChannel.opened = iter(()), 0

    async def connect() -> Any:
        return FakeConnection()

    publisher = ConfirmedPublisher(connect, name="test", reconnect=QUICK)
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
    large = PublishRefused("larger than", BrokerRefusal.TOO_LARGE)
    forged = PublishRefused("user_id", BrokerRefusal.INVALID)

    assert PublishOutcome.TOO_LARGE == await _publish(publisher, [large, large], refusals=3)
    assert PublishOutcome.REFUSED == await _publish(publisher, [forged], refusals=3)


async def test_a_job_that_is_refused_for_good_is_kept_and_named(publisher: ConfirmedPublisher) -> None:
    forged = PublishRefused("user_id of somebody", BrokerRefusal.INVALID)
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
    died = PublishRefused("no such exchange", BrokerRefusal.MISSING)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [died, True], refusals=1)
    assert 2 == FakeChannel.opened  # one that all share, one of its own


EVENTS = {
    "confirmed": True,
    "broken": PublishUncertain("the connection broke"),
    **{each.value: PublishRefused(each.value, each) for each in BrokerRefusal},
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([name for name in EVENTS if name != "confirmed"]), max_size=6))
def test_a_job_is_published_again_after_a_fault_but_not_after_its_confirm(faults: list[str]) -> None:
    script = [EVENTS[name] for name in [*faults, "confirmed", "confirmed"]]

    outcome = asyncio.run(_published(script, must_route=True))

    assert (PublishOutcome.DELIVERED, 1) == outcome


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(EVENTS)), max_size=8), st.integers(1, 3))
def test_a_reply_ends_with_its_confirm_or_with_refusals_of_its_own(events: list[str], refusals: int) -> None:
    script = [EVENTS[name] for name in [*events, "confirmed"]]

    outcome, left = asyncio.run(_published(script, refusals=refusals))

    used = [*events, "confirmed"][: len(script) - left]
    assert (used[-1] == "confirmed") == (outcome is PublishOutcome.DELIVERED)
    assert "confirmed" not in used[:-1]
    # What closes a channel is somebody's; the message's own it is once it was published alone.
    own = [name for name in used if name not in {"confirmed", "broken"}]
    assert outcome is PublishOutcome.DELIVERED or len(own) >= min(2, refusals)


async def _published(script: list[Any], **how: Any) -> tuple[PublishOutcome, int]:
    """Publish by a script; return the outcome, and how much of the script is left."""

    async def connect() -> Any:
        return FakeConnection()

    FakeChannel.openings = iter(())
    publisher = ConfirmedPublisher(connect, name="test", reconnect=QUICK)
    outcome = await _publish(publisher, script, **how)
    await publisher.close()
    return outcome, len(list(FakeChannel.script))


async def test_a_full_queue_is_asked_as_often_as_was_said(publisher: ConfirmedPublisher) -> None:
    full = PublishRefused("full?", BrokerRefusal.FULL)

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
    gone = PublishRefused("no such exchange", BrokerRefusal.MISSING)

    assert PublishOutcome.DELIVERED == await _publish(publisher, [gone, gone, True], must_route=True)
    assert declared.is_set()


async def test_a_channel_that_cannot_be_opened_is_tried_again_at_leisure(
    publisher: ConfirmedPublisher,
) -> None:
    died = PublishRefused("no such exchange", BrokerRefusal.MISSING)
    await _publish(publisher, [True])
    FakeChannel.openings = iter([BrokerError("not now")] * 1_000_000)
    publishing = asyncio.create_task(_publish(publisher, [died, True]))

    await asyncio.sleep(0.1)
    tries = FakeChannel.opened
    FakeChannel.openings = iter(())

    assert PublishOutcome.DELIVERED == await publishing
    assert tries < 1000
