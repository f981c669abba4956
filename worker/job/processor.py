"""A delivery in, one settle out: the life of a job. The only file that acks or requeues."""

import asyncio
import random
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from loguru import logger

from connectors.registry import Registry
from connectors.sdk.errors import ConnectorError, Sent
from schemas.error import Code
from schemas.job import Job, JobRefused, parse_job, refuse
from worker.broker import Delivery
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import DELIVERY_LIMIT, JobQueue
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.executor import Executor
from worker.job.headers import JobHeaders
from worker.job.outcome import Attempt, Note, Outcome, Snooze, deadline_exceeded, no_note
from worker.job.publisher import Publisher, refused_outcome, result_of
from worker.job.retry import IN_HAND_S, Retry, decide
from worker.metrics import Metrics

if TYPE_CHECKING:
    from loguru import Logger

_CONTENT_TYPE: Final = re.compile(r"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
#: Seconds until a job that could not run comes back, by how often that happened.
_HOP_S: Final = (*(1.0,) * 5, *(5.0,) * 10, 30.0)


@dataclass(slots=True, eq=False)
class _InFlight:
    """A message that is being worked on."""

    queue: JobQueue
    #: The newest delivery of it: it may come again, on a new channel, while its job runs.
    delivery: Delivery
    history: JobHeaders


class JobProcessor:
    """Takes deliveries and sees each through.

    1. a delivery is handed over to a task that this class owns: the client's own would be cancelled
       with the channel; one that is in hand already is only swapped for the newer delivery
    2. bytes → `Job`, or a refusal that says where
    3. the executor runs it → `Outcome`
    4. reply, retry or dead letter is published and confirmed
    5. then, here alone, it is acked. A crash in between repeats a result, never loses one.

    Started by the service; `drain` waits for what is in hand.
    """

    def __init__(
        self,
        executor: Executor,
        publisher: Publisher,
        registry: Registry,
        metrics: Metrics,
        *,
        limiters: Mapping[JobQueue, ConcurrencyLimiter],
        trusted_users: Collection[str],
        max_attempts: int,
        max_body_bytes: int,
    ) -> None:
        self._executor = executor
        self._publisher = publisher
        self._connectors = registry.connectors
        self._metrics = metrics
        self._limiters = limiters
        self._trusted = frozenset(trusted_users)
        self._max_attempts = max_attempts
        self._max_body_bytes = max_body_bytes
        self._in_flight: dict[tuple[object, ...], _InFlight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, queue: JobQueue, delivery: Delivery) -> None:
        """Hand a delivery over to a task of our own."""
        properties = delivery.properties
        identity = (
            queue,
            properties.reply_to,
            properties.correlation_id,
            properties.message_id,
            delivery.body,
        )
        known = self._in_flight.get(identity) if delivery.redelivered else None
        if known is not None and known.delivery.is_stale:
            known.delivery = delivery
            return
        history = JobHeaders.read(delivery, trusted=self._trusted, now=datetime.now(UTC))
        in_flight = _InFlight(queue, delivery, history)
        self._in_flight[identity] = in_flight

        async def see_through() -> None:
            try:
                await self._settle(in_flight)
            finally:
                # In the task, not after it: a redelivery is never swapped into what has ended.
                if self._in_flight.get(identity) is in_flight:
                    del self._in_flight[identity]

        task = asyncio.create_task(see_through())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def in_flight(self) -> int:
        """How many messages are being worked on."""
        return len(self._tasks)

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is in hand, and say how many jobs were left unfinished; those come again."""
        self._executor.stop_waiting()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return await self.abandon()

    async def abandon(self) -> int:
        """Let go of what is in hand, at once; unsettled, it comes again."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        return len(left)

    async def _settle(self, job: _InFlight) -> None:
        """See one delivery through, and settle it once."""
        async with self._limiters[job.queue].hold(bulk=job.queue.bulk):
            self._metrics.job_started(job.queue.name)
            try:
                done = await self._see_through(job)
            except Exception as bug:
                logger.opt(exception=bug).error("worker failed on a job", queue=job.queue.name)
                done = await self._give_up(job)
            finally:
                self._metrics.job_ended(job.queue.name)
            settled = None
            while settled is not job.delivery:  # a newer one may have come while the old was settled
                settled = job.delivery
                await (settled.ack() if done else settled.requeue())

    async def _see_through(self, message: _InFlight) -> bool:
        """Run one message to its published end. False: nothing was done, the queue may have it back."""
        queue, delivery, history = message.queue, message.delivery, message.history
        now = datetime.now(UTC)
        if (unfit := self._publisher.refusal_of(delivery.properties.reply_to)) is not None:
            await self._park(message, ConnectorError(unfit, code=Code.INVALID_MESSAGE), 0)
            return True
        try:
            _check_properties(delivery)
            job = parse_job(
                delivery.body,
                message_id=delivery.properties.message_id,
                max_body_bytes=self._max_body_bytes,
            )
        except JobRefused as refusal:
            await self._answer(message, refusal, refused_outcome(refusal), now, park=not refusal.is_object)
            return True
        if delivery.returns >= DELIVERY_LIMIT:
            reason = f"its worker died on it, or gave it back, {delivery.returns} times"
            error = ConnectorError(reason, code=Code.DELIVERY_LIMIT)
            await self._answer(message, job, Outcome(error=error, starts=history.starts), now)
            return True
        if job.connector != queue.connector and not history.rerouted and self._may_reroute(queue, job):
            await self._publisher.reroute(delivery, history, job)
            return True
        if not await self._is_due(message, now):
            return True
        return await self._run(message, job)

    async def _run(self, message: _InFlight, job: Job) -> bool:
        """Run the job, then answer it, or see to it that it is run again."""
        queue, delivery, history = message.queue, message.delivery, message.history
        started_at = datetime.now(UTC)
        deadline = history.deadline_of(job.deadline)
        note = self._note(message, job)
        note("accepted", None)
        if history.failures == 0 and history.hops == 0:
            self._metrics.job_waited(queue.name, _wait_s(delivery, history, started_at))
        try:
            with self._limiters[queue].admit(job.tenant) as admitted:
                if not (admitted or (deadline is not None and deadline <= started_at)):
                    reason, delay_s = (
                        "its tenant holds as many slots as one may",
                        self._limiters[queue].send_round(job.tenant),
                    )
                    await self._postpone(message, job, deadline, reason, delay_s)
                    return True
                attempt = Attempt(history.publisher, history.starts, deadline, note)
                outcome = await self._executor.execute(job, attempt)
        except Snooze as reason:
            if self._executor.is_stopping:
                return False
            delay_s = _HOP_S[min(history.hops, len(_HOP_S) - 1)]
            await self._postpone(message, job, deadline, str(reason), delay_s)
            return True
        if (failure := outcome.error) is not None:
            now = datetime.now(UTC)
            decision = decide(
                failure.code,
                failures=history.failures + 1,
                max_attempts=self._max_attempts,
                now=now,
                deadline=deadline,
                retry_after_s=failure.retry_after_s,
                chance=random.random(),  # noqa: S311  # jitter, not a secret
            )
            if isinstance(decision, Retry):
                note("retrying", None)
                delay_s = round((decision.not_before - now).total_seconds(), 1)
                self._metrics.retried(job.connector, failure.code)
                _log(job).info("job retried", code=failure.code, attempt=outcome.starts, delay_s=delay_s)
                later = history.after(starts=outcome.starts, failed=True, not_before=decision.not_before)
                await self._publisher.wait(delivery, later, now)
                return True
            if decision.at_deadline:
                outcome = _out_of_time(outcome)
        tries_used_up = outcome.error is not None and outcome.error.code.facts.retryable
        await self._answer(message, job, outcome, started_at, park=tries_used_up)
        if outcome.lingering is not None:
            await outcome.lingering
        return True

    async def _postpone(
        self, message: _InFlight, job: Job, deadline: datetime | None, reason: str, delay_s: float
    ) -> None:
        """Send a job through a rung without counting a try; it is back by its deadline."""
        _log(job).info("job postponed", reason=reason)
        now = datetime.now(UTC)
        not_before = now + timedelta(seconds=delay_s)
        if deadline is not None:
            not_before = min(not_before, max(deadline, now))
        await self._publisher.wait(message.delivery, message.history.after_hop(not_before), now)

    async def _answer(
        self,
        message: _InFlight,
        job: Job | JobRefused,
        outcome: Outcome,
        started_at: datetime,
        *,
        park: bool = False,
    ) -> None:
        """Tell the caller; keep as a dead letter what nobody was told, or nobody there can mend."""
        result = result_of(job, outcome, started_at=started_at, finished_at=datetime.now(UTC))
        failure = outcome.error
        park = failure is not None and (park or failure.code.facts.parked)
        if failure is not None and park:
            # First, so that whoever hears of it finds it there.
            await self._park(message, failure, outcome.starts, job)
        sending = None
        if message.delivery.properties.reply_to is not None:
            sending = await self._publisher.reply(message.delivery, message.history, result)
            self._metrics.replied(sending)
        code = "succeeded" if failure is None else failure.code
        self._metrics.job_finished(*self._labels(job), code, result.duration_ms / 1000)
        _log(job).info(
            "job finished",
            outcome=code,
            attempts=outcome.starts,
            duration_ms=result.duration_ms,
            reply=sending or "none asked",
            queue=message.queue.name,
        )
        if failure is not None and not park and sending is not PublishOutcome.DELIVERED:
            await self._park(message, failure, outcome.starts, job)

    async def _park(
        self, message: _InFlight, failure: ConnectorError, starts: int, job: Job | JobRefused | None = None
    ) -> None:
        queue, delivery = message.queue.name, message.delivery
        await self._publisher.park(
            delivery, message.history, queue=queue, code=failure.code, message=failure.message, starts=starts
        )
        self._metrics.dead_lettered(failure.code)
        log = logger if job is None else _log(job)
        log.warning("job parked", code=failure.code, queue=queue, message_id=delivery.properties.message_id)

    async def _give_up(self, message: _InFlight) -> bool:
        """Answer for a bug of ours; where even that fails, the queue has the job back."""
        error = ConnectorError("this worker failed on the job; its log says where", code=Code.INTERNAL_ERROR)
        outcome = Outcome(error=error, starts=message.history.starts)
        try:
            job = parse_job(message.delivery.body, message_id=message.delivery.properties.message_id)
            await self._answer(message, job, outcome, datetime.now(UTC))
        except Exception as bug:
            logger.opt(exception=bug).error("worker failed to answer a job", queue=message.queue.name)
            await asyncio.sleep(1.0)  # the broker's delivery limit ends this; no hot loop until then
            return False
        return True

    def _may_reroute(self, queue: JobQueue, job: Job) -> bool:
        """Whether another queue may know more: not where we are the last resort already."""
        return queue.connector is not None or job.connector in self._connectors

    async def _is_due(self, message: _InFlight, now: datetime) -> bool:
        """Wait out a short rest in hand; send a job that came early through another rung."""
        if message.history.not_before is None:
            return True
        rest_s = (message.history.not_before - now).total_seconds()
        if rest_s > IN_HAND_S:
            await self._publisher.wait(message.delivery, message.history.after_hop(), now)
            return False
        if rest_s > 0:
            await asyncio.sleep(rest_s)
        return True

    def _note(self, message: _InFlight, job: Job) -> Note:
        if not job.progress or message.delivery.properties.reply_to is None:
            return no_note
        return lambda stage, text: self._publisher.progress(
            message.delivery, message.history, job, stage, text
        )

    def _labels(self, job: Job | JobRefused) -> tuple[str, str]:
        """Name connector and action for the metrics: what is registered here, never what a body invents."""
        connector = self._connectors.get(job.connector or "")
        if connector is None:
            return "unknown", "unknown"
        action = job.action or ""
        return connector.name, action if action in connector.actions else "unknown"


def _check_properties(delivery: Delivery) -> None:
    """Refuse what says that the body is no plain JSON."""
    properties = delivery.properties
    content_type, encoding = properties.content_type, properties.content_encoding
    if content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
        message = f"content_type {content_type[:80]!r} is not application/json"
    elif encoding is not None and encoding.lower() not in {"utf-8", "identity"}:
        message = f"content_encoding {encoding[:80]!r} is not spoken here; send plain UTF-8"
    else:
        return
    raise refuse(message, body=delivery.body, message_id=properties.message_id)


def _out_of_time(outcome: Outcome) -> Outcome:
    """Say that the deadline ended the tries, and what the last one met."""
    assert outcome.error is not None
    last = outcome.error
    error = deadline_exceeded(
        f"no time was left for another try before the deadline; the last met {last.code}: {last.message}",
        outcome="not_started" if last.sent is not Sent.UNCERTAIN else "unknown",
        last_code=last.code.value,
    )
    return Outcome(error=error, starts=outcome.starts)


def _wait_s(delivery: Delivery, history: JobHeaders, now: datetime) -> float:
    """Seconds from publish to start; the publisher's clock counts where it wrote a timestamp."""
    published = delivery.properties.timestamp or history.first_seen
    if published.tzinfo is None:
        published = published.replace(tzinfo=UTC)
    return max(0.0, (now - published).total_seconds())


def _log(job: Job | JobRefused) -> "Logger":
    if isinstance(job, JobRefused):
        return logger.bind(job_id=job.id)
    return logger.bind(job_id=job.id, tenant=job.tenant, connector=job.connector, action=job.action)
