"""One action run as a worker runs it: the checks, the effect, the retries, the key, the masking."""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, Self
from uuid import uuid4

from pydantic import BaseModel
from pydantic_core import to_json

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context, JobLog
from connectors.sdk.effects import Effect
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialNotFound,
    OutcomeUnknown,
    Sent,
    Timeout,
)
from connectors.sdk.http import HttpPolicy, HttpPool
from connectors.sdk.personal import PersonalData
from connectors.sdk.retry import MAX_ATTEMPTS, Retry, decide
from connectors.sdk.testing.clock import FakeClock
from connectors.sdk.testing.ran import Ran, Recorder, Seen, observe, secrets_of
from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES, Result, error_of

#: Seconds that a cancelled action gets to clean up, as in the worker.
UNWIND_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    data: Any = None
    error: ConnectorError | None = None
    starts: int = 0
    replayed: bool = False


@dataclass(slots=True)
class _Entry:
    """What is known of one key."""

    fingerprint: str
    state: Literal["running", "done", "unknown", "undone"] = "running"
    result: Any = None
    #: A call has left, and whether it happened is not known.
    calling: bool = False
    starts: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    action: Action[..., Any]
    params: BaseModel | None
    job: Job
    seen: Seen
    starts: int


class Kit:
    """Run actions of one connector; remembers keys from one run to the next, as the ledger does.

    async with Kit(acme, credential=document) as kit:
        first = await kit.run("create_contact", {"email": "ada@example.com"}, key="k")
        again = await kit.run("create_contact", {"email": "ada@example.com"}, key="k")
        assert again.replayed

    Waits between tries are skipped (`clock`), timeouts are real.

    Args:
        credential: the secret's document, as it would lie in the vault.
        settings: what an operator would have set for the connector.
        timeout_s: in the place of each action's own.
    """

    def __init__(
        self,
        connector: Connector[Any],
        *,
        credential: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
        clock: FakeClock | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        timeout_s: float | None = None,
        tenant: str = "test",
    ) -> None:
        self.connector = connector
        self.clock = clock or FakeClock()
        self._document = credential
        self._settings = dict(settings or {})
        self._max_attempts = max_attempts
        #: Seconds, in the place of each action's own; None for theirs.
        self.timeout_s = timeout_s
        self._tenant = tenant
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._secrets: set[str] = set()
        self._http: HttpPool | None = None

    async def __aenter__(self) -> Self:
        self._http = HttpPool(HttpPolicy(), on_secret=self._secrets.add)
        self._settings, self.connector.settings = self.connector.settings, self._settings or {}
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connector.settings = self._settings
        if self._http is not None:
            await self._http.close()

    def forget(self) -> None:
        """Forget every key, as a worker would that lost its ledger: the provider alone knows now."""
        self._entries.clear()

    async def run(
        self,
        action: Action[..., Any] | str,
        params: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        mode: Literal["run", "undo", "validate"] = "run",
        deadline: datetime | None = None,
        locale: str = "en",
    ) -> Ran:
        """Run a job to its end: its last try, its undo, or its checks."""
        name = action if isinstance(action, str) else action.name
        job = Job(
            id=str(uuid4()),
            connector=self.connector.name,
            action=name,
            params=json.loads(json.dumps(params or {})),
            tenant=self._tenant,
            idempotency_key=key,
            mode=mode,
            deadline=deadline,
            locale=locale,
        )
        known = self.connector.actions.get(name)
        personal = PersonalData() if known is None else known.signature.personal(job.params)
        seen = Seen(self._secrets, personal)
        started_at, waits_s, failures, starts = self.clock.now(), [], 0, 0
        while True:
            outcome = await self._attempt(job, seen, starts)
            error, starts = outcome.error, outcome.starts
            if error is None:
                break
            failures, now = failures + 1, self.clock.now()
            decision = decide(
                error.code,
                failures=failures,
                max_attempts=self._max_attempts,
                now=now,
                deadline=deadline,
                retry_after_s=error.retry_after_s,
                chance=1.0,
            )
            if not isinstance(decision, Retry):
                if decision.at_deadline:
                    outcome = replace(outcome, error=_out_of_time(error))
                break
            waits_s.append((decision.not_before - now).total_seconds())
            self.clock.skip(waits_s[-1])
        result = _result(job, outcome, started_at, self.clock.now())
        return observe(result, seen, params=job.params, waits_s=tuple(waits_s))

    async def _attempt(self, job: Job, seen: Seen, starts: int) -> _Outcome:
        """Make one try, as the worker's executor does."""
        try:
            action = self._find(job)
            without = job.mode == "undo" and not job.params
            params = None if without else action.signature.read(job.params)
            call = _Call(action, params, job, seen, starts)
            if job.mode == "undo":
                return await self._undo(call)
            if job.mode == "validate":
                self._check_deadline(job)
                self.credential()
                return _Outcome(data={"valid": True}, starts=starts)
            if action.effect_of(params, None) is not Effect.READ:
                return await self._once(call)
            self._check_deadline(job)
            return await self._call(call, heeds_deadline=True)
        except ConnectorError as error:
            return _Outcome(error=error, starts=starts)

    def _find(self, job: Job) -> Action[..., Any]:
        action = self.connector.actions.get(job.action)
        if action is None:
            message = f"connector {job.connector!r} has no action {job.action!r}"
            raise ConnectorError(message, code=Code.ACTION_NOT_FOUND)
        if job.mode == "undo" and not action.can_undo:
            message = f"{job.connector}.{job.action} declares no undo"
            raise ConnectorError(message, code=Code.ACTION_NOT_FOUND)
        return action

    def credential(self) -> Any:
        """Read the document as the worker does, against the connector's model."""
        if self.connector.credential is None:
            return None
        if self._document is None:
            raise CredentialNotFound(f"the kit was given no credential for {self.connector.name!r}")
        credential = self.connector.read_credential(self._document)
        self._secrets.update(secrets_of(credential))
        return credential

    def _rest_s(self, job: Job) -> float | None:
        return None if job.deadline is None else max(0.0, (job.deadline - self.clock.now()).total_seconds())

    def _check_deadline(self, job: Job) -> None:
        if self._rest_s(job) == 0:
            raise _due("the deadline passed before the call could start", "not_started")

    async def _once(self, call: _Call) -> _Outcome:
        """See to one effect per key, as the worker's ledger does."""
        identity, fingerprint = (call.job.action, call.job.key), _fingerprint(call.job)
        entry = self._entries.get(identity)
        if entry is not None and (told := _told(entry, fingerprint, call)) is not None:
            return told
        self._check_deadline(call.job)
        if entry is None:
            entry = self._entries[identity] = _Entry(fingerprint)
        call = replace(call, starts=entry.starts)
        task = asyncio.create_task(self._bring_about(call, entry, identity))
        try:
            # A write on its way is left to finish; the caller hears at the deadline.
            await asyncio.wait({task}, timeout=self._rest_s(call.job))
            if task.done():
                return task.result()
            await asyncio.wait({task})
            return _Outcome(
                error=_due("the deadline came before the answer", "unknown"), starts=call.starts + 1
            )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _bring_about(self, call: _Call, entry: _Entry, identity: tuple[str, str]) -> _Outcome:
        try:
            effect = call.action.effect_of(call.params, self.credential())
        except ConnectorError as error:
            self._entries.pop(identity, None)
            return _Outcome(error=error, starts=call.starts)
        if entry.calling and effect is Effect.WRITE:
            found = await self._look_up(call)
            if found is not None:
                return _complete(entry, _Outcome(data=found, starts=call.starts))
            entry.calling = False
        outcome = await self._call(call, heeds_deadline=False)
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
        self, call: _Call, entry: _Entry, outcome: _Outcome, error: ConnectorError
    ) -> _Outcome:
        """Find out about a write that is uncertain, or say that nobody can."""
        if not call.action.can_reconcile:
            entry.state = "unknown"
            unknown = OutcomeUnknown(f"{error.message}; the write may or may not have happened")
            return replace(outcome, error=unknown) if error.code.facts.retryable else outcome
        try:
            found = await self._look_up(call)
        except ConnectorError:
            found = None
        if found is not None:
            return _complete(entry, _Outcome(data=found, starts=outcome.starts))
        if not error.code.facts.retryable and error.code is not Code.OUTCOME_UNKNOWN:
            return outcome
        later = Timeout(f"{error.message}; whether it happened is looked up before the next try")
        return replace(outcome, error=later)

    async def _look_up(self, call: _Call) -> Any:
        if call.params is None or not call.action.can_reconcile:
            raise OutcomeUnknown(
                f"whether {call.job.connector}.{call.job.action} happened cannot be found out"
            )
        found = await self._contained(
            call, call.action.call_reconcile(call.params, self._context(call)), "looking up"
        )
        return None if found is None else call.action.dump(found)

    async def _undo(self, call: _Call) -> _Outcome:
        identity = (call.job.action, call.job.key)
        entry = self._entries.setdefault(identity, _Entry(""))
        if entry.state == "undone":
            return _Outcome(data={"undone": True}, starts=call.starts, replayed=True)
        declared = call.action.effect
        is_write = declared is Effect.WRITE
        result = entry.result
        if not (is_write and result is None and entry.starts == 0):
            if is_write and result is None:
                result = await self._look_up(call)
            if not is_write or result is not None:
                undoing = call.action.call_undo(self._context(call), params=call.params, result=result)
                await self._contained(call, undoing, "undoing")
        entry.state = "undone"
        return _Outcome(data={"undone": True}, starts=call.starts + 1)

    async def _contained(self, call: _Call, running: Any, what: str) -> Any:
        try:
            async with asyncio.timeout(self._limit_s(call)):
                return await running
        except TimeoutError:
            raise Timeout(f"{what} {call.job.connector}.{call.job.action} took too long") from None
        except (ConnectorError, asyncio.CancelledError):
            raise
        except BaseException as bug:
            raise _bug(call, bug) from bug

    async def _call(self, call: _Call, *, heeds_deadline: bool) -> _Outcome:
        starts, context = call.starts + 1, self._context(call)
        limit_s, rest_s, at_deadline = self._limit_s(call), self._rest_s(call.job), False
        if heeds_deadline and rest_s is not None and rest_s < limit_s:
            limit_s, at_deadline = rest_s, True
        running = asyncio.create_task(self._guard(call, context))
        running.add_done_callback(_look_at)
        try:
            await asyncio.wait({running}, timeout=limit_s)
            if not running.done():
                running.cancel()
                await asyncio.wait({running}, timeout=UNWIND_S)
                if not running.done():
                    raise AssertionError(f"{call.action!r} ignores its cancellation")
                if running.cancelled():
                    return _Outcome(error=_late(call, limit_s, at_deadline=at_deadline), starts=starts)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait({running}, timeout=UNWIND_S)
        if running.cancelled():
            bug = ConnectorError(f"{call.action!r} cancelled itself", sent=Sent.UNCERTAIN)
            return _Outcome(error=bug, starts=starts)
        error = running.exception()
        if isinstance(error, ConnectorError):
            return _Outcome(error=error, starts=starts)
        return _Outcome(data=running.result(), starts=starts)

    async def _guard(self, call: _Call, context: Context[Any]) -> Any:
        """Call the function; whatever it raises ends this job alone."""
        action = call.action
        assert call.params is not None
        try:
            if action.is_async:
                value = await action.call(call.params, context)
            else:
                value = await asyncio.to_thread(action.call, call.params, context)
        except (ConnectorError, asyncio.CancelledError):
            raise
        except BaseException as bug:
            raise _bug(call, bug) from bug
        data = action.dump(value)
        if (size := len(to_json(data))) > MAX_RESULT_BYTES:
            message = f"the result has {size} bytes; a reply holds {MAX_RESULT_BYTES}"
            raise ConnectorError(message, code=Code.RESULT_TOO_LARGE, sent=Sent.UNCERTAIN)
        return data

    def context(self, action: Action[..., Any], params: Mapping[str, Any], *, key: str) -> Context[Any]:
        """Make the context of a run, to call a function of the connector by hand."""
        job = Job(
            id=key,
            connector=self.connector.name,
            action=action.name,
            params=dict(params),
            tenant=self._tenant,
        )
        seen = Seen(self._secrets, action.signature.personal(job.params))
        return self._context(_Call(action, None, job, seen, starts=0))

    def _limit_s(self, call: _Call) -> float:
        return call.action.timeout_s if self.timeout_s is None else self.timeout_s

    def _context(self, call: _Call) -> Context[Any]:
        assert self._http is not None, "a kit is used as `async with Kit(…) as kit`"
        job, rest_s = call.job, self._rest_s(call.job)
        credential = self.credential()
        # A logger of this job's own: what the tests of others log is not caught.
        logger = logging.Logger("connectors", logging.DEBUG)
        logger.addHandler(Recorder(call.seen.lines))
        return Context(
            job_id=job.id,
            tenant=job.tenant,
            connector=job.connector,
            action=job.action,
            idempotency_key=job.key,
            credential=credential,
            http=self._http.client(
                tenant=job.tenant,
                connector=job.connector,
                credential=job.credential,
                deadline=None if rest_s is None else asyncio.get_running_loop().time() + rest_s,
            ),
            attempt=call.starts + 1,
            deadline=job.deadline,
            locale=job.locale,
            log=JobLog(logger, {"job_id": job.id, "action": job.action}, call.seen.personal),
            _note=call.seen.notes.append,
            _now=self.clock.now,
        )


