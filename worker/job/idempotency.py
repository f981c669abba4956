"""One effect per key: claim it, bring it about, write down how it ended."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

from loguru import logger

from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, ConnectorError, OutcomeUnknown, Sent, Timeout
from schemas.error import Code
from worker.job.action_runner import Call, Caller, contained, effect_in_force
from worker.job.headers import write_instant
from worker.job.outcome import Outcome, Snooze, deadline_exceeded
from worker.ledger.database import LedgerUnavailable
from worker.ledger.store import (
    Absent,
    Busy,
    Done,
    Identity,
    Ledger,
    Mismatch,
    Owned,
    Undone,
    Unknown,
    fingerprint_of,
)

#: What an undo answers.
UNDONE: Final = {"undone": True}
#: Seconds between renewals of the lease while an action runs; it holds three times as long.
RENEW_S: Final = 5.0
#: Seconds that may pass around the last look at the lease before the call leaves; more, and the process
#: stood still, and somebody may have taken over. Counted on top of the time in which a call can land.
STALL_S: Final = 5.0
#: Seconds for which a result is kept in hand while the ledger is away: below the broker's
#: consumer_timeout of 30 minutes.
STORE_S: Final = 1200.0

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Claim:
    """An effect that is ours while the lease holds."""

    identity: Identity
    owned: Owned
    #: How often the action was started, by whomever; for an undo, how often that was.
    starts: int
    #: A call has left; whether it happened is not known until it is answered.
    calling: bool = field(init=False)
    #: The call that takes the effect back has left.
    undoing: bool = False

    def __post_init__(self) -> None:
        self.calling = self.owned.calling


@dataclass(slots=True, eq=False)
class _Running:
    """What this process does about an effect; copies of its job join it."""

    fingerprint: str
    task: "asyncio.Task[Outcome]" = field(init=False)
    #: None until the ledger gave it.
    claim: _Claim | None = None


class Once:
    """Sees to it that a job which writes has its effect once, however often it comes.

    1. a copy of what runs here joins it
    2. the ledger gives the claim, or knows the answer
    3. what a dead worker left is looked up before anything is repeated: KEYED runs again with the
       same key, WRITE is reconciled or declared unknown
    4. the lease is checked, the call leaves, the lease is renewed while it runs
    5. the result is stored; whoever lost the lease meanwhile has nothing to say

    The effect runs in a task of its own: the deadline of whoever waits for it does not cut it short.
    """

    def __init__(self, ledger: Ledger, caller: Caller) -> None:
        self._ledger = ledger
        self._caller = caller
        self._running: dict[Identity, _Running] = {}
        self._undoing: set[asyncio.Task[Outcome]] = set()

    async def run(self, call: Call) -> Outcome:
        """Bring the job's effect about, or tell what is known of it.

        Raises:
            Snooze: somebody else is at it, or the ledger is away.
        """
        identity = _identity(call)
        fingerprint = fingerprint_of(call.job.params, call.job.credential)
        while True:
            running = self._running.get(identity)
            joined = running is not None
            if running is None:
                running = self._running[identity] = _Running(fingerprint)
                running.task = asyncio.create_task(self._claimed(call, identity, running))
                running.task.add_done_callback(lambda _: self._running.pop(identity, None))
            elif running.fingerprint != fingerprint:
                return _told(Mismatch(), call)
            rest_s = self._caller.rest_s(call.attempt.deadline)
            # Come too late, it only asks the ledger, and that answer is worth its moment.
            await asyncio.wait({running.task}, timeout=None if rest_s == 0 and not joined else rest_s)
            if not running.task.done():
                return _left_running(call, running)
            outcome = running.task.result()
            if not joined:
                return outcome
            if outcome.error is None:
                return replace(outcome, replayed=True, lingering=None)
            if outcome.error.code is not Code.DEADLINE_EXCEEDED:
                return replace(outcome, lingering=None)
            # The other copy's deadline came; ours may not have.

    async def undo(self, call: Call) -> Outcome:
        """Take the effect of the job's key back; it may not happen afterwards either.

        Raises:
            Snooze: its run is under way or may land yet, or the ledger is away.
        """
        running = _Running("")
        running.task = asyncio.create_task(self._undone(call, running))
        self._undoing.add(running.task)
        running.task.add_done_callback(self._undoing.discard)
        rest_s = self._caller.rest_s(call.attempt.deadline)
        await asyncio.wait({running.task}, timeout=None if rest_s == 0 else rest_s)
        return running.task.result() if running.task.done() else _left_running(call, running)

    async def close(self) -> None:
        """Cut short what still runs, letting its claims go: the worker ends."""
        tasks = [*self._undoing, *(running.task for running in self._running.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _undone(self, call: Call, running: _Running) -> Outcome:
        """Claim the undoing and see it through, or tell that it was done before."""
        identity, starts = _identity(call), call.attempt.starts
        if self._caller.rest_s(call.attempt.deadline) == 0:
            # The mark of an undo that never begins would keep its run from ever beginning.
            if not await self._ask(lambda: self._ledger.is_undone(identity), call):
                self._caller.check_deadline(call.attempt.deadline)
            return Outcome(data=UNDONE, starts=starts, replayed=True)
        claimed = await self._ask(lambda: self._ledger.claim_undo(identity), call)
        if isinstance(claimed, Undone):
            return Outcome(data=UNDONE, starts=starts, replayed=True)
        if isinstance(claimed, Busy):
            raise Snooze("the run that is to be undone is under way")
        claim = running.claim = _Claim(identity, claimed, starts)
        async with _Keeper(self._ledger, claim):
            try:
                await self._take_back(call, claim)
            except BaseException:
                await self._let_go(claim)
                raise
            await self._ask(lambda: self._ledger.complete_undo(identity, claimed.fence), call)
        return Outcome(data=UNDONE, starts=claim.starts)

    async def _take_back(self, call: Call, claim: _Claim) -> None:
        landed_by = _monotonic() + claim.owned.settles_in_s
        declared = call.action.effect
        effect = declared if isinstance(declared, Effect) else Effect.KEYED
        never_began = claim.owned.starts == 0 and not claim.owned.happened
        if never_began and effect is Effect.WRITE:
            return  # the mark is all there is to leave
        document = await self._caller.fetch(call)
        result = claim.owned.result
        if not claim.owned.happened and effect is Effect.WRITE:
            result = await self._find(call, claim, document)
            if result is None:
                return  # it surely never happened
        elif claim.calling and _monotonic() < landed_by:
            raise Snooze("the call of a worker that died may land after the undo")
        self._caller.check_deadline(call.attempt.deadline)
        claim.undoing = True
        claim.starts += 1
        context = self._caller.context(call, call.connector.read_credential(document))
        with contained(context):
            try:
                async with asyncio.timeout(call.action.timeout_s):
                    await call.action.call_undo(context, params=call.params, result=result)
            except TimeoutError:
                raise Timeout(f"undoing {call.job.connector}.{call.job.action} took too long") from None

    async def _claimed(self, call: Call, identity: Identity, running: _Running) -> Outcome:
        """Claim the effect and bring it about, or tell what the ledger knows."""
        fingerprint = running.fingerprint
        # The ledger is asked before the deadline: whoever comes late is told what has happened.
        if self._caller.rest_s(call.attempt.deadline) == 0:
            known = await self._ask(lambda: self._ledger.look_up(identity, fingerprint), call)
            if isinstance(known, Absent):
                self._caller.check_deadline(call.attempt.deadline)
                raise Snooze("the deadline is a moment away")
            return _told_late(known, call)
        claimed = await self._ask(lambda: self._ledger.claim(identity, fingerprint), call)
        if not isinstance(claimed, Owned):
            return _told(claimed, call)
        claim = running.claim = _Claim(identity, claimed, claimed.starts)
        async with _Keeper(self._ledger, claim):
            try:
                return await self._bring_about(call.after(claimed.starts), claim)
            except ConnectorError as error:  # refused before anything left
                await self._end_without_effect(claim)
                if claim.calling and error.code is Code.DEADLINE_EXCEEDED:
                    error = _due(call, outcome="unknown")  # an earlier call may have happened
                return Outcome(error=error, starts=claim.starts)
            except BaseException:
                await self._let_go(claim)
                raise

    async def _bring_about(self, call: Call, claim: _Claim) -> Outcome:
        document = await self._caller.fetch(call)
        effect = effect_in_force(call, call.connector.read_credential(document))
        if claim.calling and effect is Effect.WRITE:
            if not call.action.can_reconcile:
                return await self._declare_unknown(
                    call, claim, "its worker died while the call was under way"
                )
            try:
                found = await self._find(call, claim, document)
            except OutcomeUnknown as unclear:
                return await self._declare_unknown(call, claim, unclear.message)
            if found is not None:
                return await self._complete(call, claim, Outcome(data=found, starts=call.attempt.starts))
            claim.calling = False

        async def permit() -> None:
            before, claim.calling = claim.calling, True  # a deadline that comes meanwhile finds it under way
            try:
                if not await self._ask(partial(self._begin, call, claim), call):
                    raise Snooze("another worker has taken the job over")
            except BaseException:
                claim.calling = before
                raise
            claim.starts += 1

        def refused() -> None:
            claim.calling = False

        outcome = await self._caller.call(
            call, document, heeds_deadline=False, permit=permit, on_refusal=refused
        )
        return await self._record(call, claim, effect, document, outcome)

    async def _begin(self, call: Call, claim: _Claim) -> bool:
        """Look at the lease for the last time and write down that the call leaves now."""
        asked_at = _monotonic()
        settles_in_s = call.action.timeout_s + STALL_S
        held = await self._ledger.begin(claim.identity, claim.owned.fence, settles_in_s=settles_in_s)
        if (stalled_s := _monotonic() - asked_at) > STALL_S:
            raise Snooze(f"the worker stood still for {stalled_s:.0f} s right before the call")
        return held

    async def _record(
        self, call: Call, claim: _Claim, effect: Effect, document: Any, outcome: Outcome
    ) -> Outcome:
        """Write down how the call ended; find out where it did not say."""
        error = outcome.error
        call = call.after(outcome.starts)
        if error is None:
            return await self._complete(call, claim, outcome)
        claim.calling = error.sent is Sent.UNCERTAIN
        if claim.calling and effect is Effect.WRITE:
            try:
                found = await self._look_up(call, claim, document)
            except OutcomeUnknown as unclear:
                unknown = await self._declare_unknown(call, claim, f"{error.message}; {unclear.message}")
                return unknown if error.code.facts.retryable else outcome  # a bug stays one
            if found is not None:
                return await self._complete(call, claim, Outcome(data=found, starts=outcome.starts))
            # It may land yet; the next try looks again before it calls.
            await self._let_go(claim)
            if not error.code.facts.retryable and error.code is not Code.OUTCOME_UNKNOWN:
                return outcome
            later = Timeout(f"{error.message}; whether it happened is looked up before the next try")
            return replace(outcome, error=later)
        if error.code.facts.retryable or claim.calling:
            await self._let_go(claim)
        else:
            await self._end_without_effect(claim)
        return outcome

    async def _look_up(self, call: Call, claim: _Claim, document: Any) -> Any | None:
        """Look an uncertain effect up now; None where it is not there, or cannot be looked up just now.

        Raises:
            OutcomeUnknown: it can never be looked up.
        """
        try:
            return await self._find(call, claim, document)
        except OutcomeUnknown:
            raise
        except Snooze:
            return None
        except ConnectorError as unclear:
            logger.info("reconcile failed", job_id=call.job.id, code=unclear.code)
            return None

    async def _find(self, call: Call, claim: _Claim, document: Any) -> Any | None:
        """Look an uncertain effect up: its result, or None where it surely is not there.

        Raises:
            Snooze: it is not there, but may land yet.
            OutcomeUnknown: it cannot be looked up.
        """
        if not call.action.can_reconcile or call.params is None:
            raise OutcomeUnknown(
                f"whether {call.job.connector}.{call.job.action} happened cannot be found out"
            )
        landed_by = _monotonic() + claim.owned.settles_in_s
        context = self._caller.context(call, call.connector.read_credential(document))
        with contained(context):
            try:
                async with asyncio.timeout(call.action.timeout_s):
                    found = await call.action.call_reconcile(call.params, context)
            except TimeoutError:
                raise Timeout(f"looking up {call.job.connector}.{call.job.action} took too long") from None
            if found is not None:
                return call.action.dump(found)
        if _monotonic() < landed_by:
            raise Snooze("the call of a worker that died may land yet")
        return None

    async def _complete(self, call: Call, claim: _Claim, outcome: Outcome) -> Outcome:
        """Store the result; where the ledger is away just now, go on trying after the answer."""
        claim.calling = False
        complete = partial(self._ledger.complete, claim.identity, claim.owned.fence, outcome.data)
        try:
            ours = await complete()
        except LedgerUnavailable:
            storing = asyncio.create_task(self._store_later(complete))
            return replace(outcome, lingering=storing)
        if not ours:
            # We were late: somebody took over, and theirs is the answer.
            fingerprint = fingerprint_of(call.job.params, call.job.credential)
            known = await self._ask(lambda: self._ledger.look_up(claim.identity, fingerprint), call)
            return outcome if isinstance(known, Absent) else _told(known, call)
        return outcome

    async def _store_later(self, complete: Callable[[], Awaitable[bool]]) -> None:
        until = _monotonic() + STORE_S
        while _monotonic() < until and not self._caller.is_stopping:
            await self._ledger.wait_available(RENEW_S)
            with suppress(LedgerUnavailable):
                await complete()
                return
        logger.warning("result not stored", reason=self._ledger.unavailable_reason)

    async def _declare_unknown(self, call: Call, claim: _Claim, reason: str) -> Outcome:
        with suppress(LedgerUnavailable):  # then the lease runs out, and whoever comes next says the same
            await self._ledger.mark_unknown(claim.identity, claim.owned.fence)
        error = OutcomeUnknown(f"{reason}; the write may or may not have happened")
        return Outcome(error=error, starts=call.attempt.starts)

    async def _let_go(self, claim: _Claim) -> None:
        with suppress(LedgerUnavailable):  # then the lease runs out by itself
            await self._ledger.release(claim.identity, claim.owned.fence, calling=claim.calling)

    async def _end_without_effect(self, claim: _Claim) -> None:
        if claim.calling:
            await self._let_go(claim)
            return
        with suppress(LedgerUnavailable):
            await self._ledger.forget(claim.identity, claim.owned.fence)

    async def _ask(self, question: Callable[[], Awaitable[T]], call: Call) -> T:
        """Ask the ledger, waiting while it is away.

        Raises:
            Snooze: it was away for too long, or the worker stops.
        """
        waited_from = _monotonic()
        while True:
            try:
                return await question()
            except LedgerUnavailable as away:
                reason = f"the ledger is not available: {away}"
            try:
                await self._caller.wait_for(self._ledger.wait_available, reason, waited_from, call.attempt)
            except ConnectorError:
                # What an earlier delivery of this job came to, the ledger alone could tell.
                raise _due(call, outcome="unknown" if call.attempt.starts else "not_started") from None


class _Keeper:
    """Renews a lease for as long as the work on its claim goes on."""

    def __init__(self, ledger: Ledger, claim: _Claim) -> None:
        self._ledger = ledger
        self._claim = claim
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._renew())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(LedgerUnavailable):
                if not await self._ledger.renew(self._claim.identity, self._claim.owned.fence):
                    logger.warning("lease lost", key=self._claim.identity.key)
                    return


def _identity(call: Call) -> Identity:
    return Identity(call.job.tenant, call.job.connector, call.job.action, call.job.key)


def _told(known: Done | Busy | Unknown | Undone | Mismatch, call: Call) -> Outcome:
    """Turn what the ledger knows into an answer.

    Raises:
        Snooze: somebody else is at it.
    """
    starts = call.attempt.starts
    error: ConnectorError
    match known:
        case Done(result, starts):
            return Outcome(data=result, starts=starts, replayed=True)
        case Mismatch():
            error = ConnectorError(
                f"the key {call.job.key!r} was used before with other params or another credential",
                code=Code.IDEMPOTENCY_CONFLICT,
            )
        case Undone():
            error = Conflict(
                f"the effect of the key {call.job.key!r} was taken back; a new key brings it about again",
                data={"outcome": "undone"},
            )
        case Unknown(starts):
            error = OutcomeUnknown(
                f"an earlier run under the key {call.job.key!r} may or may not have happened; "
                "`connectors dead resolve` settles it"
            )
        case _:
            raise Snooze("another worker is running this job")
    return Outcome(error=error, starts=starts)


def _told_late(known: Done | Busy | Unknown | Undone | Mismatch, call: Call) -> Outcome:
    """Answer a job whose deadline has passed from what is known."""
    if isinstance(known, Busy):
        return Outcome(error=_due(call, outcome="unknown"), starts=call.attempt.starts)
    return _told(known, call)


def _left_running(call: Call, running: _Running) -> Outcome:
    """Answer at the deadline; what is on its way is left to finish, and its end is recorded."""
    claim = running.claim
    starts = call.attempt.starts if claim is None else claim.starts
    under_way = starts > 0 if claim is None else claim.calling or claim.undoing
    error = _due(call, outcome="unknown" if under_way else "not_started")
    return Outcome(error=error, starts=starts, lingering=asyncio.create_task(_to_its_end(running.task)))


async def _to_its_end(task: "asyncio.Task[Outcome]") -> None:
    """Wait for the end of what its caller was told about already, however it ends."""
    await asyncio.wait({task})
    with suppress(Snooze, ConnectorError):
        lingering = task.result().lingering
        if lingering is not None:
            await lingering


def _due(call: Call, *, outcome: str) -> ConnectorError:
    when = "" if call.attempt.deadline is None else f" {write_instant(call.attempt.deadline)}"
    return deadline_exceeded(f"the deadline{when} came before the answer", outcome=outcome)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
