"""Running one action: its secret, its context, its time, and what it returned or raised."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from connectors.sdk.context import Context, JobLog
from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Timeout
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.deadline import deadline_exceeded
from connectors.sdk.runtime.hung_calls import HungCallback, HungCalls, ignore_hung
from connectors.sdk.runtime.infrastructure import Infrastructure
from connectors.sdk.runtime.invocation import Invocation, IsolatedHost, checked_result
from connectors.sdk.runtime.outcome import Outcome
from connectors.sdk.runtime.slot import Slot
from connectors.sdk.runtime.threads import THREADS, ThreadCall, Threads
from schemas.error import Code
from schemas.job import Job

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpPool

#: Seconds that a cancelled action gets to clean up.
CLEAN_UP_S: Final = 2.0

#: Calls that may hang for each thread of a connector; the pool has twice the room for what runs.
HUNG_PER_THREAD: Final = 2

#: Codes by which a provider has answered for the key itself, so that an earlier attempt is settled, too. A refused
#: credential, a missing permission or a limit says nothing of what happened before.
_DEFINITE: Final = frozenset({Code.NOT_FOUND, Code.CONFLICT, Code.REJECTED})

#: Awaited right before a call leaves; raises if it must not.
BeforeSend = Callable[[], Awaitable[None]]
#: Returns what excludes other jobs of the tenant and connector under a name.
LeaseOf = Callable[[Job, Slot, str], AbstractAsyncContextManager[None]]


class CredentialSource(Protocol):
    """Where the secrets of tenants come from.

    `fetch` raises `InfrastructureUnavailable` if it cannot say for now.
    """

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, Any]:
        """Return the fields of one secret."""
        ...

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, Any] | None = None
    ) -> None:
        """Drop a secret that the provider refused, so that the next fetch reads it anew."""
        ...

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the source is believed to answer; return whether it is."""
        ...


@dataclass(slots=True, eq=False)
class _Execution(Invocation):
    """One start of an action's function, with what runs it."""

    task: "asyncio.Task[Any] | None" = None
    thread: ThreadCall | None = None