async def run(
    connector: Connector[Any],
    action: Action[..., Any] | str,
    params: Mapping[str, Any] | None = None,
    *,
    credential: Mapping[str, Any] | None = None,
    **options: Any,
) -> Ran:
    """Run one action once, in one line; `Kit.run` has the options."""
    async with Kit(connector, credential=credential) as kit:
        return await kit.run(action, params, **options)


def _result(job: Job, outcome: _Outcome, started_at: datetime, finished_at: datetime) -> Result:
    failure = outcome.error
    return Result(
        id=job.id,
        connector=job.connector,
        action=job.action,
        status="failed" if failure else "succeeded",
        data=None if failure else outcome.data,
        error=None
        if failure is None
        else error_of(
            failure.code,
            failure.message,
            locale=job.locale,
            retry_after_s=failure.retry_after_s,
            details=failure.details,
            data=failure.data,
        ),
        attempts=outcome.starts,
        replayed=outcome.replayed,
        started_at=started_at,
        finished_at=finished_at,
        duration_ms=round((finished_at - started_at).total_seconds() * 1000, 1),
    )


def _told(entry: _Entry, fingerprint: str, call: _Call) -> _Outcome | None:
    """Answer from what is known of the key; None where it is to be run."""
    key = call.job.key
    if entry.state == "undone":
        error: ConnectorError = Conflict(
            f"the effect of the key {key!r} was taken back", data={"outcome": "undone"}
        )
        return _Outcome(error=error, starts=call.starts)
    if entry.fingerprint != fingerprint:
        message = f"the key {key!r} was used before with other params"
        error = ConnectorError(message, code=Code.IDEMPOTENCY_CONFLICT)
        return _Outcome(error=error, starts=call.starts)
    if entry.state == "done":
        return _Outcome(data=entry.result, starts=entry.starts, replayed=True)
    if entry.state == "unknown":
        error = OutcomeUnknown(f"whether the effect of the key {key!r} happened is not known")
        return _Outcome(error=error, starts=entry.starts)
    return None


