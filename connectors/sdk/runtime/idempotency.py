"""One effect per key: claim it, execute it, record how it ended."""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, OutcomeUnknown, Timeout
from connectors.sdk.runtime.action_runner import ActionRunner
from connectors.sdk.runtime.answers import late, outcome_of, outcome_past_deadline
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.claims import ClaimKeeper
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.lease import HeldClaim
from connectors.sdk.runtime.ledger import (
    Absent,
    Claimed,
    Identity,
    Ledger,
    LedgerUnavailable,
    Mismatch,
    fingerprint_of,
)
from connectors.sdk.runtime.outcome import Outcome, Snooze
from connectors.sdk.runtime.reconcile import Reconciler
from schemas.error import Code

T = TypeVar("T")

#: Seconds that a caller whose deadline has passed waits for what the ledger knows.
LATE_LOOK_S: Final = 1.0


@dataclass(slots=True, eq=False)
class _Running:
    """What this process does about a key; copies of its job join it."""

    fingerprint: str
    task: "asyncio.Task[Outcome]" = field(init=False)
    #: What is answered while `task` goes on: its call cannot be stopped.
    given_up: "asyncio.Future[Outcome]" = field(init=False)
    #: None until the ledger gave it.
    claim: HeldClaim | None = None
    #: Its caller was told that nothing was sent, so that nothing may be.
    is_closed: bool = False
    #: Until then a key that the ledger did not know is taken for unused.
    looked_until: float = math.inf

    @property
    def current_until(self) -> float:
        """Until then no other worker can have had the effect."""
        return self.looked_until if self.claim is None else self.claim.holds_until


