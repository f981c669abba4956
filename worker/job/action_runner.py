"""Calling one action: its secret, its context, its time, and what it returned or raised."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from loguru import logger
from pydantic import BaseModel
from pydantic_core import to_json

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context, JobLog
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Timeout
from connectors.sdk.http.client import HttpPool
from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES
from worker.credentials.source import CredentialSource, VaultUnavailable
from worker.job.headers import write_instant
from worker.job.outcome import Attempt, Outcome, Snooze, deadline_exceeded

#: Seconds that a job waits in hand for failing infrastructure before it hops through a retry rung.
#: Far below the broker's consumer_timeout of 30 minutes.
HOLD_S: Final = 60.0
#: Seconds that a cancelled action gets to clean up.
UNWIND_S: Final = 2.0
#: Threads for synchronous actions, per connector.
THREADS: Final = 32

#: Connectors log through the standard library; `worker.logs.setup` takes that in.
_CONNECTOR_LOG: Final = logging.getLogger("connectors")


@dataclass(frozen=True, slots=True)
class Call:
    """A job that passed every check, with what it takes to run it."""

    connector: Connector
    action: Action[..., Any]
    #: None where an undo came without.
    params: BaseModel | None
    job: Job
    attempt: Attempt

    def after(self, starts: int) -> "Call":
        """The same call, once the action was started so often."""
        return replace(self, attempt=replace(self.attempt, starts=starts))


#: Asked right before a call leaves; raises where it must not.
Permit = Callable[[], Awaitable[None]]


class Caller:
    """Calls actions. Closed by the executor."""

    def __init__(
        self, credentials: CredentialSource, http: HttpPool, *, clock: Callable[[], datetime]
    ) -> None:
        self._credentials = credentials
        self._http = http
        self._clock = clock
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the worker drains."""
        return self._stopping.is_set()

    def stop_waiting(self) -> None:
        """Send jobs that wait for infrastructure back to their queue: the worker is stopping."""
        self._stopping.set()

    def close(self) -> None:
        """Let the threads go; one that still blocks is not waited for."""
        for pool in self._threads.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def rest_s(self, deadline: datetime | None) -> float | None:
        """Count the seconds until a deadline; None without one."""
        return None if deadline is None else max(0.0, (deadline - self._clock()).total_seconds())

    def check_deadline(self, deadline: datetime | None) -> None:
        """Start nothing after the deadline.

        Raises:
            ConnectorError: DEADLINE_EXCEEDED, not started.
        """
        if deadline is not None and (late_s := (self._clock() - deadline).total_seconds()) >= 0:
            raise deadline_exceeded(
                f"the deadline {write_instant(deadline)} passed {late_s:.1f} s before the call could start",
                outcome="not_started",
            )

    async def fetch(self, call: Call) -> Mapping[str, Any]:
        """Get the secret, waiting while the vault cannot give it.

        Raises:
            Snooze: it could not for HOLD_S, or the worker stops.
            ConnectorError: there is none for this job, or the deadline came.
        """
        if call.connector.credential is None:
            return {}
        job, source = call.job, self._credentials
        waited_from = _monotonic()
        while True:
            try:
                return await source.fetch(job.tenant, job.connector, job.credential)
            except VaultUnavailable as unavailable:
                await self.wait_for(source.wait_available, str(unavailable), waited_from, call.attempt)

    async def wait_for(
        self,
        available: Callable[[float], Awaitable[bool]],
        reason: str,
        waited_from: float,
        attempt: Attempt,
    ) -> None:
        """Wait in hand for infrastructure, until the deadline, the hold or the worker's stop.

        Raises:
            Snooze, ConnectorError: as `fetch`.
        """
        attempt.note("waiting", "a part of the service is not available")
        at_most_s = HOLD_S - (_monotonic() - waited_from)
        if self.is_stopping or at_most_s <= 0:
            raise Snooze(reason)
        if (rest_s := self.rest_s(attempt.deadline)) is not None:
            at_most_s = min(at_most_s, rest_s)
        back = asyncio.ensure_future(available(at_most_s))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({back, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.cancel()
            stopping.cancel()
        self.check_deadline(attempt.deadline)

    async def call(
        self,
        call: Call,
        document: Mapping[str, Any],
        *,
        heeds_deadline: bool,
        permit: Permit | None = None,
        on_refusal: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Call the action; a provider that refuses the secret makes us read the secret once more.

        Args:
            heeds_deadline: end the call at the deadline. A write on its way is left to finish.
            on_refusal: told that the provider refused the secret, so that nothing has happened so far.
        """
        outcome = await self._call_once(call, document, heeds_deadline, permit)
        if not isinstance(outcome.error, CredentialInvalid) or call.connector.credential is None:
            return outcome
        job = call.job
        if outcome.error.sent is not Sent.UNCERTAIN:
            on_refusal()
        # Only the secret that was refused is dropped: of many jobs refused at once, one reads anew.
        await self._credentials.invalidate(job.tenant, job.connector, job.credential, refused=document)
        fresh = await self.fetch(call)
        if fresh == document:
            return outcome  # the same secret would be refused again, and accounts get locked
        return await self._call_once(call.after(outcome.starts), fresh, heeds_deadline, permit)

    async def _call_once(
        self, call: Call, document: Mapping[str, Any], heeds_deadline: bool, permit: Permit | None
    ) -> Outcome:
        assert call.params is not None
        context = self.context(call, call.connector.read_credential(document))
        self.check_deadline(call.attempt.deadline)
        if permit is not None:
            await permit()
        call.attempt.note("started", None)
        running = asyncio.create_task(self._guard(call, call.params, context))
        try:
            return await self._outcome(call, running, heeds_deadline=heeds_deadline)
        finally:
            if not running.done():  # the worker abandons the job
                running.cancel()

    async def _outcome(self, call: Call, running: "asyncio.Task[Any]", *, heeds_deadline: bool) -> Outcome:
        """Wait for the action until its time is over."""
        job, starts = call.job, call.attempt.starts + 1
        limit_s, at_deadline = call.action.timeout_s, False
        rest_s = self.rest_s(call.attempt.deadline)
        if heeds_deadline and rest_s is not None and rest_s < limit_s:
            limit_s, at_deadline = rest_s, True
        await asyncio.wait({running}, timeout=limit_s)
        if not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=UNWIND_S)
            if not running.done():
                logger.warning("action ignores its cancellation", job_id=job.id, connector=job.connector)
            if not running.done() or running.cancelled():
                return Outcome(error=_late(call, at_deadline=at_deadline), starts=starts)
        if running.cancelled():
            bug = ConnectorError(f"{job.connector}.{job.action} cancelled itself", sent=Sent.UNCERTAIN)
            return Outcome(error=bug, starts=starts)
        error = running.exception()
        if isinstance(error, ConnectorError):
            return Outcome(error=error, starts=starts)
        assert error is None
        return Outcome(data=running.result(), starts=starts)

    def context(self, call: Call, credential: Any) -> Context[Any]:
        """Put together what an action is told and handed."""
        job, attempt = call.job, call.attempt
        rest_s = self.rest_s(attempt.deadline)
        fields = {
            "job_id": job.id,
            "tenant": job.tenant,
            "connector": job.connector,
            "action": job.action,
            "attempt": attempt.starts + 1,
        }
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
                deadline=None if rest_s is None else _monotonic() + rest_s,
            ),
            attempt=attempt.starts + 1,
            deadline=attempt.deadline,
            locale=job.locale,
            log=JobLog(_CONNECTOR_LOG, fields, partial(call.action.signature.personal, job.params)),
            _note=lambda message: attempt.note("note", message),
        )

    async def _guard(self, call: Call, params: BaseModel, context: Context[Any]) -> Any:
        """Call the function, keeping whatever it raises inside this task."""
        action = call.action
        with contained(context):
            if action.is_async:
                data = action.dump(await action.call(params, context))
            else:
                threads = self._threads_of(action.connector)
                loop = asyncio.get_running_loop()
                data = action.dump(await loop.run_in_executor(threads, action.call, params, context))
            if (size := len(to_json(data))) > MAX_RESULT_BYTES:
                raise ConnectorError(
                    f"the result has {size} bytes; a reply holds {MAX_RESULT_BYTES}",
                    code=Code.RESULT_TOO_LARGE,
                    sent=Sent.UNCERTAIN,  # what it did, it did
                )
            return data

    def _threads_of(self, connector: str) -> ThreadPoolExecutor:
        if connector not in self._threads:
            self._threads[connector] = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{connector}-action")
        return self._threads[connector]


class contained:  # noqa: N801  # reads as an adjective at its uses
    """Turn whatever a connector raises into a ConnectorError: it ends its own job, not the worker."""

    def __init__(self, context: Context[Any]) -> None:
        self._context = context

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: Any, bug: BaseException | None, trace: Any) -> None:
        """Let our own errors pass, and rebuild the rest."""
        if bug is None or isinstance(bug, ConnectorError | asyncio.CancelledError):
            return
        context = self._context
        logger.bind(job_id=context.job_id, tenant=context.tenant).error(
            "connector raised",
            connector=context.connector,
            action=context.action,
            error=type(bug).__name__,
            # Frames only: the text of a third party's error may hold a secret or the body.
            frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)],
        )
        raise ConnectorError(
            f"{context.connector}.{context.action} raised {type(bug).__name__}; "
            f"the worker's log has the traceback under the job {context.job_id}",
            sent=Sent.UNCERTAIN,  # whether anything was sent cannot be known
        ) from None


def effect_in_force(call: Call, credential: Any) -> Effect:
    """Say what running this call does to the world."""
    assert call.params is not None
    return call.action.effect_of(call.params, credential)


def _late(call: Call, *, at_deadline: bool) -> ConnectorError:
    if at_deadline and call.attempt.deadline is not None:
        when = write_instant(call.attempt.deadline)
        return deadline_exceeded(f"the deadline {when} came while the action ran", outcome="unknown")
    return Timeout(f"{call.job.connector}.{call.job.action} did not end in {call.action.timeout_s:g} s")


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)