def _complete(entry: _Entry, outcome: _Outcome) -> _Outcome:
    entry.state, entry.result, entry.calling, entry.starts = "done", outcome.data, False, outcome.starts
    return outcome


def _fingerprint(job: Job) -> str:
    return hashlib.sha256(json.dumps(job.params, sort_keys=True).encode()).hexdigest()


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Look at the error even where nobody waits any more: asyncio complains of unseen ones."""
    if not task.cancelled():
        task.exception()


def _bug(call: _Call, bug: BaseException) -> ConnectorError:
    return ConnectorError(
        f"{call.job.connector}.{call.job.action} raised {type(bug).__name__}", sent=Sent.UNCERTAIN
    )


def _late(call: _Call, limit_s: float, *, at_deadline: bool) -> ConnectorError:
    if at_deadline:
        return _due("the deadline came while the action ran", "unknown")
    return Timeout(f"{call.job.connector}.{call.job.action} did not end in {limit_s:g} s")


def _due(message: str, outcome: str) -> ConnectorError:
    return ConnectorError(message, code=Code.DEADLINE_EXCEEDED, data={"outcome": outcome})


def _out_of_time(last: ConnectorError) -> ConnectorError:
    outcome = "unknown" if last.sent is Sent.UNCERTAIN else "not_started"
    return ConnectorError(
        f"no time was left for another try before the deadline; the last met {last.code}: {last.message}",
        code=Code.DEADLINE_EXCEEDED,
        data={"outcome": outcome, "last_code": last.code.value},
    )
