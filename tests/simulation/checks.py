"""What must hold in every schedule, each with a name; a schedule that breaks one ends there."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Identity
from connectors.sdk.runtime.outcome import Outcome, Snooze
from schemas.error import Code
from tests.simulation.clock import EPOCH
from tests.simulation.provider import KeyState
from tests.simulation.shop import LOOKED, PARTS

if TYPE_CHECKING:
    from tests.simulation.world import Message, Worker, World

#: Seconds that an answer may come after the deadline: what its last steps take.
SLACK_S: Final = 0.001
#: Seconds that a job may take which came too late: two questions to the ledger at most.
LATE_S: Final = 10.1
#: Seconds by which what is told may be older than the telling: what a look at the ledger may take.
AS_OF_S: Final = LeasePolicy().stall_s


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}")
        self.name = name


@dataclass(slots=True, eq=False)
class Told:
    """One delivery, and what came of it."""

    message: "Message"
    worker: "Worker"
    at: float
    #: Its worker stood still already when it came.
    came_in_stall: bool
    stalled_s: float
    jumps: int
    asked: int
    #: It joined the run of a copy.
    is_joined: bool
    #: Nothing but this delivery can have had a part in the key's fate.
    is_alone: bool
    outcome: Outcome | None = None
    told_at: float | None = None
    attempts_before: int = 0
    #: When it ended, an answer of the ledger about the key had not been heard.
    was_unheard: bool = False

    @property
    def was_disturbed(self) -> bool:
        """Whether its worker stood still meanwhile, or its clock jumped."""
        host = self.worker.host
        return self.came_in_stall or host.stalled_s != self.stalled_s or host.jumps != self.jumps

    @property
    def mode(self) -> str:
        """What the job asked for."""
        return self.message.job.mode


class Checks:
    """The oracle: it sees all machines at once."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._deliveries: list[Told] = []
        self._uncertain = 0

    def _now(self) -> float:
        return self._world.loop.time()

    def _states(self, message: "Message") -> list[KeyState]:
        key, action = message.published.key, message.published.action
        return [self._world.provider.keys[key + part] for part in PARTS[action]]

    def _identity(self, message: "Message") -> Identity:
        return Identity("default", "shop", message.published.action, message.published.key)

    def expect(self, message: "Message", worker: "Worker") -> Told:
        """Take note that a message is delivered."""
        host = worker.host
        others = [each for each in self._deliveries if each.message.published.key == message.published.key]
        told = Told(
            message,
            worker,
            self._now(),
            host.stalled_until > self._now(),
            host.stalled_s,
            host.jumps,
            sum(state.asked for state in self._states(message)),
            is_joined=worker.is_at_it(self._identity(message)),
            is_alone=self._world.plan.runs_of(message.published.key) == 1
            and not message.was_lost
            and len({each.mode for each in others} | {message.job.mode}) == 1,
            attempts_before=message.attempts + message.returns,
        )
        self._deliveries.append(told)
        due = "" if message.deadline is None else f", due at {_seconds(message.deadline):.3f}"
        self._world.loop.note(host.name, f"receives {message.job.id}{due}, attempts {told.attempts_before}")
        return told

    def returned(self, told: Told, outcome: Outcome | Snooze) -> None:
        """Check what the executor returned, at the moment when it did."""
        self._world.loop.note(told.worker.host.name, f"returns {_brief(outcome)} for {told.message.job.id}")
        told.was_unheard = self._world.database.unheard[self._identity(told.message)] > 0
        self._check_in_time(told)
        if isinstance(outcome, Snooze):
            return
        self._check_infrastructure(told, outcome)
        if outcome.error is None and told.mode == "run":
            self._check_success(told, outcome)
        if outcome.is_uncertain:
            self._uncertain += 1

    def told(self, told: Told, outcome: Outcome) -> None:
        """Check what the caller is told."""
        told.outcome, told.told_at = outcome, self._now()
        self._world.loop.note(told.worker.host.name, f"told: {_brief(outcome)}")
        if outcome.error is None:
            return
        said = _word_of(outcome)
        if told.mode == "run":
            self._check_not_started(told, said)
            self._check_unknown(told, said)
            self._check_honest(told, outcome, said)
        else:
            self._check_honest_undo(told, outcome, said)

    def at_end(self) -> None:
        """Check what only the end shows."""
        for told in self._deliveries:
            if told.outcome is not None:
                self._check_undone(told, told.outcome)
                self._check_stays_undone(told, told.outcome)
                self._check_refused_undo(told, told.outcome)
                self._check_stays_not_started(told, told.outcome)
        for key, action in self._world.plan.keys.items():
            for part in PARTS[action]:
                state = self._world.provider.keys[key + part]
                if state.landed > 1:
                    raise Broken("one effect per key", f"{action} {key}{part} happened {state.landed} times")
                self._check_holder(Identity("default", "shop", action, key), state)
            self._check_first_undo(Identity("default", "shop", action, key))
        self._check_leases()
        for worker in self._world.alive:
            if worker.leftovers:
                raise Broken(
                    "bounded memory", f"{worker.host.name} keeps {worker.leftovers} of jobs that ended"
                )

    # The invariants.

    def _check_in_time(self, told: Told) -> None:
        """An answer at the deadline at the latest."""
        host, deadline = told.worker.host, told.message.deadline
        if deadline is None or told.was_disturbed:
            return
        deadline_at = _seconds(deadline) - host.skew_s
        came_late = told.at > deadline_at - SLACK_S
        latest = max(deadline_at + SLACK_S, told.at + LATE_S if came_late else 0.0)
        if self._now() > latest:
            raise Broken(
                "answer by the deadline", f"{self._now() - deadline_at:.3f} s late, came {told.at:.3f}"
            )

    def _check_infrastructure(self, told: Told, outcome: Outcome) -> None:
        """No attempt counted for failing infrastructure."""
        error = outcome.error
        asked = sum(state.asked for state in self._states(told.message))
        if error is not None and error.code.facts.retryable and asked == told.asked and not told.is_joined:
            raise Broken("no attempt for infrastructure", f"{error.code} without a call: {error.message}")
        trace, identity = self._world.database.trace, self._identity(told.message)
        begun = trace.count("begin", identity)
        undoing = trace.count("claim_undo", identity, answer="Claimed")
        copies = (each for each in self._deliveries if self._identity(each.message) == identity)
        if outcome.attempts > begun + undoing + max(each.attempts_before for each in copies):
            raise Broken("no attempt for infrastructure", f"{outcome.attempts} attempts, {begun} begun")

    def _check_success(self, told: Told, outcome: Outcome) -> None:
        """A success is there; what was taken back before the job came is none."""
        for state in self._states(told.message):
            if not state.landed:
                raise Broken("no success without effect", told.message.job.id)
            was_removed = any(at < told.at - AS_OF_S for at in state.removals)
            if outcome.replayed and was_removed and not state.is_there and not told.was_disturbed:
                raise Broken("no success without effect", f"{told.message.job.id} was taken back")

    def _check_not_started(self, told: Told, said: str | None) -> None:
        """Never `not_started` if a request may have left."""
        if said == "not_started" and self._may_have_left(told):
            raise Broken("never not_started after a request", told.message.published.action)

    def _may_have_left(self, told: Told) -> bool:
        """Return whether a request of the key is open that this answer could know of."""
        before, here = self._now() - AS_OF_S, told.worker.host.name
        return any(
            told.is_alone or at < before or sender == here
            for each in self._states(told.message)
            for at, sender in each.open
        )

    def _check_stays_not_started(self, told: Told, outcome: Outcome) -> None:
        if _word_of(outcome) != "not_started" or told.mode != "run":
            return
        is_alone = told.is_alone and not told.message.was_lost
        if is_alone and any(state.landed for state in self._states(told.message)):
            raise Broken(
                "never not_started after a request", f"{told.message.published.action} happened later"
            )

    def _check_unknown(self, told: Told, said: str | None) -> None:
        """Never `unknown` if no request can have left."""
        if said != "unknown" or not told.is_alone or told.message.was_lost:
            return
        states = self._states(told.message)
        is_open = told.was_disturbed or any(each.unproven or each.connecting for each in states)
        trace = self._world.database.trace
        claimed = trace.count("claim", self._identity(told.message), answer="Claimed")
        if claimed and not is_open and not told.was_unheard:
            raise Broken("never unknown without a request", f"{told.message.published.action}")

    def _check_honest(self, told: Told, outcome: Outcome, said: str | None) -> None:
        """A failure whose request may have been processed says so."""
        error = outcome.error
        assert error is not None
        if said in {"unknown", "undone"} or error.code is Code.OUTCOME_UNKNOWN:
            if error.code is Code.OUTCOME_UNKNOWN and told.message.published.action in LOOKED:
                raise Broken("what can be looked up is never unknown", error.message)
            return
        if self._may_have_left(told):
            raise Broken("no failure hides an effect", f"{error.code} {error.data} though a request is open")

    def _check_honest_undo(self, told: Told, outcome: Outcome, said: str | None) -> None:
        """A failed undo that may have taken the effect back says so."""
        assert outcome.error is not None
        if said == "unknown" or outcome.error.code is Code.OUTCOME_UNKNOWN:
            return
        before, here = self._now() - AS_OF_S, told.worker.host.name
        for state in self._states(told.message):
            if any(at < before or sender == here for at, sender in state.removals_open):
                raise Broken("no failure hides an undo", f"{outcome.error.code} {outcome.error.data}")

    def _check_first_undo(self, identity: Identity) -> None:
        """No run begins under a key whose undo came first, unless that undo has failed for good."""
        trace = self._world.database.trace
        begun, is_first = trace.times("begin", identity), trace.first_claim(identity) == "claim_undo"
        undos = [d for d in self._deliveries if d.mode == "undo" and self._identity(d.message) == identity]
        if not begun or not is_first or any(each.message.was_lost for each in undos):
            return
        if not any(d.told_at is not None and d.told_at < begun[0] + LATE_S for d in undos):
            raise Broken("no run overtakes its undo", f"{identity.key} began at {begun[0]:.3f}")

    def _check_leases(self) -> None:
        """While the ledger answers, a worker that lives and never stood still loses no claim."""
        if self._world.plan.ledger_rate or self._world.database.away_until:
            return
        steady = {each.host.name for each in self._world.alive if not each.host.stalled_s}
        for identity, holder in self._world.database.trace.expired:
            if holder in steady:
                raise Broken("a live worker keeps its claim", f"{holder} lost {identity.key}")

    def _check_holder(self, identity: Identity, state: KeyState) -> None:
        """No undo leaves once another worker has taken over: unlike a write, nothing waits for it."""
        for at, sender in state.removals_sent:
            if self._world.database.trace.holder(identity, at) != sender:
                raise Broken("no undo leaves without its claim", f"{sender} at {at:.3f}")

    def _check_undone(self, told: Told, outcome: Outcome) -> None:
        """What was reported undone is not there."""
        if told.mode != "undo" or outcome.error is not None:
            return
        for state in self._states(told.message):
            if state.is_there:
                raise Broken("undone stays undone", f"{told.message.published.action} is there")

    def _check_stays_undone(self, told: Told, outcome: Outcome) -> None:
        """Nothing happens after its undo was reported."""
        if told.mode != "undo" or outcome.error is not None or told.told_at is None:
            return
        for state in self._states(told.message):
            if any(at > told.told_at for at in state.times):
                raise Broken("undone stays undone", f"{told.message.published.action} happened afterwards")

    def _check_refused_undo(self, told: Told, outcome: Outcome) -> None:
        """An undo that was refused takes nothing back later on, until it is claimed again."""
        if told.mode != "undo" or outcome.error is None or told.told_at is None:
            return
        if _word_of(outcome) == "unknown" or outcome.error.code is Code.OUTCOME_UNKNOWN:
            return
        claims = self._world.database.trace.times("claim_undo", self._identity(told.message), "Claimed")
        until = min((at for at in claims if at > told.told_at), default=math.inf)
        if any(told.told_at < at < until for state in self._states(told.message) for at in state.removals):
            raise Broken("a refused undo takes nothing back", told.message.published.action)

    def count(self, counts: Counter[str]) -> None:
        """Count what happened in a schedule."""
        counts["uncertain calls"] = self._uncertain
        counts["takeovers"] = self._world.database.trace.takeovers
        counts["undos"] = sum(
            1 for each in self._deliveries if each.mode == "undo" and each.outcome and not each.outcome.error
        )
        counts["ledger questions"] = len(self._world.database.trace.entries)
        counts["answers"] = sum(each.outcome is not None for each in self._deliveries)
        counts.update(self._world.provider.counts)


def _word_of(outcome: Outcome) -> str | None:
    data: Any = None if outcome.error is None else outcome.error.data
    word: str | None = (data or {}).get("outcome")
    return word


def _brief(outcome: Outcome | Snooze) -> str:
    if isinstance(outcome, Snooze):
        return f"Snooze({outcome}, {outcome.retry_in_s}, {outcome.at_most_s})"
    if outcome.error is None:
        return f"success, replayed {outcome.replayed}"
    doubt = " uncertain" if outcome.is_uncertain else ""
    return f"{outcome.error.code} {outcome.error.data} ({outcome.error.message}){doubt}"


def _seconds(instant: datetime) -> float:
    return (instant - EPOCH).total_seconds()
