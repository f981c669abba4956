"""A job's life from delivery to settle, with no broker: an outage by the clock, copies at the worst moment."""

import asyncio
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.registry import load
from connectors.sdk import ConnectorError, RateLimited, Timeout
from connectors.sdk.runtime.deadline import deadline_exceeded
from connectors.sdk.runtime.infrastructure import HoldPolicy
from connectors.sdk.runtime.outcome import Attempt, Outcome, Snooze
from connectors.sdk.testing import FakeClock
from schemas.error import Code
from schemas.job import Job
from schemas.result import Result
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import JobQueue
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.processor import JobProcessor
from worker.job.waiting_room import WaitingRoom
from worker.metrics import Metrics

OUTAGE = timedelta(minutes=10)
BODY = b'{"id": "j1", "connector": "dummy", "action": "ping"}'
QUEUE = JobQueue("queue", "dummy")
#: A connection that takes what is written.


class UnavailableVault:
    """An executor that holds each job as long as one may be held, until the vault is back."""

    is_stopping = False

    def __init__(self, clock: FakeClock, outage: timedelta = OUTAGE) -> None:
        self.clock = clock
        self.back_at = clock.now() + outage
        self.attempts: list[Attempt] = []

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        self.attempts.append(attempt)
        left_s = (self.back_at - self.clock.now()).total_seconds()
        if left_s > 0:
            self.clock.skip(min(HoldPolicy().hold_s, left_s))
            if left_s > HoldPolicy().hold_s:
                raise Snooze("the vault is sealed")
        return Outcome(data="pong", attempts=attempt.attempts + 1)


class Failing:
    """An executor whose every attempt ends the same way."""

    is_stopping = False

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        return self.outcome


class Queues:
    """A publisher whose retry queues bring a job back when it is due."""

    def __init__(self, clock: FakeClock, *, has_room: bool = True) -> None:
        self.clock = clock
        self.has_room = has_room
        self.delivery: Delivery | None = _delivery()
        self.replies: list[Result] = []
        self.dead_letters: list[Code] = []

    def refusal_of(self, _reply_to: str | None, _publisher: str | None) -> None:
        return None

    async def delay(self, _delivery_: Delivery, headers: JobHeaders, now: datetime) -> None:
        assert headers.not_before is not None
        self.clock.skip((headers.not_before - now).total_seconds())
        self.delivery = _delivery(headers.write())

    async def reply(self, _delivery_: Delivery, _headers: JobHeaders, result: Result) -> PublishOutcome:
        self.replies.append(result)
        return PublishOutcome.DELIVERED

    async def dead_letter(self, *_: Any, code: Code, **__: Any) -> bool:
        if self.has_room:
            self.dead_letters.append(code)
        return self.has_room


def _delivery(
    headers: dict[str, Any] | None = None, *, body: bytes = BODY, timestamp: datetime | None = None
) -> Delivery:
    channel = SimpleNamespace(is_closed=False, ack=lambda _tag: True, reject=lambda _tag: True)
    properties = Properties(
        reply_to="callers", correlation_id="c", user_id="us", headers=headers or {}, timestamp=timestamp
    )
    return Delivery(body, "dummy.ping", properties, False, 0, 1, channel)


def _processor(
    executor: Any, publisher: Any, clock: FakeClock, metrics: Metrics | None = None
) -> JobProcessor:
    registry, metrics = load(("dummy",)), metrics or Metrics(version="0")
    metrics.add_connector("dummy", registry.connectors["dummy"].actions)
    metrics.add_queue("queue", 1)
    return JobProcessor(
        executor,
        publisher,
        registry,
        metrics,
        rooms={QUEUE: WaitingRoom(ConcurrencyLimiter(1, clock=clock))},
        trusted_users=["us"],
        max_attempts=2,
        max_body_bytes=1000,
        clock=clock,
    )


async def _deliver(processor: JobProcessor, queues: Queues) -> None:
    """Let one delivery live its life."""
    assert queues.delivery is not None
    delivery, queues.delivery = queues.delivery, None
    processor.receive(QUEUE, delivery)
    while processor.in_flight:
        await asyncio.sleep(0)


