"""What must hold in every schedule with a broker, each with a name; a schedule that breaks one ends there."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from connectors.sdk.runtime.ledger import Identity
from schemas.error import Code
from schemas.result import RESULT_TYPE, Result
from tests.simulation.broker import BrokerQueue, Message
from tests.simulation.checks import AS_OF_S, Broken
from tests.simulation.clock import EPOCH
from tests.simulation.job_plan import JobPlan
from tests.simulation.loop import Host
from tests.simulation.provider import KeyState
from tests.simulation.shop import PARTS
from worker.broker import Delivery, Properties
from worker.job import headers as header

if TYPE_CHECKING:
    from tests.simulation.job_worker import JobWorker
    from tests.simulation.job_world import JobWorld

#: Seconds that an answer may come after its deadline though nothing went wrong: a last look at the ledger, the broker.
SLACK_S: Final = 1.7
#: Seconds after the end of a disturbance in which its jobs are answered.
RECOVERY_S: Final = 10.0
#: How often a job may come to the queue of jobs that no one runs, while its own is missing.
MOST_UNROUTED: Final = 20


@dataclass(slots=True, eq=False)
class Sent:
    """One job as its caller knows it, and what came of it."""

    plan: JobPlan
    #: Answers that arrived, and when.
    answers: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    letters: list[Message] = field(default_factory=list)
    #: Answers that were given, whether they arrived or not: successes, and the rest.
    successes: int = 0
    failures: int = 0
    #: Who got its newest delivery.
    receiver: "JobWorker | None" = None
    #: When it last came from the broker, perhaps by a queue that was not its own.
    received_at: float = 0.0
    #: How often it lay in the queue of jobs for no one.
    unrouted: int = 0
    acked: int = 0
    #: Lost with its queue, which someone deleted.
    was_deleted: bool = False


class JobChecks:
    """The oracle: it sees all machines at once."""

    def __init__(self, world: "JobWorld") -> None:
        self._world = world
        self.sent: dict[str, Sent] = {}
        #: From when to when something was wrong that may delay an answer.
        self.disturbed: list[tuple[float, float]] = []
        #: Deliveries of each job that came back.
        self._returns: Counter[str] = Counter()
        #: What was stored where, with which headers: the same again is a copy.
        self._stored: set[tuple[object, ...]] = set()
        #: Jobs of which the broker has stored more copies than the one that its worker holds and the next one.
        self._copied: set[str] = set()

    def _now(self) -> float:
        return self._world.loop.time()

    @property
    def is_over(self) -> bool:
        """Whether the schedule has ended, and its processes are thrown away."""
        return self._world.loop.is_closed()

    def disturb(self, seconds: float) -> None:
        """Take note that something is wrong for a while."""
        self.disturbed.append((self._now(), self._now() + seconds))

    def broken(self, name: str, what: str) -> None:
        """End the schedule."""
        if self._world.loop.failure is None:
            self._world.loop.failure = Broken(name, what)

    def _hold(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            self.broken(name, what)

    def _states(self, plan: JobPlan) -> list[KeyState]:
        return [self._world.provider.keys[plan.key + part] for part in PARTS.get(plan.action, ("",))]

    def _identity(self, plan: JobPlan) -> Identity:
        return Identity(plan.tenant, "shop", plan.action, plan.key)

    # What the broker sees.

    def replied(self, address: str, body: bytes, properties: Properties) -> None:
        """Take an answer that has arrived: one meaning, by the deadline, to whom it is for."""
        uid = address.rpartition(".")[2]
        if properties.type != RESULT_TYPE:
            return
        sent, answer = self.sent[uid], json.loads(body)
        self._world.loop.note(uid, f"is answered {_brief(answer)}")
        self._hold(
            "an answer goes to its caller",
            properties.correlation_id == f"c-{uid}" and answer["id"] in {uid, None},
            f"{uid} got {answer['id']}, {properties.correlation_id}",
        )
        if not sent.answers:
            self._check_in_time(sent)
        for _, earlier in sent.answers:
            self._hold(
                "copies of an answer agree",
                self._agree(sent.plan, earlier, answer),
                f"{uid}: {_brief(earlier)}, then {_brief(answer)}",
            )
        sent.answers.append((self._now(), answer))

    def _agree(self, plan: JobPlan, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Return whether two answers mean the same; one may know less, or tell of what came between them."""
        if _meaning(one) == _meaning(other):
            return True
        if plan.action == "read":
            return True  # it runs again, and may fail
        words = {_word(one), _word(other)}
        if "unknown" in words:
            self._world.counts["copies that knew less"] += 1
            return True
        codes = {(each["error"] or {}).get("code") for each in (one, other)}
        if Code.DELIVERY_LIMIT in codes and self._world.counts["flapping"]:
            return True  # one copy came too often while another ran
        others = [each.mode for each in self._jobs_of(plan) if each.uid != plan.uid]
        is_copied = plan.copies > 1 or plan.uid in self._copied or self._returns[plan.uid] > 0
        return (
            ("undone" in words and "undo" in others)
            or ("not_started" in words and ("run" in others or is_copied))
            or (plan.mode == "undo" and is_copied)
        )

    def stored(self, queue: BrokerQueue, message: Message) -> None:
        """Take note of what a queue took."""
        topology = self._world.topology
        sent = self.sent.get(message.uid)
        if sent is None:
            return
        same = (message.uid, queue.name, tuple(sorted(message.properties.headers.items())))
        if same in self._stored or self._world.broker.copies(message.uid) > 2:
            self._copied.add(message.uid)
        self._stored.add(same)
        self._hold("a message's bytes stay", message.body == sent.plan.body, f"{message.uid} in {queue.name}")
        if queue.name == topology.unrouted:
            sent.unrouted += 1
            self._hold("a job is rerouted once", sent.unrouted <= MOST_UNROUTED, message.uid)
        if queue.name.startswith(f"{topology.prefix}.retry."):
            is_retry = message.properties.headers.get(header.SNOOZES) == 0
            self._world.counts["retries" if is_retry else "snoozes"] += 1
        if queue.name == topology.poison:
            self._world.counts["poisoned"] += 1
            self._world.loop.note(message.uid, "is poison")
            sent.letters.append(message)
        elif queue.name == topology.dead:
            self._check_letter(sent, message)
            sent.letters.append(message)

    def settled(self, _queue: BrokerQueue, message: Message) -> None:
        """Nothing is acked that is nowhere else, neither answered nor dead-lettered."""
        sent = self.sent[message.uid]
        sent.acked += 1
        self._world.counts["acks"] += 1
        if sent.was_deleted or sent.answers or sent.letters or self._world.broker.copies(message.uid):
            return
        self._hold(
            "no ack before its answer",
            not sent.plan.is_live and self._is_done(sent),
            f"{message.uid} is acked, and neither answered nor kept",
        )

    def came_back(self, worker: Host, message: Message) -> None:
        """Count a return; it is a copy if its job is elsewhere, too, or its worker goes on with it."""
        self._returns[message.uid] += 1
        if worker.is_alive or self._world.broker.copies(message.uid):
            self._copied.add(message.uid)

    def given_back(self, host: Host, message: Message) -> None:
        """Nothing is given back but by a worker that stops."""
        worker = next(each for each in self._world.workers if each.host is host)
        self._hold("only who stops gives back", worker.is_draining, f"{message.uid} by {host.name}")

    def _is_done(self, sent: Sent) -> bool:
        """Return whether a job succeeded that no one is told of."""
        plan, states = sent.plan, self._states(sent.plan)
        if plan.mode == "undo":
            return not any(state.is_there for state in states)
        if plan.action == "read":
            return any(state.asked for state in states)
        return all(state.landed for state in states)

    # What a worker does.

    def answering(self, worker: "JobWorker", delivery: Delivery, result: Result) -> None:
        """Check an answer when it is given: what it says must be true then."""
        sent = self.sent[delivery.properties.message_id or ""]
        sent.successes += result.error is None
        sent.failures += result.error is not None
        plan = sent.plan
        self._world.loop.note(
            worker.host.name, f"answers {plan.uid}: {_brief(json.loads(result.model_dump_json()))}"
        )
        if plan.kind != "job":
            return
        data = None if result.error is None else result.error.data
        is_limit = result.error is not None and result.error.code is Code.DELIVERY_LIMIT
        self._hold(
            "a bad message harms no other", not is_limit or self._world.counts["flapping"] > 0, plan.uid
        )
        decided_at = (result.finished_at - EPOCH).total_seconds()
        if plan.mode == "run" and (data or {}).get("outcome") == "not_started":
            before, here = decided_at - AS_OF_S, worker.host.name
            open_calls = [
                (at, sender)
                for state in self._states(plan)
                for at, sender in state.open
                if at < before or (sender == here and at <= decided_at)
            ]
            self._hold("never not_started after a request", not open_calls, f"{plan.uid}: {open_calls}")
        if result.error is None and plan.mode == "run" and plan.action != "read":
            self._hold(
                "no success without effect", all(state.landed for state in self._states(plan)), plan.uid
            )
        self._check_attempts(sent, result.attempts, worker)

    def _check_attempts(self, sent: Sent, attempts: int, worker: "JobWorker | None" = None) -> None:
        """Attempts are calls that were begun, and deliveries that came back."""
        if sent.plan.action == "read":
            begun = sum(state.asked for state in self._states(sent.plan))
        else:
            trace, identity = self._world.database.trace, self._identity(sent.plan)
            begun = trace.count("begin", identity) + trace.count("claim_undo", identity, answer="Claimed")
        # A copy is told what another one met.
        most = begun + sum(self._returns[each.uid] for each in self._jobs_of(sent.plan))
        is_newest = worker is not None and worker is sent.receiver
        least = begun if sent.plan.action == "read" and is_newest and self._is_alone(sent.plan) else 0
        self._hold(
            "no start of an action is forgotten", attempts >= least, f"{sent.plan.uid}: {attempts} of {least}"
        )
        self._hold(
            "attempts are counted honestly", attempts <= most, f"{sent.plan.uid}: {attempts}, at most {most}"
        )

    def _jobs_of(self, plan: JobPlan) -> list[JobPlan]:
        return [each for each in self._world.plan.jobs if each.key == plan.key]

    def _is_alone(self, plan: JobPlan) -> bool:
        """Return whether there is one message of a key, and always was."""
        jobs = self._jobs_of(plan)
        unflagged = self._world.broker.counts["redeliveries without the flag"]
        return len(jobs) == 1 and plan.copies == 1 and plan.uid not in self._copied and not unflagged

    # What a caller and an operator see.

    def _check_letter(self, sent: Sent, message: Message) -> None:
        headers, plan = message.properties.headers, sent.plan
        reason = headers.get(header.REASON)
        self._world.loop.note(plan.uid, f"is dead-lettered: {reason}")
        self._hold("a dead letter says why", reason in set(Code), f"{plan.uid}: {reason}")
        same = (
            message.properties.correlation_id == f"c-{plan.uid}"
            and message.properties.reply_to == plan.address
            and message.routing_key in {plan.routing_key, plan.own_key}
        )
        self._hold("a dead letter is its job", same, f"{plan.uid}: {message.properties}")
        if plan.kind == "job" and plan.action in {*PARTS, "read"}:
            self._check_attempts(sent, headers.get(header.ATTEMPTS, 0))

    def _check_in_time(self, sent: Sent) -> None:
        """An answer by the deadline; what goes wrong meanwhile may delay it for as long as it lasts."""
        deadline_at = sent.plan.deadline_at
        if deadline_at is None or sent.was_deleted:
            return
        known_at = sent.plan.at_s
        if self._world.plan.is_crowded:
            known_at = max(known_at, sent.received_at)  # before, it lay in a queue, and no worker knew of it
        latest = max(deadline_at, known_at) + SLACK_S
        for begin, end in sorted(self.disturbed):
            if begin <= latest:
                latest = max(latest, end + RECOVERY_S)
        self._hold(
            "an answer by the deadline",
            self._now() <= latest,
            f"{sent.plan.uid}: {self._now() - deadline_at:.3f} s late, {self._now() - latest:.3f} s over",
        )

    # The end.

    def at_end(self) -> None:
        """Check what only the end shows."""
        for uid, sent in self.sent.items():
            if sent.was_deleted:
                continue
            plan = sent.plan
            copies = [
                queue.name
                for queue in self._world.broker.queues.values()
                for message in (*queue.ready, *queue.unacked)
                if message.uid == uid
                and queue.name not in {self._world.topology.dead, self._world.topology.poison}
            ]
            self._hold("every job comes to its end", not copies, f"{uid} is still in {copies}")
            is_poison = any(header.REASON not in each.properties.headers for each in sent.letters)
            if plan.is_live and not is_poison:
                self._hold("a live caller is answered", bool(sent.answers), f"{uid} heard nothing")
            self._hold(
                "nothing is lost",
                bool(sent.answers or sent.letters or sent.successes)
                or (self._is_done(sent) and not sent.failures),
                f"{uid} is gone",
            )
        for plan in (each.plan for each in self.sent.values()):
            for part in PARTS.get(plan.action, ()):
                landed = self._world.provider.keys[plan.key + part].landed
                self._hold("one effect per key", landed <= 1, f"{plan.key}{part} happened {landed} times")
        for worker in self._world.alive:
            self.check_memory(worker, has_stopped=False)

    def check_memory(self, worker: "JobWorker", *, has_stopped: bool) -> None:
        """Nothing is kept of jobs that are over."""
        kept = worker.leftovers(has_stopped=has_stopped)
        self._hold("bounded memory", not kept, f"{worker.host.name} keeps {kept}")

    def slots_hold(self, worker: "JobWorker") -> None:
        """No more jobs run than there are slots."""
        for room in worker.rooms.values():
            slots = room.slots
            self._hold("slots are a limit", slots.used <= slots.total, f"{slots.used} of {slots.total}")

    def count(self, counts: Counter[str]) -> None:
        """Count what happened."""
        counts["answers"] = sum(len(each.answers) for each in self.sent.values())
        counts["answers given twice"] = sum(len(each.answers) > 1 for each in self.sent.values())
        counts["connection deaths"] = sum(
            count for name, count in self._world.broker.counts.items() if name.startswith("connection deaths")
        )
        counts["consumer cancels"] = counts["cancel"] + counts["delete"]
        counts["dead letters"] = sum(len(each.letters) for each in self.sent.values())


def _meaning(answer: dict[str, Any]) -> tuple[Any, ...]:
    error = answer["error"] or {}
    return answer["status"], answer["data"], error.get("code")


def _word(answer: dict[str, Any]) -> str | None:
    """Return what an answer says of the effect."""
    error = answer["error"] or {}
    if error.get("code") == Code.OUTCOME_UNKNOWN:
        return "unknown"
    word: str | None = (error.get("data") or {}).get("outcome")
    return word


def _brief(answer: dict[str, Any]) -> str:
    error = answer["error"] or {}
    told = f"{error.get('code')} {error.get('data')} ({error.get('message')})" if error else "success"
    return f"{told}, attempts {answer['attempts']}, replayed {answer['replayed']}"
