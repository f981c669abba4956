"""One effect per key in the kit: what the worker's ledger would know, and what it would do about it."""

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, ConnectorError, OutcomeUnknown, Sent, Timeout
from connectors.sdk.testing.calls import Call, Caller, Outcome, due
from schemas.error import Code
from schemas.job import Job


@dataclass(slots=True)
class _Entry:
    """What is known of one key."""

    fingerprint: str
    state: Literal["running", "done", "unknown", "undone"] = "running"
    result: Any = None
    #: A call has left, and whether it happened is not known.
    calling: bool = False
    starts: int = 0


class Once:
    """Sees to it that a job which writes has its effect once, as the worker does."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._entries: dict[tuple[str, str], _Entry] = {}

    def forget(self) -> None:
        """Forget every key."""
        self._entries.clear()

    async def run(self, call: Call) -> Outcome:
        """See to one effect per key, as the worker's ledger does."""
        identity, fingerprint = (call.job.action, call.job.key), _fingerprint(call.job)
        entry = self._entries.get(identity)
        if entry is not None and (told := _told(entry, fingerprint, call)) is not None:
            return told
        self._caller.check_deadline(call.job)
        if entry is None:
            entry = self._entries[identity] = _Entry(fingerprint)
        call = replace(call, starts=entry.starts)
        task = asyncio.create_task(self._bring_about(call, entry, identity))
        try:
            # A write on its way is left to finish; the caller hears at the deadline.
            await asyncio.wait({task}, timeout=self._caller.rest_s(call.job))
            if task.done():
                return task.result()
            await asyncio.wait({task})
            return Outcome(
                error=due("the deadline came before the answer", "unknown"), starts=call.starts + 1
            )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _bring_about(self, call: Call, entry: _Entry, identity: tuple[str, str]) -> Outcome:
        try:
            effect = call.action.effect_of(call.params, self._caller.credential())
        except ConnectorError as error:
            self._entries.pop(identity, None)
            return Outcome(error=error, starts=call.starts)
        if entry.calling and effect is Effect.WRITE:
            try:
                found = await self._look_up(call)
            except OutcomeUnknown as unclear:
                entry.state = "unknown"
                return Outcome(error=unclear, starts=call.starts)
            if found is not None:
                return _complete(entry, Outcome(data=found, starts=call.starts))
            entry.calling = False
        outcome = await self._caller.call(call, heeds_deadline=False)
        entry.starts, failure = outcome.starts, outcome.error
        if failure is None:
            return _complete(entry, outcome)
        entry.calling = failure.sent is Sent.UNCERTAIN
        if entry.calling and effect is Effect.WRITE:
            return await self._settle_write(call, entry, outcome, failure)
        if not (failure.code.facts.retryable or entry.calling):
            self._entries.pop(identity, None)
        return outcome

    async def _settle_write(
        self, call: Call, entry: _Entry, outcome: Outcome, error: ConnectorError
    ) -> Outcome:
        """Find out about a write that is uncertain, or say that nobody can."""
        try:
            found = await self._look_up(call)
        except OutcomeUnknown as unclear:
            entry.state = "unknown"
            unknown = OutcomeUnknown(f"{error.message}; {unclear.message}")
            return replace(outcome, error=unknown) if error.code.facts.retryable else outcome
        except ConnectorError:
            found = None
        if found is not None:
            return _complete(entry, Outcome(data=found, starts=outcome.starts))
        if not error.code.facts.retryable and error.code is not Code.OUTCOME_UNKNOWN:
            return outcome
        later = Timeout(f"{error.message}; whether it happened is looked up before the next try")
        return replace(outcome, error=later)

    async def _look_up(self, call: Call) -> Any:
        if call.params is None or not call.action.can_reconcile:
            raise OutcomeUnknown(
                f"whether {call.job.connector}.{call.job.action} happened cannot be found out"
            )
        found = await self._caller.contained(
            call, call.action.call_reconcile(call.params, self._caller.context(call)), "looking up"
        )
        return None if found is None else call.action.dump(found)

    async def undo(self, call: Call) -> Outcome:
        """Take the effect of a key back; it may not happen afterwards either."""
        identity = (call.job.action, call.job.key)
        entry = self._entries.get(identity) or _Entry("")
        if entry.state == "undone":
            return Outcome(data={"undone": True}, starts=call.starts, replayed=True)
        declared = call.action.effect
        is_write = declared is Effect.WRITE
        happened, result, starts = entry.state == "done", entry.result, call.starts
        if happened or entry.starts or not is_write:
            if is_write and not happened:
                result = await self._look_up(call)
            if happened or result is not None or not is_write:
                undoing = call.action.call_undo(self._caller.context(call), params=call.params, result=result)
                starts += 1
                await self._caller.contained(call, undoing, "undoing")
        entry.state = "undone"
        self._entries[identity] = entry
        return Outcome(data={"undone": True}, starts=starts)


def _told(entry: _Entry, fingerprint: str, call: Call) -> Outcome | None:
    """Answer from what is known of the key; None where it is to be run."""
    key = call.job.key
    if entry.state == "undone":
        error: ConnectorError = Conflict(
            f"the effect of the key {key!r} was taken back", data={"outcome": "undone"}
        )
        return Outcome(error=error, starts=call.starts)
    if entry.fingerprint != fingerprint:
        message = f"the key {key!r} was used before with other params"
        error = ConnectorError(message, code=Code.IDEMPOTENCY_CONFLICT)
        return Outcome(error=error, starts=call.starts)
    if entry.state == "done":
        return Outcome(data=entry.result, starts=entry.starts, replayed=True)
    if entry.state == "unknown":
        error = OutcomeUnknown(f"whether the effect of the key {key!r} happened is not known")
        return Outcome(error=error, starts=entry.starts)
    return None


def _complete(entry: _Entry, outcome: Outcome) -> Outcome:
    entry.state, entry.result, entry.calling, entry.starts = "done", outcome.data, False, outcome.starts
    return outcome


def _fingerprint(job: Job) -> str:
    return hashlib.sha256(json.dumps(job.params, sort_keys=True).encode()).hexdigest()