class ActionRunner:
    """Runs actions, each in a task of its own.

    1. `fetch` gets the secret, and waits while there is none to be had
    2. `run` starts the function; `before_send` is the last look at the lease
    3. it is waited for until its time is over, then cancelled, then left alone
    4. its return value or exception becomes an `Outcome`, which says whether an effect may be there
    5. a secret that the provider refuses is read anew, once

    Created and closed by the executor.

    Args:
        http: None if no action needs a Context.
        action_timeout_s: in place of each action's own; for tests.
        threads: synchronous actions of one connector that run at once.
        isolated: runs the actions that have a process of their own; without it they run in this one, too.
    """

    def __init__(
        self,
        credentials: CredentialSource,
        http: "HttpPool | None",
        infrastructure: Infrastructure,
        clock: Clock,
        lease: LeaseOf,
        *,
        log: logging.Logger,
        action_timeout_s: float | None = None,
        threads: int = THREADS,
        on_hung: HungCallback = ignore_hung,
        isolated: IsolatedHost | None = None,
    ) -> None:
        self._isolated = isolated
        self._credentials = credentials
        self._http = http
        self._infrastructure = infrastructure
        self._clock = clock
        self._lease = lease
        self._log = log
        self._action_timeout_s = action_timeout_s
        self._threads = Threads(threads)
        #: Calls that go on though they were given up.
        self.hung = HungCalls(most=HUNG_PER_THREAD * threads, on_change=on_hung)
        self._running: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Close the thread pools."""
        self._threads.close()

    @property
    def running(self) -> Collection["asyncio.Task[Any]"]:
        """The functions of connectors that run now, those included that ignore their cancellation."""
        return frozenset(self._running)

    def limit_s(self, call: Call) -> float:
        """Return the seconds until a call is given up."""
        return call.action.timeout_s if self._action_timeout_s is None else self._action_timeout_s

    async def fetch(self, call: Call) -> Mapping[str, Any]:
        """Return the secret's fields, waiting while they cannot be had.

        Raises:
            Snooze: they could not be had for the hold, or the worker stops.
            ConnectorError: there is no such secret, or the deadline came.
        """
        if call.connector.credential is None:
            return {}
        job, source = call.job, self._credentials
        fetch = partial(source.fetch, job.tenant, job.connector, job.credential)
        return await self._infrastructure.ask(
            lambda: self._by_deadline(call, fetch()), source.wait_available, call.attempt, may_abandon=True
        )

    async def run(
        self,
        call: Call,
        secret: Mapping[str, Any],
        *,
        heeds_deadline: bool,
        before_send: BeforeSend | None = None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run the action; read the secret once more if the provider refuses it.

        Args:
            heeds_deadline: end the call at the deadline. A write on its way is left to finish.
            on_refused: called if the provider refused the secret, so that nothing has happened.
        """
        has_fresh = False
        while True:
            execution = self._prepared(call, secret)
            await call.attempt.slot.resume()
            call.attempt.deadline.check()
            if before_send is not None:
                await before_send()
                execution.leave_until = self._after(self.limit_s(call))
                execution.effects.may_leave = self._is_before(execution.leave_until)
            call.attempt.report_progress("started", None)
            task = execution.task = asyncio.create_task(self._execute(execution), name=_task_name(call))
            self._track(task)
            try:
                outcome = await self._outcome_of(execution, heeds_deadline=heeds_deadline)
            finally:
                if not task.done():  # the worker abandons the job
                    task.cancel()
            if has_fresh or not _is_refused_secret(outcome, call):
                return outcome
            on_refused()
            fresh = await self._fetch_anew(call, secret)
            if fresh == secret:
                return outcome  # the same secret would be refused again, and accounts get locked
            call, secret, has_fresh = call.after(outcome.attempts), fresh, True

    async def run_hook(self, hook: Invocation, what: str) -> Any:
        """Run a reconcile or an undo, bounded like an action; return what `Invocation.await_hook` does.

        Raises:
            ConnectorError: what it raised, or TIMEOUT.
        """
        call = hook.call
        await call.attempt.slot.resume()
        task = self._track(asyncio.create_task(self._contain(hook), name=_task_name(call)))
        try:
            await self._clock.wait({task}, self.limit_s(call))
            if not task.done():
                await self._cancel(task, call)
        finally:
            task.cancel()
        if not task.done() or task.cancelled():
            raise Timeout(f"{what} {call.name} took longer than {self.limit_s(call):g} s")
        return task.result()

    def context(
        self, call: Call, credential: Any, effects: JobEffects | None = None, *, heeds_deadline: bool = True
    ) -> Context[Any]:
        """Create what an action is told and handed."""
        assert self._http is not None
        job, attempt = call.job, call.attempt
        remaining_s = attempt.deadline.remaining_s() if heeds_deadline else None
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
                deadline=None if remaining_s is None else self._clock.monotonic() + remaining_s,
                effects=effects,
            ),
            attempt=attempt.attempts + 1,
            is_repeat=call.is_repeat,
            deadline=attempt.deadline.at,
            locale=job.locale,
            log=self._log_of(call),
            _report=lambda message: attempt.report_progress("note", message),
            _lease=partial(self._lease, job, attempt.slot),
            _steps=call.steps,
            _now=self._clock.now,
        )

    def _log_of(self, call: Call) -> JobLog:
        """Create the log of one run."""
        job = call.job
        fields = {
            "job_id": job.id,
            "tenant": job.tenant,
            "connector": job.connector,
            "action": job.action,
            "attempt": call.attempt.attempts + 1,
        }
        return JobLog(self._log, fields, partial(call.action.signature.personal, job.params))

    def _prepared(self, call: Call, secret: Mapping[str, Any]) -> _Execution:
        """Return what is needed to start the action's function."""
        effects = JobEffects()
        call.steps.on_recorded = effects.record_step
        credential = call.connector.read_credential(secret)
        context = self.context(call, credential, effects) if call.action.needs_context else None
        return _Execution(call, context, effects, secret=secret)

    async def _fetch_anew(self, call: Call, refused: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the secret as the vault has it now."""
        job = call.job
        # Only the secret that was refused is dropped: of many jobs refused at once, one reads anew.
        await self._credentials.invalidate(job.tenant, job.connector, job.credential, refused=refused)
        return await self.fetch(call)

    def _after(self, seconds: float) -> Callable[[], float]:
        """Return what gives the instant in so many seconds."""
        ends_at = self._clock.monotonic() + seconds
        return lambda: ends_at

    def _is_before(self, instant: Callable[[], float]) -> Callable[[], bool]:
        return lambda: self._clock.monotonic() < instant()

    def _track(self, task: "asyncio.Task[Any]") -> "asyncio.Task[Any]":
        """Count a function of a connector among those that run."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _execute(self, execution: _Execution) -> Any:
        """Call the function; whatever it raises stays inside this task."""
        call, params = execution.call, execution.call.params
        assert params is not None
        with self._as_connector_error(call):
            if self._isolated is not None and call.action.is_isolated:
                return await self._isolated.invoke(execution)
            if call.action.is_async:
                value = await call.action.call(params, execution.context)
            else:
                thread = execution.thread = self._threads.start(
                    call.connector.name, call.action.call, params, execution.context
                )
                value = await thread.result()
            return checked_result(call.action, value)

    async def _outcome_of(self, execution: _Execution, *, heeds_deadline: bool) -> Outcome:
        """Wait for the function until its time is over, and say what came of it."""
        call, task = execution.call, execution.task
        assert task is not None
        attempts = call.attempt.attempts + 1
        limit_s, at_deadline = self.limit_s(call), False
        remaining_s = call.attempt.deadline.remaining_s()
        if heeds_deadline and remaining_s is not None and remaining_s < limit_s:
            limit_s, at_deadline = remaining_s, True
        await self._clock.wait({task}, limit_s)
        if not task.done():
            call.attempt.slot.release()  # what is left is to clean up
            cleaning = asyncio.create_task(self._cancel(task, call))
            if heeds_deadline:  # nothing depends on how a READ ends: its caller does not wait for that
                outcome = self._given_up(execution, attempts, at_deadline=at_deadline)
                return replace(outcome, ack_after=cleaning)
            await cleaning
            if not task.done() or task.cancelled():
                return self._given_up(execution, attempts, at_deadline=at_deadline)
        if task.cancelled():
            bug = ConnectorError(f"{call.name} cancelled itself", sent=Sent.UNCERTAIN)
            return Outcome(error=bug, attempts=attempts, is_uncertain=True)
        error = task.exception()
        if error is None:
            return Outcome(data=task.result(), attempts=attempts)
        assert isinstance(error, ConnectorError)
        uncertain = _is_uncertain(error, execution.effects)
        settles = not uncertain and _settles_key(error, execution.effects)
        return Outcome(error=error, attempts=attempts, is_uncertain=uncertain, settles_key=settles)

    def _given_up(self, execution: _Execution, attempts: int, *, at_deadline: bool) -> Outcome:
        """Return what became of a call whose time was over."""
        call, task, thread = execution.call, execution.task, execution.thread
        error: ConnectorError
        if at_deadline:
            error = deadline_exceeded(
                f"the deadline {call.attempt.deadline} came while the action ran", outcome="unknown"
            )
        else:
            error = Timeout(f"{call.name} did not end in {self.limit_s(call):g} s")
        still_running: asyncio.Task[Any] | None
        if thread is None:
            still_running = None if task is None or task.done() else task
            return Outcome(error=error, attempts=attempts, is_uncertain=True, still_running=still_running)
        ended = thread.give_up()
        if ended is not None:
            self.hung.add(call.job.connector, call.job.action, ended)
        still_running = None if ended is None else asyncio.create_task(self._finish(execution, ended))
        if thread.never_started:
            error = Timeout(f"no thread was free for {call.name} in {self.limit_s(call):g} s", sent=Sent.NO)
        return Outcome(
            error=error,
            attempts=attempts,
            is_uncertain=not thread.never_started,
            still_running=still_running,
        )

    async def _finish(self, execution: _Execution, ended: "asyncio.Future[Any]") -> Any:
        """Return the result of a thread whose time was over before it ended."""
        call = execution.call
        with self._as_connector_error(call):
            return call.action.dump(await asyncio.shield(ended))

    async def _cancel(self, task: "asyncio.Task[Any]", call: Call) -> None:
        """Cancel what took too long, and wait a moment for its cleaning up."""
        task.add_done_callback(_retrieve_exception)
        task.cancel()
        await self._clock.wait({task}, CLEAN_UP_S)
        if not task.done():
            JobLog(self._log, {"job_id": call.job.id}).warning(
                "action ignores its cancellation", connector=call.job.connector, action=call.job.action
            )
            self.hung.add(call.job.connector, call.job.action, task)

    async def _by_deadline(self, call: Call, asking: Coroutine[Any, Any, Any]) -> Any:
        """Stop asking at the deadline.

        Raises:
            ConnectorError: DEADLINE_EXCEEDED.
        """
        task = asyncio.ensure_future(asking)
        try:
            while not task.done():
                await self._clock.wait({task}, call.attempt.deadline.remaining_s())
                if not task.done():
                    call.attempt.deadline.check()
            return task.result()
        finally:
            task.cancel()

    async def _contain(self, hook: Invocation) -> Any:
        with self._as_connector_error(hook.call):
            if self._isolated is not None and hook.call.action.is_isolated:
                return await self._isolated.invoke(hook)
            return await hook.await_hook()

    def _as_connector_error(self, call: Call) -> "as_connector_error":
        return as_connector_error(call.name, call.job.id, partial(self._log_of, call))


class as_connector_error:  # noqa: N801  # reads as a phrase at its uses
    """Turn any exception of a connector into a ConnectorError: it ends its own job, not the worker."""

    def __init__(self, name: str, job_id: str, log: Callable[[], JobLog]) -> None:
        self._name = name
        self._job_id = job_id
        self._log = log

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, bug: BaseException | None, trace: Any) -> None:
        """Pass our own errors on, and replace the rest."""
        if bug is None or isinstance(bug, ConnectorError | asyncio.CancelledError):
            return
        self._log().error(
            "connector raised",
            error=type(bug).__name__,
            # Frames only: the text of a third party's error may hold a secret or the body.
            frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)],
        )
        raise ConnectorError(
            f"{self._name} raised {type(bug).__name__}; "
            f"the worker's log has the traceback under the job {self._job_id}",
            sent=Sent.UNCERTAIN,  # whether anything was sent cannot be known
        ) from None


