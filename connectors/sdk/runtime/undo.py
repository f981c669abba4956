"""Taking an effect back (compensation): claim the undo, make sure of what is there, undo it, leave a mark."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, Sent
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.runtime.action_runner import ActionRunner
from connectors.sdk.runtime.answers import late
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.claims import ClaimKeeper
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.idempotency import LATE_LOOK_S, identity_of, left_running
from connectors.sdk.runtime.invocation import Invocation
from connectors.sdk.runtime.lease import HeldClaim
from connectors.sdk.runtime.ledger import InProgress, Ledger, Undone, fingerprint_of
from connectors.sdk.runtime.outcome import Outcome, Snooze
from connectors.sdk.runtime.reconcile import Reconciler
from schemas.error import Code

#: What an undo returns.
UNDONE: Final = {"undone": True}


@dataclass(slots=True, eq=False)
class _RunningUndo:
    """One undo of this process."""

    #: None until the ledger gave it.
    claim: HeldClaim | None = None


class UndoRunner:
    """Undoes the effect of a key; it may not happen afterwards either.

    The undo runs in a task of its own: a deadline ends the waiting for it, never the undo.
    """

    def __init__(
        self, ledger: Ledger, keeper: ClaimKeeper, runner: ActionRunner, reconciler: Reconciler, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._keeper = keeper
        self._runner = runner
        self._reconciler = reconciler
        self._clock = clock
        self._tasks: set[asyncio.Task[Outcome]] = set()

    async def undo(self, call: Call) -> Outcome:
        """Undo the effect of the job's key.

        Raises:
            Snooze: its run is in progress or may land yet, or the ledger is unavailable.
        """
        running = _RunningUndo()
        task = asyncio.create_task(self._claim_and_undo(call, running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        remaining_s = call.attempt.deadline.remaining_s()
        # An undo that comes too late only asks the ledger, and that answer is worth its moment.
        await self._clock.wait({task}, LATE_LOOK_S if remaining_s == 0 else remaining_s)
        if task.done():
            return task.result()
        return left_running(call, running.claim, task, self._clock.monotonic())

    async def close(self) -> None:
        """Cut short what still runs: the worker ends."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim_and_undo(self, call: Call, running: _RunningUndo) -> Outcome:
        identity, attempts = identity_of(call), call.attempt.attempts
        if call.attempt.deadline.has_passed:
            fingerprint = fingerprint_of(call.job.params, call.job.credential)
            # The mark of an undo that never begins would keep its run from ever beginning.
            if not await self._keeper.ask(lambda: self._ledger.is_undone(identity), call):
                known = await self._keeper.ask(lambda: self._ledger.look_up(identity, fingerprint), call)
                raise late(call, is_uncertain=isinstance(known, Undone))  # then an undo has begun, at least
            return Outcome(data=UNDONE, attempts=attempts, replayed=True)
        claimed, asked_at = await self._keeper.ask_when(lambda: self._ledger.claim_undo(identity), call)
        match claimed:
            case Undone():
                return Outcome(data=UNDONE, attempts=attempts, replayed=True)
            case InProgress(lease_s):
                raise Snooze("the run that is to be undone is in progress", at_most_s=lease_s)
        holds_until = asked_at + self._keeper.policy.lease_s
        claim = running.claim = HeldClaim(identity, self._keeper.bound(claimed, call), attempts, holds_until)
        # Whatever comes now unsays no earlier attempt.
        claim.undo_in_flight = claim.undo_in_flight or call.attempt.is_uncertain
        async with self._keeper.hold(claim):
            try:
                await self._undo(call, claim)
            except ConnectorError as error:
                return await self._refused(call, claim, error)
            await self._keeper.ask(lambda: self._ledger.complete_undo(identity, claim.fence), call)
        return Outcome(data=UNDONE, attempts=claim.attempts)

    async def _undo(self, call: Call, claim: HeldClaim) -> None:
        claimed = claim.claimed
        call.steps.results = dict(claimed.steps)
        is_write = call.action.effect is Effect.WRITE
        never_began = claimed.attempts == 0 and not claimed.happened
        if never_began and is_write:
            return  # the mark is all there is to leave
        if self._runner.hung.may_have_effect(claim.identity):
            raise Snooze("a call of the run still goes on here, and may have its effect after the undo")
        # Of several calls of a KEYED key an earlier one may be on its way though a later one has returned.
        may_come_back = claim.in_flight or (claimed.attempts > 1 and not is_write)
        lands_at = self._clock.monotonic() + claimed.lands_within_s
        secret = await self._runner.fetch(call)
        result = claimed.result
        if not claimed.happened and is_write:
            found = await self._reconciler.find(call, claim, secret)
            if found is None and not claimed.steps:
                return  # it certainly never happened
            result = None if found is None else found.result
        elif may_come_back and self._clock.monotonic() < lands_at:
            raise Snooze(
                "the call of an earlier attempt may land after the undo",
                retry_in_s=lands_at - self._clock.monotonic(),
            )
        call.attempt.deadline.check()
        await self._call_undo(call, claim, secret, result)

    async def _call_undo(self, call: Call, claim: HeldClaim, secret: Mapping[str, Any], result: Any) -> None:
        before, claim.undo_in_flight = claim.undo_in_flight, True
        try:
            await self._keeper.begin_undo(claim, call)
        except BaseException:
            claim.undo_in_flight = before
            raise
        claim.attempts += 1
        effects = JobEffects()
        effects.may_leave = lambda: self._clock.monotonic() < claim.holds_until
        context = self._runner.context(
            call, call.connector.read_credential(secret), effects, heeds_deadline=False
        )
        hook = Invocation(
            call,
            context,
            effects,
            "undo",
            secret,
            heeds_deadline=False,
            result=result,
            leave_until=lambda: claim.holds_until,
        )
        try:
            await self._runner.run_hook(hook, "undoing")
        except ConnectorError as error:
            is_uncertain = error.sent is Sent.UNCERTAIN or effects.may_have_effect
            claim.undo_in_flight = is_uncertain or before
            raise

    async def _refused(self, call: Call, claim: HeldClaim, error: ConnectorError) -> Outcome:
        """End an undo that failed: only what was undone, or may have been, stays marked.

        An undo that came before its run keeps its mark while it may be tried again: the run must not overtake it.
        """
        came_first = claim.claimed.attempts == 0 and not claim.claimed.happened
        if claim.undo_in_flight or (came_first and error.code.facts.retryable):
            await self._keeper.release(claim)
        else:
            await self._keeper.abort_undo(claim)
        if error.code is Code.DEADLINE_EXCEEDED:
            error = late(call, is_uncertain=claim.undo_in_flight)
        return Outcome(error=error, attempts=claim.attempts, is_uncertain=claim.undo_in_flight)
