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
from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.clock import Clock, SystemClock
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.outcome import Attempt, Outcome, ProgressCallback, Snooze, ignore_progress
from connectors.sdk.runtime.result import refused_outcome, result_of
from connectors.sdk.runtime.retry import LEFT_BEHIND, Retry, decide, final_outcome
from schemas.error import Code
from schemas.job import Job, JobRefused, parse_job, refuse
from schemas.result import Result
from worker.broker import Delivery
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import DELIVERY_LIMIT, RETRY_DELAYS_S, JobQueue
from worker.job.disposition import DeadLetter, Delay, Disposition, Reply, Requeue, Reroute
from worker.job.headers import JobHeaders
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import Place, WaitingRoom
from worker.logs.setup import LogInfo, log_info
from worker.metrics import Metrics

if TYPE_CHECKING:
    from loguru import Logger

_CONTENT_TYPE: Final = re.compile(r"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)
#: Seconds until a snoozed job comes back, by how often it was snoozed.
SNOOZE_S: Final = (*(1.0,) * 5, *(5.0,) * 10, 30.0)
#: Seconds added to the end of a lease that is waited for.
LEASE_SLACK_S: Final = 0.1
#: Seconds that a job spends in the shortest retry queue.
SHORTEST_RETRY_S: Final = min(RETRY_DELAYS_S.values())
#: Waits shorter than this are spent in memory: the shortest retry queue takes as long.
WAIT_IN_MEMORY_S: Final = SHORTEST_RETRY_S
#: A snoozed job whose deadline is nearer than this waits in memory: from a retry queue it would come back too late.
NEAR_DEADLINE_S: Final = 1.5
#: Seconds between looks of a job that waits in memory, at least.
LOOK_AGAIN_S: Final = 0.1
#: Seconds that a dead letter has before the caller is told of it: who hears of it should find it there.
LETTER_HEAD_START_S: Final = 1.0
#: Seconds until a dead letter that found no room is tried again.
LETTER_RETRY_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _InFlight:
    """A message that is being worked on."""

    queue: JobQueue
    #: The newest delivery of it: it may come again, on a new channel, while its job runs.
    delivery: Delivery
    headers: JobHeaders
    #: Its place in memory and its slot; None before its bytes are read.
    place: Place | None = None


class JobProcessor:
    """Processes each delivery and settles it exactly once.

    1. a delivery is received into a task that this class owns: the client's own would be cancelled with the
       channel; one that is in flight already is only swapped for the newer delivery
    2. decide: bytes → `Job` → `Outcome` → what becomes of the delivery; nothing is published
    3. publish that, and wait for the broker's confirm; nothing is decided
    4. settle, here alone. A crash before repeats a result, never loses one

    A slot is held while the action runs, and not for the rest; the deadline counts from the moment a job arrives.
    Started by the service; `drain` waits for what is in flight.
    """

    def __init__(
        self,
        executor: Executor,
        publisher: JobPublisher,
        registry: Registry,
        metrics: Metrics,
        *,
        rooms: Mapping[JobQueue, WaitingRoom],
        trusted_users: Collection[str],
        max_attempts: int,
        max_body_bytes: int,
        clock: Clock | None = None,
        log_info: LogInfo = log_info,
    ) -> None:
        self._executor = executor
        self._publisher = publisher
        self._connectors = registry.connectors
        self._metrics = metrics
        self._rooms = rooms
        self._trusted = set(trusted_users)
        self._max_attempts = max_attempts
        self._max_body_bytes = max_body_bytes
        self._clock = clock or SystemClock()
        self._log_info = log_info
        self._in_flight: dict[tuple[object, ...], _InFlight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def trust(self, user: str) -> None:
        """Accept headers of ours from one more broker user."""
        self._trusted.add(user)

    def receive(self, queue: JobQueue, delivery: Delivery) -> None:
        """Process a delivery in a task of our own."""
        properties = delivery.properties
        identity = (
            queue.name,
            properties.reply_to,
            properties.correlation_id,
            properties.message_id,
            delivery.body,
        )
        known = self._in_flight.get(identity) if delivery.redelivered else None
        if known is not None and known.delivery.is_stale:
            known.delivery = delivery
            return
        headers = JobHeaders.read(delivery, trusted=self._trusted, now=self._clock.now())
        message = self._in_flight[identity] = _InFlight(queue, delivery, headers)
        task = asyncio.create_task(self._process(message, identity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _process(self, message: _InFlight, identity: tuple[object, ...]) -> None:
        """Live one delivery's life: decide, publish, settle."""
        self._metrics.job_started(message.queue.name)
        try:
            disposition = await self._decide(message)
            await self._publish(message, disposition)
            await self._settle(message, disposition)
        except Exception as bug:
            logger.opt(exception=bug).error("worker failed on a job", queue=message.queue.name)
            await self._clock.sleep(1.0)  # the broker's delivery limit ends this; no hot loop until then
            await self._settle(message, Requeue())
        finally:
            if message.place is not None:
                message.place.leave()
            self._metrics.job_ended(message.queue.name)
            # In the task, not after it: a redelivery is never swapped into what has ended.
            if self._in_flight.get(identity) is message:
                del self._in_flight[identity]

    async def _decide(self, message: _InFlight) -> Disposition:
        """Return what becomes of a delivery. Publishes nothing."""
        job = self._read(message)
        if not isinstance(job, Job):
            return job
        if (detour := self._detour(message, job)) is not None:
            return detour
        place = message.place = self._rooms[message.queue].enter(job.tenant, len(message.delivery.body))
        await self._wait_until_due(message)
        started_at = self._clock.now()
        deadline = Deadline(message.headers.deadline_of(job.deadline), self._clock)
        self._progress_of(message, job)("accepted", None)
        if (full := _room_full(place, job, deadline)) is not None:
            place.leave()
            return self._snooze(message, job, full)
        while True:
            try:
                outcome = await self._run(message, job, place, deadline)
            except Snooze as snooze:
                if (wait_s := self._wait_here_s(message, snooze, deadline)) is None:
                    place.leave()
                    return self._snooze(message, job, snooze)
            except Exception as bug:
                outcome = _worker_failed(message, job, bug)
                return self._after(message, job, outcome, started_at)
            else:
                return self._after(message, job, outcome, started_at)
            await self._clock.sleep(wait_s)

    async def _publish(self, message: _InFlight, disposition: Disposition) -> None:
        """Publish what was decided, and wait for the confirm. Decides nothing."""
        match disposition:
            case Reply():
                sent = await self._reply(message, disposition.job, disposition.result)
                if disposition.if_undelivered is not None and sent is not PublishOutcome.DELIVERED:
                    await self._dead_letter(message, disposition.if_undelivered)
            case DeadLetter():
                await self._dead_letter(message, disposition)
            case Delay(headers, decided_at):
                await self._publisher.delay(message.delivery, headers, decided_at)
            case Reroute(job):
                await self._publisher.reroute(message.delivery, message.headers, job)
            case Requeue():
                pass

    async def _settle(self, message: _InFlight, disposition: Disposition) -> None:
        """Ack the delivery, or give it back, once."""
        if isinstance(disposition, Reply | DeadLetter) and disposition.ack_after is not None:
            await disposition.ack_after
        settled = None
        while settled is not message.delivery:  # a newer one may have come while the old was settled
            settled = message.delivery
            await (settled.requeue() if isinstance(disposition, Requeue) else settled.ack())

    # What deciding is made of.

    def _read(self, message: _InFlight) -> Job | Disposition:
        """Read the job, or say what becomes of bytes that are not one."""
        delivery, headers = message.delivery, message.headers
        unfit = self._publisher.refusal_of(delivery.properties.reply_to, headers.publisher)
        if unfit is not None:
            return DeadLetter(ConnectorError(unfit, code=Code.INVALID_MESSAGE), 0)
        try:
            _check_properties(delivery)
            job = parse_job(
                delivery.body,
                message_id=delivery.properties.message_id,
                max_body_bytes=self._max_body_bytes,
            )
        except JobRefused as refusal:
            # Its traceback leads to the frame that will hold the answer: a circle, and the body in it.
            refusal.__traceback__ = None
            now = self._clock.now()
            unread = not refusal.is_object or delivery.undecodable is not None
            return self._answer(message, refusal, refused_outcome(refusal), now, dead_letter=unread)
        if headers.pending is not None:
            return DeadLetter(headers.pending, headers.attempts, job)
        return job

    def _detour(self, message: _InFlight, job: Job) -> Disposition | None:
        """Return what becomes of a job that is not run here and now; None if it is."""
        delivery, headers = message.delivery, message.headers
        if delivery.returns >= DELIVERY_LIMIT:
            reason = f"its worker died on it, or gave it back, {delivery.returns} times"
            error = ConnectorError(reason, code=Code.DELIVERY_LIMIT)
            outcome = Outcome(error=error, attempts=headers.attempts)
            return self._answer(message, job, outcome, self._clock.now())
        if (
            job.connector != message.queue.connector
            and not headers.rerouted
            and self._may_reroute(message, job)
        ):
            return Reroute(job)
        if self._due_in_s(message) > WAIT_IN_MEMORY_S:
            return Delay(headers.after_snooze(), self._clock.now())
        return None

    def _wait_here_s(self, message: _InFlight, snooze: Snooze, deadline: Deadline) -> float | None:
        """Return the seconds that a job whose deadline is near waits in memory; None if it is delayed."""
        remaining_s = deadline.remaining_s()
        if remaining_s is None or not 0 < remaining_s <= NEAR_DEADLINE_S or self._executor.is_stopping:
            return None
        return min(max(self._snooze_s(message, snooze), LOOK_AGAIN_S), remaining_s)

    async def _run(self, message: _InFlight, job: Job, place: Place, deadline: Deadline) -> Outcome:
        """Run one attempt in a slot; if the deadline comes before the slot does, only the ledger is asked.

        Raises:
            Snooze: it cannot run now; no attempt is counted.
        """
        headers = message.headers
        try:
            if not (deadline.has_passed or await place.take(deadline) or deadline.has_passed):
                raise Snooze("the worker is stopping")
            if headers.failures == 0 and headers.snoozes == 0:
                self._metrics.job_waited(message.queue.name, self._waited_s(message))
            report = self._progress_of(message, job)
            outcome = await self._executor.execute(
                job,
                Attempt(
                    deadline, headers.publisher, headers.attempts, headers.is_uncertain, report, place.slot
                ),
            )
        except BaseException:
            place.slot.end()
            raise
        # What goes on after the answer is bounded by itself, and keeps no one from running.
        place.slot.end() if outcome.ack_after is None else place.slot.release()
        return outcome

    def _after(self, message: _InFlight, job: Job, outcome: Outcome, started_at: datetime) -> Disposition:
        """Return what an attempt leads to: an answer, or another attempt."""
        error = outcome.error
        if error is None:
            return self._answer(message, job, outcome, started_at)
        headers, now = message.headers, self._clock.now()
        decision = decide(
            error.code,
            failures=headers.failures + 1,
            max_attempts=self._max_attempts,
            now=now,
            deadline=headers.deadline_of(job.deadline),
            retry_after_s=error.retry_after_s,
            random_fraction=random.random(),  # noqa: S311  # jitter, not a secret
            shortest_s=SHORTEST_RETRY_S,
        )
        if isinstance(decision, Retry):
            delay_s = round((decision.not_before - now).total_seconds(), 1)
            self._progress_of(message, job)("retrying", None)
            self._metrics.retried(job.connector, error.code)
            _log(job).info("job retried", code=error.code, attempt=outcome.attempts, delay_s=delay_s)
            return Delay(headers.after_failure(outcome, not_before=decision.not_before), now)
        used_up = error.code.facts.retryable and not decision.at_deadline
        outcome = final_outcome(outcome, at_deadline=decision.at_deadline)
        if outcome.error is not None and outcome.error.code is Code.DEADLINE_EXCEEDED:
            outcome.error.message += self._own_clock(message)
        return self._answer(message, job, outcome, started_at, dead_letter=used_up)

    def _own_clock(self, message: _InFlight) -> str:
        """Return when a job was published by its publisher's clock: clocks that differ are then found."""
        published = message.delivery.properties.timestamp
        if published is None:
            return ""
        if published.tzinfo is None:
            published = published.replace(tzinfo=UTC)
        age_s = (self._clock.now() - published).total_seconds()
        return f"; it was published {abs(age_s):.0f} s {'ago' if age_s >= 0 else 'from now'} by its own clock"

    def _answer(
        self,
        message: _InFlight,
        job: Job | JobRefused,
        outcome: Outcome,
        started_at: datetime,
        *,
        dead_letter: bool = False,
    ) -> Reply | DeadLetter:
        """Return the answer to the caller; what no one is told, or no caller can fix, is dead-lettered."""
        result = result_of(job, outcome, started_at=started_at, finished_at=self._clock.now())
        error, ack_after = outcome.error, outcome.ack_after
        if error is None:
            return Reply(job, result, ack_after=ack_after)
        if any(name.endswith(LEFT_BEHIND) for name in error.data or ()):
            self._metrics.left_behind(*self._labels(job))
        if dead_letter or error.code.facts.dead_lettered:
            return DeadLetter(error, outcome.attempts, job, result, ack_after)
        return Reply(job, result, DeadLetter(error, outcome.attempts, job), ack_after)

    def _snooze(self, message: _InFlight, job: Job, snooze: Snooze) -> Disposition:
        """Run the job later without counting an attempt; it is back by its deadline."""
        was_started = message.place is not None and message.place.slot.was_started
        if self._executor.is_stopping and was_started:
            return Requeue()
        # A job that only waited for a slot is not given back: the queue would count that as an attempt.
        headers, now = message.headers, self._clock.now()
        delay_s = self._snooze_s(message, snooze)
        not_before = now + timedelta(seconds=delay_s)
        deadline = headers.deadline_of(job.deadline)
        if deadline is not None:
            not_before = min(not_before, max(deadline, now))
        # Of a flood there are thousands of lines a minute, and the first one says it all.
        level = (
            "DEBUG" if headers.snoozes and message.place is not None and message.place.went_round else "INFO"
        )
        _log(job).log(level, "job snoozed", reason=str(snooze), delay_s=round(delay_s, 1))
        return Delay(headers.after_snooze(not_before), now)

    def _snooze_s(self, message: _InFlight, snooze: Snooze) -> float:
        """Return the seconds until a snoozed job is run again."""
        if snooze.retry_in_s is not None:
            return snooze.retry_in_s
        delay_s = SNOOZE_S[min(message.headers.snoozes, len(SNOOZE_S) - 1)]
        return delay_s if snooze.at_most_s is None else min(delay_s, snooze.at_most_s + LEASE_SLACK_S)

    async def _wait_until_due(self, message: _InFlight) -> None:
        """Spend a short wait in memory."""
        if (due_in_s := self._due_in_s(message)) > 0:
            await self._clock.sleep(due_in_s)

    def _due_in_s(self, message: _InFlight) -> float:
        not_before = message.headers.not_before
        return 0.0 if not_before is None else (not_before - self._clock.now()).total_seconds()

    def _may_reroute(self, message: _InFlight, job: Job) -> bool:
        """Whether another queue may know more: not if we are the last resort already."""
        return message.queue.connector is not None or job.connector in self._connectors

    def _progress_of(self, message: _InFlight, job: Job) -> ProgressCallback:
        if not job.progress or message.delivery.properties.reply_to is None:
            return ignore_progress
        return lambda stage, text: self._publisher.progress(
            message.delivery, message.headers, job, stage, text
        )

    def _waited_s(self, message: _InFlight) -> float:
        """Return the seconds from publish to start; the publisher's clock counts if it wrote a timestamp."""
        published = message.delivery.properties.timestamp or message.headers.first_seen
        if published.tzinfo is None:
            published = published.replace(tzinfo=UTC)
        return max(0.0, (self._clock.now() - published).total_seconds())

    # What publishing is made of.

    async def _reply(
        self, message: _InFlight, job: Job | JobRefused, result: Result
    ) -> PublishOutcome | None:
        """Reply to the caller, and count the job as finished; None if no reply was requested."""
        sent = None
        if message.delivery.properties.reply_to is not None:
            sent = await self._publisher.reply(message.delivery, message.headers, result)
            self._metrics.replied(sent)
        code = "succeeded" if result.error is None else result.error.code
        self._metrics.job_finished(*self._labels(job), code, result.duration_ms / 1000)
        self._log_info(
            "job finished",
            **_log_fields(job),
            outcome=code,
            attempts=result.attempts,
            duration_ms=result.duration_ms,
            reply=sent or "none asked",
            queue=message.queue.name,
        )
        return sent

    async def _dead_letter(self, message: _InFlight, letter: DeadLetter) -> None:
        """Store the dead letter, and tell the caller, whom a full dead-letter queue does not keep waiting."""
        storing = asyncio.create_task(self._store(message, letter))
        try:
            await self._clock.wait({storing}, LETTER_HEAD_START_S)
            if letter.result is not None and letter.job is not None:
                await self._reply(message, letter.job, letter.result)
            await storing
        finally:
            storing.cancel()

    async def _store(self, message: _InFlight, letter: DeadLetter) -> None:
        error, queue = letter.error, message.queue.name
        stored = await self._publisher.dead_letter(
            message.delivery,
            message.headers,
            queue=queue,
            code=error.code,
            message=error.message,
            attempts=letter.attempts,
        )
        log = logger if letter.job is None else _log(letter.job)
        if not stored:
            log.error("dead letter waits", reason="the dead-letter queue takes none", code=error.code)
            now = self._clock.now()
            pending = message.headers.after_refused_letter(
                letter.error, attempts=letter.attempts, not_before=now + timedelta(seconds=LETTER_RETRY_S)
            )
            await self._publisher.delay(message.delivery, pending, now)
            return
        self._metrics.dead_lettered(error.code)
        message_id = message.delivery.properties.message_id
        log.warning("job dead-lettered", code=error.code, queue=queue, message_id=message_id)

    def _labels(self, job: Job | JobRefused) -> tuple[str, str]:
        """Name connector and action for the metrics: what is registered here, never what a body invents."""
        connector = self._connectors.get(job.connector or "")
        if connector is None:
            return "unknown", "unknown"
        action = job.action or ""
        return connector.name, action if action in connector.actions else "unknown"

    # How it ends.

    @property
    def in_flight(self) -> int:
        """How many messages are being worked on."""
        return len(self._tasks)

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is in flight, and return how many jobs were left unfinished; those come again."""
        self._executor.stop_waiting()
        for room in self._rooms.values():
            room.slots.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return await self.abandon()

    async def abandon(self) -> int:
        """Abandon the jobs in flight at once; unsettled, they are delivered again."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        return len(left)


def _room_full(place: Place, job: Job, deadline: Deadline) -> Snooze | None:
    """Return the snooze of a job that finds no room; one that would come back too late stays."""
    if not place.room.is_full_for(job.tenant):
        return None
    delay_s = place.room.delay_s(job.tenant, deadline)
    if delay_s is None:
        return None
    place.went_round = True
    return Snooze("the waiting room is full of the tenant's jobs", retry_in_s=delay_s)


def _worker_failed(message: _InFlight, job: Job, bug: Exception) -> Outcome:
    """Log a bug of ours, and return its outcome."""
    _log(job).opt(exception=bug).error("worker failed on a job", queue=message.queue.name)
    error = ConnectorError("this worker failed on the job; its log says where", code=Code.INTERNAL_ERROR)
    return Outcome(error=error, attempts=message.headers.attempts)


def _check_properties(delivery: Delivery) -> None:
    """Refuse what cannot be decoded, or is declared as something else than plain JSON."""
    properties = delivery.properties
    content_type, encoding = properties.content_type, properties.content_encoding
    if delivery.undecodable is not None:
        message = f"a property cannot be decoded: {delivery.undecodable}"
    elif content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
        message = f"content_type {content_type[:80]!r} is not application/json"
    elif encoding is not None and encoding.lower() not in {"utf-8", "identity"}:
        message = f"content_encoding {encoding[:80]!r} is not supported; send plain UTF-8"
    else:
        return
    raise refuse(message, body=delivery.body, message_id=properties.message_id)


def _log(job: Job | JobRefused) -> "Logger":
    return logger.bind(**_log_fields(job))


def _log_fields(job: Job | JobRefused) -> dict[str, str | None]:
    if isinstance(job, JobRefused):
        return {"job_id": job.id}
    return {"job_id": job.id, "tenant": job.tenant, "connector": job.connector, "action": job.action}
