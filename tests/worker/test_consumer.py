"""Which delivery is settled, when a message comes again while it is in hand."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, cast

from connectors.registry import Registry
from worker.broker import Delivery, Properties
from worker.consumer import Consumer
from worker.executor import Executor
from worker.lane import Lane
from worker.limits import Slots
from worker.metrics import Metrics
from worker.outbox import Sending
from worker.outcome import Outcome
from worker.publisher import Publisher

BODY = json.dumps({"id": "job-1", "connector": "dummy", "action": "ping"}).encode()


@dataclass(eq=False)
class FakeDelivery:
    """A delivery whose ack takes as long as the test wants."""

    redelivered: bool = False
    is_stale: bool = False
    acks: int = 0
    may_ack: asyncio.Event = field(default_factory=asyncio.Event)
    acking: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes = BODY
    routing_key: str = "dummy.ping"
    properties: Properties = field(default_factory=lambda: Properties(reply_to="replies", correlation_id="c"))
    returns: int = 0

    async def ack(self) -> bool:
        self.acking.set()
        await self.may_ack.wait()
        self.acks += 1
        return not self.is_stale


class FakePublisher:
    def refusal_of(self, _reply_to: str | None) -> None:
        return None

    async def reply(self, *_: Any) -> Sending:
        return Sending.DELIVERED


class FakeExecutor:
    is_stopping = False

    def __init__(self) -> None:
        self.calls = 0

    def stop_waiting(self) -> None:
        """Nothing waits here."""

    async def execute(self, *_: Any) -> Outcome:
        self.calls += 1
        return Outcome(data="pong", starts=1)


class FakeLane:
    queue = "connectors.jobs.dummy"
    connector = "dummy"
    bulk = False

    def __init__(self) -> None:
        self.slots = Slots(2)


def consumer_of(executor: FakeExecutor) -> Consumer:
    return Consumer(
        cast(Executor, executor),
        cast(Publisher, FakePublisher()),
        Registry(),
        Metrics(version="test"),
        trusted_users=(),
        max_attempts=5,
        max_body_bytes=1024,
    )


def take(consumer: Consumer, lane: FakeLane, delivery: FakeDelivery) -> None:
    consumer.take(cast(Lane, lane), cast(Delivery, delivery))


async def test_a_redelivery_that_comes_while_the_old_one_is_acked_is_acked_too() -> None:
    executor = FakeExecutor()
    consumer, lane = consumer_of(executor), FakeLane()
    old, new = FakeDelivery(), FakeDelivery(redelivered=True)
    new.may_ack.set()

    take(consumer, lane, old)
    await old.acking.wait()
    old.is_stale = True  # its channel died under the ack
    take(consumer, lane, new)
    old.may_ack.set()
    await consumer.drain(5)

    assert 1 == new.acks
    assert 1 == executor.calls


async def test_a_redelivery_that_comes_right_after_the_end_is_run_and_acked() -> None:
    executor = FakeExecutor()
    consumer, lane = consumer_of(executor), FakeLane()
    old, new = FakeDelivery(is_stale=True), FakeDelivery(redelivered=True)
    old.may_ack.set()
    new.may_ack.set()

    take(consumer, lane, old)
    while not old.acks:
        await asyncio.sleep(0)
    take(consumer, lane, new)
    await consumer.drain(5)

    assert 1 == new.acks