async def test_a_ten_minute_outage_uses_up_no_attempt() -> None:
    clock = FakeClock()
    executor, queues, began = UnavailableVault(clock), Queues(clock), clock.now()
    processor = _processor(executor, queues, clock)

    while not queues.replies:
        await _deliver(processor, queues)

    assert clock.now() - began >= OUTAGE
    assert [] == queues.dead_letters
    assert {0} == {attempt.attempts for attempt in executor.attempts}
    assert len(executor.attempts) > 5
    assert [("pong", 1)] == [(result.data, result.attempts) for result in queues.replies]


async def test_an_uncertain_attempt_is_remembered_by_the_headers() -> None:
    clock = FakeClock()
    lost = Outcome(error=Timeout("no answer"), attempts=1, is_uncertain=True)
    queues = Queues(clock)

    await _deliver(_processor(Failing(lost), queues, clock), queues)

    assert queues.delivery is not None
    headers = JobHeaders.read(queues.delivery, trusted=["us"], now=clock.now())
    assert (True, 1, 1) == (headers.is_uncertain, headers.attempts, headers.failures)


async def test_what_a_run_left_behind_is_named_at_the_deadline_and_counted() -> None:
    clock = FakeClock()
    left = RateLimited("slow down", data={"hold_left_behind": "h1", "reason": "quota"})
    queues, metrics = Queues(clock), Metrics(version="0")
    deadline = (clock.now() + timedelta(seconds=0.1)).isoformat()
    queues.delivery = _delivery(body=BODY[:-1] + f', "deadline": "{deadline}"}}'.encode())

    await _deliver(_processor(Failing(Outcome(error=left, attempts=1)), queues, clock, metrics), queues)

    (reply,) = queues.replies
    assert reply.error is not None
    assert reply.error.data == {
        "outcome": "not_started",
        "last_code": "RATE_LIMITED",
        "hold_left_behind": "h1",
    }
    assert 'connectors_left_behind_total{action="ping",connector="dummy"} 1.0' in metrics.render().decode()


async def test_a_deadline_names_the_publishers_own_clock() -> None:
    clock = FakeClock()
    queues = Queues(clock)
    queues.delivery = _delivery(timestamp=clock.now() - timedelta(seconds=40))
    late = Outcome(error=deadline_exceeded("the deadline passed", outcome="not_started"))

    await _deliver(_processor(Failing(late), queues, clock), queues)

    (reply,) = queues.replies
    assert reply.error is not None
    assert reply.error.message == "the deadline passed; it was published 40 s ago by its own clock"


async def test_a_full_dead_letter_queue_does_not_keep_the_caller_waiting() -> None:
    clock = FakeClock()
    bug = Outcome(error=ConnectorError("a bug"), attempts=1)
    queues = Queues(clock, has_room=False)
    processor = _processor(Failing(bug), queues, clock)

    await _deliver(processor, queues)
    await _deliver(processor, queues)
    queues.has_room = True
    await _deliver(processor, queues)

    assert [1] == [result.attempts for result in queues.replies], "answered at once, and once"
    assert [Code.CONNECTOR_ERROR] == queues.dead_letters, "the dead letter waited for room"
    assert queues.delivery is None


@pytest.mark.parametrize("moment", ["while it is acked", "right after"])
async def test_a_copy_that_comes_as_the_first_is_settled_is_settled_too(moment: str) -> None:
    """Else it is unsettled for ever, and a queue that takes one at a time stands still."""
    clock = FakeClock()
    processor = _processor(UnavailableVault(clock, timedelta()), Queues(clock), clock)
    acked: list[int] = []

    def delivery(number: int) -> Delivery:
        channel = SimpleNamespace(is_closed=False)

        def lose() -> None:
            channel.is_closed = True
            processor.receive(QUEUE, delivery(2))

        def ack(_tag: int) -> bool:
            acked.append(number)
            if number == 1 and moment == "right after":
                asyncio.get_running_loop().call_soon(lose)
            elif number == 1:
                lose()
            return True

        channel.ack = ack
        properties = Properties(reply_to="callers", correlation_id="c")
        return Delivery(BODY, "dummy.ping", properties, number > 1, 0, number, channel)

    processor.receive(QUEUE, delivery(1))
    async with asyncio.timeout(5):
        while processor.in_flight or len(acked) < 2:
            await asyncio.sleep(0)

    assert [1, 2] == acked