def _is_uncertain(error: ConnectorError, effects: JobEffects) -> bool:
    """Whether an effect may be there though the action failed."""
    if effects.may_have_effect:
        return True
    if effects.has_sent and not error.is_sent_given:
        return False  # each request was refused: that is a proof, whatever the author made of it
    return error.sent is Sent.UNCERTAIN


def _settles_key(error: ConnectorError, effects: JobEffects) -> bool:
    """Whether a refusal answers for an earlier attempt, too: not if the run only asked, and sent no write."""
    is_write_refused = effects.has_sent or not effects.has_asked
    return is_write_refused and error.sent is Sent.ANSWERED and error.code in _DEFINITE


def _is_refused_secret(outcome: Outcome, call: Call) -> bool:
    """Whether the provider refused the secret before anything happened."""
    return (
        isinstance(outcome.error, CredentialInvalid)
        and not outcome.is_uncertain
        and call.connector.credential is not None
    )


def _retrieve_exception(task: "asyncio.Future[Any]") -> None:
    """Look at the error of a task that is not awaited any more: asyncio reports unseen ones."""
    if not task.cancelled():
        task.exception()


def _task_name(call: Call) -> str:
    """Return the name that a blocked event loop is reported with."""
    return f"{call.name} of job {call.job.id}"
