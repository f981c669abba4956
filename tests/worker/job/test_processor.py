"""A job's life from delivery to settle, with no broker: an outage by the clock, copies at the worst moment."""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest

import worker.job.processor
from connectors.registry import load
from schemas.job import Job
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import JobQueue
from worker.job.action_runner import HOLD_S
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.outcome import Attempt, Outcome, Snooze
from worker.job.processor import JobProcessor
from worker.metrics import Metrics

OUTAGE = timedelta(minutes=10)
BODY = b'{"id": "j1", "connector": "dummy", "action": "ping"}'


class Clock:
    """The wall clock of `worker.job.processor`."""

    time = datetime(2026, 11, 24, tzinfo=UTC)

    @classmethod
    def now(cls, _zone: tzinfo) -> datetime:
        return cls.time


class WaitingExecutor:
    """Holds each job as long as one may be held, until the vault is back."""

    is_stopping = False

    def __init__(self, outage: timedelta = OUTAGE) -> None:
        self.back_at = Clock.time + outage
        self.attempts: list[Attempt] = []

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        if Clock.time < self.back_at:
            Clock.time = min(Clock.time + timedelta(seconds=HOLD_S), self.back_at)
            if Clock.time < self.back_at:
                raise Snooze("the vault is sealed")
        return Outcome(data="pong", starts=attempt.starts + 1)


#: A connection that takes what is written.
CONNECTION = SimpleNamespace(write_queue=SimpleNamespace(full=lambda: False))


QUEUE = JobQueue("queue", "dummy")


class Rungs:
    """A publisher whose rungs bring a job back when it is due."""

    def __init__(self) -> None:
        self.delivery: Delivery | None = _delivery()
        self.told: list[Any] = []
        self.parked = 0

    def refusal_of(self, _reply_to: str | None) -> None:
        return None

    async def wait(self, _delivery_: Delivery, history: Any, now: datetime) -> None:
        Clock.time = max(now, history.not_before)
        self.delivery = _delivery(history.headers())

    async def reply(self, _delivery_: Delivery, _history: Any, result: Any) -> PublishOutcome:
        self.told.append(result)
        return PublishOutcome.DELIVERED

    async def park(self, *_: Any, **__: Any) -> None:
        self.parked += 1


def _delivery(headers: dict[str, Any] | None = None) -> Delivery:
    async def settle(*_: Any, **__: Any) -> None:
        """Nobody looks."""

    channel: Any = SimpleNamespace(
        is_closed=False, connection=CONNECTION, basic_ack=settle, basic_nack=settle
    )
    properties = Properties(reply_to="callers", correlation_id="c", user_id="us", headers=headers or {})
    return Delivery(BODY, "dummy.ping", properties, False, 0, 1, channel)


def _processor(executor: Any, publisher: Any) -> JobProcessor:
    registry, metrics = load(("dummy",)), Metrics(version="0")
    metrics.add_connector("dummy", registry.connectors["dummy"].actions)
    metrics.add_queue("queue", 1)
    return JobProcessor(
        executor,
        publisher,
        registry,
        metrics,
        limiters={QUEUE: ConcurrencyLimiter(1)},
        trusted_users=["us"],
        max_attempts=2,
        max_body_bytes=1000,
    )


async def test_a_ten_minute_outage_uses_up_no_attempt_and_parks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker.job.processor, "datetime", Clock)
    executor, rungs = WaitingExecutor(), Rungs()
    began = Clock.time
    processor = _processor(executor, rungs)

    while not rungs.told:
        assert rungs.delivery is not None
        delivery, rungs.delivery = rungs.delivery, None
        processor.receive(QUEUE, delivery)
        while processor.in_flight:
            await asyncio.sleep(0)

    assert Clock.time - began >= OUTAGE
    assert 0 == rungs.parked
    assert {0} == {attempt.starts for attempt in executor.attempts}
    assert len(executor.attempts) > 5
    assert [("pong", 1)] == [(result.data, result.attempts) for result in rungs.told]


@pytest.mark.parametrize("moment", ["while it is acked", "right after"])
async def test_a_copy_that_comes_as_the_first_is_settled_is_settled_too(moment: str) -> None:
    """Else it is unsettled for ever, and a queue that takes one at a time stands still."""
    processor = _processor(WaitingExecutor(timedelta()), Rungs())
    acked: list[int] = []

    def delivery(number: int) -> Delivery:
        channel = SimpleNamespace(is_closed=False, connection=CONNECTION)

        def lose() -> None:
            channel.is_closed = True
            processor.receive(QUEUE, delivery(2))

        async def ack(*_: Any, **__: Any) -> None:
            acked.append(number)
            if number == 1 and moment == "right after":
                asyncio.get_running_loop().call_soon(lose)
            elif number == 1:
                lose()

        channel.basic_ack = ack
        properties = Properties(reply_to="callers", correlation_id="c")
        return Delivery(BODY, "dummy.ping", properties, number > 1, 0, number, channel)  # type: ignore[arg-type]

    processor.receive(QUEUE, delivery(1))
    async with asyncio.timeout(5):
        while processor.in_flight or len(acked) < 2:
            await asyncio.sleep(0)

    assert [1, 2] == acked
