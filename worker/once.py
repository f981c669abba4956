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
from worker.caller import Call, Caller, contained, effect_in_force
from worker.history import write_instant
from worker.ledger import (
    RENEW_S,
    Absent,
    Busy,
    Done,
    Identity,
    Ledger,
    LedgerUnavailable,
    Mismatch,
    Owned,
    Undone,
    Unknown,
    fingerprint_of,
)
from worker.outcome import NotNow, Outcome, deadline_exceeded

#: What an undo answers.
UNDONE: Final = {"undone": True}

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Running:
    """An effect that this process is bringing about; copies of its job join it."""

    fingerprint: str
    task: "asyncio.Task[Outcome]"


@dataclass(slots=True, eq=False)
class _Claim:
    """An effect that is ours while the lease holds."""

    identity: Identity
    owned: Owned
    #: A call has left; whether it happened is not known until it is answered.
    calling: bool = field(init=False)

    def __post_init__(self) -> None:
        self.calling = self.owned.calling


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

    async def run(self, call: Call) -> Outcome:
        """Bring the job's effect about, or tell what is known of it.

        Raises:
            NotNow: somebody else is at it, or the ledger is away.
        """
        identity = _identity(call)
        fingerprint = fingerprint_of(call.job.params, call.job.credential)
        while True:
            running = self._running.get(identity)
            joined = running is not None
            if running is None:
                task = asyncio.create_task(self._claimed(call, identity, fingerprint))
                running = self._running[identity] = _Running(fingerprint, task)
                task.add_done_callback(lambda _: self._running.pop(identity, None))
            elif running.fingerprint != fingerprint:
                return _told(Mismatch(), call)
            rest_s = self._caller.rest_s(call.attempt.deadline)
            # Come too late, it only asks the ledger, and that answer is worth its moment.
            await asyncio.wait({running.task}, timeout=None if rest_s == 0 and not joined else rest_s)
            if not running.task.done():
                return _left_running(call, running.task)
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
            NotNow: its run is under way, or the ledger is away.
        """
        identity = _identity(call)
        claimed = await self._ask(lambda: self._ledger.claim_undo(identity), call)
        if isinstance(claimed, Undone):
            return Outcome(data=UNDONE, starts=call.attempt.starts, replayed=True)
        if isinstance(claimed, Busy):
            raise NotNow("the run that is to be undone is under way")
        claim = _Claim(identity, claimed)
        async with _Keeper(self._ledger, claim):
            try:
                await self._take_back(call.after(max(claimed.starts, call.attempt.starts)), claim)
            except BaseException:
                await self._let_go(claim)
                raise
            await self._ask(lambda: self._ledger.complete_undo(identity, claimed.fence), call)
        return Outcome(data=UNDONE, starts=call.attempt.starts + 1)

    async def close(self) -> None:
        """Cut short what still runs, letting its claims go: the worker ends."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_back(self, call: Call, claim: _Claim) -> None:
        declared = call.action.effect
        effect = declared if isinstance(declared, Effect) else Effect.KEYED
        never_began = claim.owned.starts == 0 and claim.owned.result is None
        if never_began and effect is Effect.WRITE:
            return  # the mark is all there is to leave
        document = await self._caller.fetch(call)
        result = claim.owned.result
        if result is None and effect is Effect.WRITE:
            result = await self._find(call, claim, document)
            if result is None:
                return  # it surely never happened
        context = self._caller.context(call, call.connector.read_credential(document))
        with contained(context):
            try:
                async with asyncio.timeout(call.action.timeout_s):
                    await call.action.call_undo(context, params=call.params, result=result)
            except TimeoutError:
                raise Timeout(f"undoing {call.job.connector}.{call.job.action} took too long") from None

    async def _claimed(self, call: Call, identity: Identity, fingerprint: str) -> Outcome:
        """Claim the effect and bring it about, or tell what the ledger knows."""
        # The ledger is asked before the deadline: whoever comes late is told what has happened.
        if self._caller.rest_s(call.attempt.deadline) == 0:
            known = await self._ask(lambda: self._ledger.look_up(identity, fingerprint), call)
            if isinstance(known, Absent):
                self._caller.check_deadline(call.attempt.deadline)
                raise NotNow("the deadline is a moment away")
            return _told_late(known, call)
        claimed = await self._ask(lambda: self._ledger.claim(identity, fingerprint), call)
        if not isinstance(claimed, Owned):
            return _told(claimed, call)
        claim = _Claim(identity, claimed)
        async with _Keeper(self._ledger, claim):
            try:
                return await self._bring_about(call.after(claimed.starts), claim)
            except ConnectorError as error:  # refused before anything left
                await self._end_without_effect(claim)
                if claim.calling and error.code is Code.DEADLINE_EXCEEDED:
                    error = _due(call, outcome="unknown")  # an earlier call may have happened
                return Outcome(error=error, starts=claimed.starts)
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
            timeout_s = call.action.timeout_s
            begin = partial(self._ledger.begin, claim.identity, claim.owned.fence, settles_in_s=timeout_s)
            if not await self._ask(begin, call):
                raise NotNow("another worker has taken the job over")
            claim.calling = True

        outcome = await self._caller.call(call, document, heeds_deadline=False, permit=permit)
        return await self._record(call, claim, effect, document, outcome)

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
        except NotNow:
            return None
        except ConnectorError as unclear:
            logger.info("reconcile failed", job_id=call.job.id, code=unclear.code)
            return None

    async def _find(self, call: Call, claim: _Claim, document: Any) -> Any | None:
        """Look an uncertain effect up: its result, or None where it surely is not there.

        Raises:
            NotNow: it is not there, but may land yet.
            OutcomeUnknown: it cannot be looked up.
        """
        if not call.action.can_reconcile or call.params is None:
            raise OutcomeUnknown(
                f"whether {call.job.connector}.{call.job.action} happened cannot be found out"
            )
        landed_by = asyncio.get_running_loop().time() + claim.owned.settles_in_s
        context = self._caller.context(call, call.connector.read_credential(document))
        with contained(context):
            try:
                async with asyncio.timeout(call.action.timeout_s):
                    found = await call.action.call_reconcile(call.params, context)
            except TimeoutError:
                raise Timeout(f"looking up {call.job.connector}.{call.job.action} took too long") from None
            if found is not None:
                return call.action.dump(found)
        if asyncio.get_running_loop().time() < landed_by:
            raise NotNow("the call of a worker that died may land yet")
        return None

    async def _complete(self, call: Call, claim: _Claim, outcome: Outcome) -> Outcome:
        """Store the result; where the ledger is away just now, go on trying after the answer."""
        claim.calling = False
        complete = partial(self._ledger.complete, claim.identity, claim.owned.fence, outcome.data)
        try:
            ours = await complete()
        except LedgerUnavailable:
            storing = asyncio.create_task(self._store_later(complete, call))
            return replace(outcome, lingering=storing)
        if not ours:
            # We were late: somebody took over, and theirs is the answer.
            fingerprint = fingerprint_of(call.job.params, call.job.credential)
            known = await self._ask(lambda: self._ledger.look_up(claim.identity, fingerprint), call)
            return outcome if isinstance(known, Absent) else _told(known, call)
        return outcome

    async def _store_later(self, complete: Callable[[], Awaitable[bool]], call: Call) -> None:
        with suppress(NotNow, ConnectorError):
            await self._ask(complete, replace(call, attempt=replace(call.attempt, deadline=None)))

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
            NotNow: it was away for too long, or the worker stops.
        """
        waited_from = asyncio.get_running_loop().time()
        while True:
            try:
                return await question()
            except LedgerUnavailable as away:
                reason = f"the ledger is not available: {away}"
                await self._caller.wait_for(self._ledger.wait_available, reason, waited_from, call.attempt)


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
        NotNow: somebody else is at it.
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
            raise NotNow("another worker is running this job")
    return Outcome(error=error, starts=starts)


def _told_late(known: Done | Busy | Unknown | Undone | Mismatch, call: Call) -> Outcome:
    """Answer a job whose deadline has passed from what is known."""
    if isinstance(known, Busy):
        return Outcome(error=_due(call, outcome="unknown"), starts=call.attempt.starts)
    return _told(known, call)


def _left_running(call: Call, task: "asyncio.Task[Outcome]") -> Outcome:
    """Answer at the deadline; what is on its way is left to finish, and its end is recorded."""
    return Outcome(
        error=_due(call, outcome="unknown"), starts=call.attempt.starts + 1, lingering=_quiet(task)
    )


def _quiet(task: "asyncio.Task[Outcome]") -> "asyncio.Task[Any]":
    async def end() -> None:
        await asyncio.wait({task})
        with suppress(NotNow):
            lingering = task.result().lingering
            if lingering is not None:
                await lingering

    return asyncio.create_task(end())


def _due(call: Call, *, outcome: str) -> ConnectorError:
    when = "" if call.attempt.deadline is None else f" {write_instant(call.attempt.deadline)}"
    return deadline_exceeded(f"the deadline{when} came before the answer", outcome=outcome)