class IdempotentRunner:
    """Runs a job that writes so that its effect happens once, however often the job comes.

    1. a copy of a job that runs here joins it
    2. the ledger gives the claim, or knows the answer
    3. what a dead worker left is looked up before anything is repeated: KEYED runs again with the same key, WRITE is
       reconciled or marked unknown
    4. the lease is checked, the call leaves, the lease is renewed while it runs
    5. the result is stored; a worker that lost its lease meanwhile writes nothing

    The effect runs in a task of its own: a deadline ends the waiting for it, never the write.
    """

    def __init__(
        self, ledger: Ledger, keeper: ClaimKeeper, runner: ActionRunner, reconciler: Reconciler, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._runner = runner
        self._reconciler = reconciler
        self._clock = clock
        self._running: dict[Identity, _Running] = {}

    async def run(self, call: Call) -> Outcome:
        """Execute the job's effect, or return what is known of it.

        Raises:
            Snooze: another worker is at it, or the ledger is unavailable.
        """
        identity = identity_of(call)
        fingerprint = fingerprint_of(call.job.params, call.job.credential)
        while True:
            running = self._running.get(identity)
            is_copy = running is not None
            if running is None:
                running = _Running(fingerprint)
                task = asyncio.create_task(self._claim_and_execute(call, identity, running))
                self._register(identity, running, task)
            elif running.fingerprint != fingerprint:
                return outcome_of(Mismatch(), call)
            elif (
                not call.attempt.slot.pause()
            ):  # paused, it only waits; its slot is resumed if it runs after all
                # The slot that it would keep may be the one that the run waits for.
                raise Snooze("a copy of the job runs here, and too many jobs wait already")
            remaining_s = call.attempt.deadline.remaining_s()
            # A job that comes too late only asks the ledger, and that answer is worth its moment.
            limit_s = LATE_LOOK_S if remaining_s == 0 and not is_copy else remaining_s
            await self._clock.wait({running.task, running.given_up}, limit_s)
            if running.task.done():
                outcome = _outcome_of(running.task, call)
                if self._clock.monotonic() >= running.current_until:  # this process stood still meanwhile
                    outcome = _uncertain(outcome, call)
            elif running.given_up.done():
                outcome = running.given_up.result()
                if is_copy and outcome.error is not None and outcome.error.code.facts.retryable:
                    raise Snooze("the call of an earlier attempt still runs here")
            else:
                outcome = left_running(call, running.claim, running.task, self._clock.monotonic())
                running.is_closed = running.is_closed or not outcome.is_uncertain
                return outcome
            if not is_copy:
                return outcome
            if outcome.error is None:
                return replace(outcome, replayed=True, ack_after=None)
            if outcome.error.code is not Code.DEADLINE_EXCEEDED or call.attempt.deadline.has_passed:
                return replace(outcome, ack_after=None)
            # The other copy's deadline came, ours has not.

    async def close(self) -> None:
        """Cut short what still runs, and give its claims back: the worker ends."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _register(self, identity: Identity, running: _Running, task: "asyncio.Task[Outcome]") -> None:
        """Register the task for copies of the job, until it is done."""
        running.given_up = asyncio.get_running_loop().create_future()
        running.task = task
        self._running[identity] = running
        task.add_done_callback(lambda _: self._running.pop(identity, None))

    async def _claim_and_execute(self, call: Call, identity: Identity, running: _Running) -> Outcome:
        """Claim the key and execute its effect, or return what the ledger knows."""
        fingerprint = running.fingerprint
        # The ledger is asked before the deadline: a job that comes late is told what has happened.
        if call.attempt.deadline.has_passed:
            known, asked_at = await self._keeper.ask_when(
                lambda: self._ledger.look_up(identity, fingerprint), call
            )
            if isinstance(known, Absent):
                running.looked_until = asked_at + self._keeper.policy.stall_s
                raise late(call, is_uncertain=call.attempt.is_uncertain)
            return outcome_past_deadline(known, call)
        claimed, asked_at = await self._keeper.ask_when(
            lambda: self._ledger.claim(identity, fingerprint), call
        )
        if not isinstance(claimed, Claimed):
            return outcome_of(claimed, call)
        if call.attempt.is_uncertain and claimed.attempts == 0:
            claimed = replace(claimed, in_flight=True)  # this ledger is not the one that knew of it
        holds_until = asked_at + self._keeper.policy.lease_s
        claimed = self._keeper.bound(claimed, call)
        claim = running.claim = HeldClaim(identity, claimed, claimed.attempts, holds_until)
        async with self._keeper.hold(claim):
            try:
                return await self._execute(self._prepared(call, claim), claim, running)
            except ConnectorError as error:  # nothing left in this attempt
                return await self._end_unsent(call, claim, error)

    def _prepared(self, call: Call, claim: HeldClaim) -> Call:
        """Return the call with what the ledger knows of its key."""
        call.steps.results = dict(claim.claimed.steps)
        call.steps.record = partial(self._keeper.record_steps, claim, call.attempt.slot)
        return replace(call.after(claim.attempts), is_repeat=claim.is_repeat)

    async def _execute(self, call: Call, claim: HeldClaim, running: _Running) -> Outcome:
        secret = await self._runner.fetch(call)
        effect = call.effect(call.connector.read_credential(secret))
        if claim.in_flight and effect is Effect.WRITE:
            known = await self._reconcile_before(call, claim, secret)
            if known is not None:
                return known
            call = replace(call, is_repeat=False)
        outcome = await self._runner.run(
            call,
            secret,
            heeds_deadline=False,
            before_send=partial(self._begin, call, claim, effect, running),
            on_refused=claim.forget_call,
        )
        if (hung := outcome.still_running) is not None:
            self._runner.hung.add_effect(claim.identity, hung)
            if effect is Effect.WRITE:
                outcome = await self._wait_for_hung(call, outcome, hung, running)
        return await self._record(call, claim, effect, secret, outcome)

    async def _reconcile_before(
        self, call: Call, claim: HeldClaim, secret: Mapping[str, Any]
    ) -> Outcome | None:
        """Look up what an earlier attempt did; None if it certainly did nothing."""
        try:
            found = await self._reconciler.find(call, claim, secret)
        except OutcomeUnknown as unclear:
            return await self._mark_unknown(call, claim, unclear.message)
        if found is not None:
            return await self._complete(call, claim, Outcome(data=found.result, attempts=claim.attempts))
        claim.in_flight = claim.is_repeat = False
        return None

    async def _begin(self, call: Call, claim: HeldClaim, effect: Effect, running: _Running) -> None:
        """Look at the lease for the last time, and record that the call leaves now.

        Raises:
            Snooze: another worker has taken over, or this process stood still.
            ConnectorError: the caller was told at the deadline that nothing was sent.
        """
        if running.is_closed:
            raise late(call, is_uncertain=claim.may_have_effect(self._clock.monotonic()))
        before, claim.in_flight = claim.in_flight, True  # a deadline that comes meanwhile finds it in flight
        try:
            await self._keeper.begin(claim, call, call.action.lands_within_s(effect))
        except BaseException:
            claim.in_flight = before
            raise
        claim.attempts += 1

    async def _wait_for_hung(
        self, call: Call, outcome: Outcome, hung: "asyncio.Future[Any]", running: _Running
    ) -> Outcome:
        """Answer now, and keep the claim until a call that cannot be stopped has ended: until then it may land."""
        given_up = replace(outcome, still_running=None)
        if not call.action.can_reconcile:
            assert outcome.error is not None
            given_up = replace(given_up, error=unknown_error(outcome.error.message, outcome.error.data))
        running.given_up.set_result(given_up)
        await self._clock.wait({hung}, self._keeper.policy.hung_s)
        if hung.done() and not hung.cancelled() and hung.exception() is None:
            return Outcome(data=hung.result(), attempts=outcome.attempts)
        return outcome

    async def _record(
        self, call: Call, claim: HeldClaim, effect: Effect, secret: Mapping[str, Any], outcome: Outcome
    ) -> Outcome:
        """Record how the call ended; find out if it did not say."""
        call.attempt.slot.release()
        error = outcome.error
        call = call.after(outcome.attempts)
        if error is None:
            return await self._complete(call, claim, outcome)
        if outcome.is_uncertain and effect is Effect.WRITE:
            return await self._settle_write(call, claim, secret, outcome, error)
        if not outcome.is_uncertain:
            claim.in_flight = claim.is_repeat and not outcome.settles_key
        await self._keeper.give_back(claim, may_retry=error.code.facts.retryable)
        return replace(outcome, is_uncertain=claim.may_have_effect(self._clock.monotonic()))

    async def _settle_write(
        self,
        call: Call,
        claim: HeldClaim,
        secret: Mapping[str, Any],
        outcome: Outcome,
        error: ConnectorError,
    ) -> Outcome:
        """Find out what became of a WRITE whose outcome is uncertain: it is never called again blindly."""
        try:
            found = await self._reconciler.find_now(call, claim, secret, still_running=outcome.still_running)
        except OutcomeUnknown as unclear:
            reason = f"{error.message}; {unclear.message}"
            unknown = await self._mark_unknown(call, claim, reason, error.data)
            return replace(outcome, is_uncertain=True) if _keeps_its_code(error) else unknown
        if found is not None:
            return await self._complete(call, claim, Outcome(data=found.result, attempts=outcome.attempts))
        # It may land yet; the next attempt looks again before it calls.
        await self._keeper.release(claim)
        if _keeps_its_code(error):
            return outcome
        later = Timeout(f"{error.message}; whether it happened is looked up before the next attempt")
        return replace(outcome, error=later)

    async def _complete(self, call: Call, claim: HeldClaim, outcome: Outcome) -> Outcome:
        """Store the result; if the ledger is unavailable, go on trying after the answer.

        The claim stays in flight until the commit has returned: only a stored result is a proof.
        """
        complete = partial(self._ledger.complete, claim.identity, claim.fence, outcome.data)
        try:
            is_ours = await complete()
        except LedgerUnavailable:
            storing = asyncio.create_task(self._keeper.store_later(complete))
            return replace(outcome, ack_after=storing)
        claim.in_flight = False
        if is_ours:
            return outcome
        # We were late: another worker took over, and its answer counts.
        fingerprint = fingerprint_of(call.job.params, call.job.credential)
        known = await self._keeper.ask(lambda: self._ledger.look_up(claim.identity, fingerprint), call)
        return outcome if isinstance(known, Absent) else outcome_of(known, call)

    async def _mark_unknown(
        self, call: Call, claim: HeldClaim, reason: str, data: Mapping[str, Any] | None = None
    ) -> Outcome:
        with suppress(LedgerUnavailable):  # then the lease runs out, and the next attempt says the same
            await self._ledger.mark_unknown(claim.identity, claim.fence)
        return Outcome(error=unknown_error(reason, data), attempts=claim.attempts, is_uncertain=True)

    async def _end_unsent(self, call: Call, claim: HeldClaim, error: ConnectorError) -> Outcome:
        """End an attempt in which nothing left."""
        await self._keeper.give_back(claim, may_retry=error.code.facts.retryable)
        is_uncertain = claim.may_have_effect(self._clock.monotonic())
        if error.code is Code.DEADLINE_EXCEEDED:  # what the claim knows counts
            error = late(call, is_uncertain=is_uncertain)
        return Outcome(error=error, attempts=claim.attempts, is_uncertain=is_uncertain)


def identity_of(call: Call) -> Identity:
    """Return the key under which a call has its effect once."""
    return Identity(call.job.tenant, call.job.connector, call.job.action, call.job.key)


def left_running(call: Call, claim: HeldClaim | None, task: "asyncio.Task[Outcome]", now: float) -> Outcome:
    """Answer at the deadline; a write on its way is left to finish, and its end is recorded."""
    attempts = call.attempt.attempts if claim is None else claim.attempts
    # Before the ledger has answered, no one here knows what a copy of the job has done.
    uncertain = claim is None or claim.undo_in_flight or claim.may_have_effect(now)
    return Outcome(
        error=late(call, is_uncertain=uncertain),
        attempts=attempts,
        is_uncertain=uncertain,
        ack_after=asyncio.create_task(_end_of(task)),
    )


def _outcome_of(task: "asyncio.Task[Outcome]", call: Call) -> Outcome:
    """Return what a task ended with; an error of it is a value, which copies read, too.

    Raises:
        Snooze: the task did.
    """
    try:
        return task.result()
    except ConnectorError as error:
        return Outcome(error=error, attempts=call.attempt.attempts)


def _uncertain(outcome: Outcome, call: Call) -> Outcome:
    """Return a failure as one that tells nothing of what others did meanwhile; a success stays one."""
    error = outcome.error
    if error is None or outcome.is_uncertain:
        return outcome
    if error.code is Code.DEADLINE_EXCEEDED:
        error = late(call, is_uncertain=True)
    return replace(outcome, error=error, is_uncertain=True)


async def _end_of(task: "asyncio.Task[Outcome]") -> None:
    """Wait for the end of an effect whose caller was answered already, however it ends."""
    await asyncio.wait({task})
    with suppress(Snooze, ConnectorError, asyncio.CancelledError):
        ack_after = task.result().ack_after
        if ack_after is not None:
            await ack_after


def unknown_error(reason: str, data: Mapping[str, Any] | None = None) -> OutcomeUnknown:
    """Create the error of a write that may or may not have happened; `data` is what its call was answered."""
    return OutcomeUnknown(f"{reason}; the write may or may not have happened", data=data)


def _keeps_its_code(error: ConnectorError) -> bool:
    """Return whether the error tells of a fault that must not be hidden behind OUTCOME_UNKNOWN.

    A redirected write is such a fault, too: its sender has to know the new address (contract, section 9).
    """
    is_redirect = error.code is Code.REJECTED and "location" in (error.data or {})
    return is_redirect or error.code in {Code.CONNECTOR_ERROR, Code.RESULT_TOO_LARGE, Code.INTERNAL_ERROR}
