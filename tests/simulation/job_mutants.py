"""The processor, its publishers and the queue consumer with one of their guards taken out, as `mutants.py` has it."""

from typing import Final

from connectors.sdk.runtime.idempotency import IdempotentRunner
from tests.simulation.mutants import Edit, Mutant
from worker.broker import queue_consumer
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.queue_consumer import QueueConsumer
from worker.job.headers import JobHeaders
from worker.job.job_slot import JobSlot
from worker.job.processor import JobProcessor
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import WaitingRoom

STORE: Final = "broker"

CANCELLED: Final[Edit] = (QueueConsumer, "_consume_on_channel", "{closed, ended})\n", "{closed})\n")
COUNTED: Final[Edit] = (QueueConsumer, "_watch", "if consumers == 0:", "if False:")
MISSING: Final[Edit] = (queue_consumer._Idle, "is_missing", ">= MISSING_S", ">= 1e9")


def _mutant(name: str, *edits: Edit, is_equivalent_because: str = "") -> Mutant:
    return Mutant(name, edits, is_equivalent_because, store=STORE)


JOB_MUTANTS: Final = (
    _mutant("acked before it is published", (
        JobProcessor, "_process",
        "await self._publish(message, disposition)\n        await self._settle(message, disposition)",
        "await self._settle(message, disposition)\n        await self._publish(message, disposition)")),
    _mutant("published without waiting for the confirm", (
        ConfirmedPublisher, "_publish", "await channel.publish(",
        "await (lambda *a, **k: (asyncio.ensure_future(channel.publish(*a, **k)), asyncio.sleep(0, True))[1])(")),
    _mutant("a lost confirm counts as delivered", (
        ConfirmedPublisher, "deliver", "broke += alone and not mandatory", "return True")),
    _mutant("a return of our own queue counts as delivered", (
        ConfirmedPublisher, "publish", "if routed or not must_route:", "if True:")),
    _mutant("a refusal beside it counts as its own", (
        ConfirmedPublisher, "deliver", "if alone:", "if True:"),
        is_equivalent_because="a refusal is tried again, three times for a reply; the last one was its own"),
    _mutant("a redelivery is swapped into a live delivery", (
        JobProcessor, "receive", "known is not None and known.delivery.is_stale", "known is not None")),
    _mutant("a redelivery is dropped", (
        JobProcessor, "receive", "known.delivery = delivery", "pass")),
    _mutant("a redelivery is a job of its own", (
        JobProcessor, "receive", "if delivery.redelivered else None", "if False else None"),
        is_equivalent_because="it joins the run of its key or finds its result; only a READ runs twice"),
    _mutant("a returned reply drops its dead letter", (
        JobProcessor, "_publish", "sent is not PublishOutcome.DELIVERED", "False")),
    _mutant("a dead letter is given back, not acked", (
        JobProcessor, "_settle", "isinstance(disposition, Requeue)", "isinstance(disposition, Requeue | DeadLetter)")),
    _mutant("a dead letter without room is dropped", (
        JobProcessor, "_store", "if not stored:", "if False:")),
    _mutant("a dead letter has other bytes", (
        JobPublisher, "dead_letter", "delivery.body,", "delivery.body + b' ',")),
    _mutant("a failure that is retried is answered, too", (
        JobProcessor, "_after", "if isinstance(decision, Retry):",
        "if isinstance(decision, Retry) and asyncio.create_task(self._reply(message, job, "
        "result_of(job, outcome, started_at=started_at, finished_at=now))):")),
    _mutant("a snooze counts as an attempt", (
        JobHeaders, "after_snooze", "replace(self, snoozes=snoozes,",
        "replace(self, attempts=self.attempts + 1, snoozes=snoozes,")),
    _mutant("a delivery that came back counts as no attempt", (
        JobHeaders, "read", "delivery.returns", "0")),
    _mutant("a retry forgets its doubt", (
        JobHeaders, "after_failure", "is_uncertain=outcome.is_uncertain", "is_uncertain=False"),
        is_equivalent_because="the ledger keeps it under the key; the header is for a ledger that was lost"),
    _mutant("the deadline is not watched in the waiting room", (
        JobSlot, "_wait", "deadline.remaining_s())", "None)")),
    _mutant("a slot is held until its delivery is settled", (
        JobProcessor, "_run", "place.slot.end() if outcome.ack_after is None else place.slot.release()", "pass"),
        is_equivalent_because="`leave` ends it then; what suffers is how many jobs run in a second"),
    _mutant("a slot is never given back", (JobSlot, "end", "self.become(SlotState.NONE)", "pass")),
    _mutant("a place is never left", (JobProcessor, "_process", "message.place.leave()", "pass")),
    _mutant("a delayed job is never counted back", (
        WaitingRoom, "delay_s", "asyncio.get_running_loop().call_later(delay_s, self._count_back, tenant)", "pass")),
    _mutant("what is settled stays in flight", (
        JobProcessor, "_process", "del self._in_flight[identity]", "pass")),
    _mutant("what was reported stays", (
        JobPublisher, "progress", "task.add_done_callback(self._progress.discard)", "pass")),
    _mutant("a job is rerouted again and again", (
        JobProcessor, "_detour", "and not headers.rerouted", "")),
    _mutant("a cancelled consumer is not noticed", CANCELLED,
        is_equivalent_because="the broker is asked every 5 s how many consumers it sees; see the next"),
    _mutant("a consumer that is gone is not noticed at all", CANCELLED, COUNTED, MISSING),
    _mutant("a copy keeps the slot that its run waits for", (
        IdempotentRunner, "run", "not call.attempt.slot.pause()", "call.attempt.slot.pause() is None")),
)  # fmt: skip
