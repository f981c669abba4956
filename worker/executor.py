"""A job in, an outcome out. No AMQP here, so it is tested without a broker."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from connectors.sdk.http import HttpPool
from loguru import logger
from pydantic import BaseModel
from pydantic_core import to_json

from connectors.registry import Registry
from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context, JobLog
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, CredentialInvalid, OutcomeUnknown, Sent, Timeout
from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES, Stage
from worker.credentials import CredentialSource, VaultUnavailable
from worker.history import write_instant

#: Seconds that a job waits in hand for failing infrastructure before it hops through a retry rung.
#: Far below the broker's consumer_timeout of 30 minutes.
HOLD_S: Final = 60.0
#: Seconds that a cancelled action gets to clean up.
UNWIND_S: Final = 2.0
#: Threads for synchronous actions, per connector.
THREADS: Final = 32

#: Connectors log through the standard library; `worker.logs` takes that in.
_CONNECTOR_LOG: Final = logging.getLogger("connectors")

Note = Callable[[Stage, str | None], None]


def no_note(stage: Stage, message: str | None) -> None:
    """Tell nobody: the job asked for no progress."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of this try beside the job itself."""

    #: The broker user that published the job, as the broker vouches for it.
    publisher: str | None = None
    #: How often the action was started before.
    starts: int = 0
    #: The deadline in force.
    deadline: datetime | None = None
    #: Where progress goes.
    note: Note = no_note


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt."""

    #: JSON types; None on failure.
    data: Any = None
    error: ConnectorError | None = None
    #: How often the action was started, this try counted.
    starts: int = 0
    replayed: bool = False
    #: A write that goes on after its caller was told that the deadline came; the delivery waits for it.
    lingering: "asyncio.Task[Any] | None" = None


@dataclass(frozen=True, slots=True)
class _Call:
    """A job that passed every check, with what it takes to run it."""

    connector: Connector
    action: Action[..., Any]
    params: BaseModel
    job: Job
    attempt: Attempt


class NotNow(Exception):
    """The job cannot run for now through no fault of its own; no attempt is used up."""


class Executor:
    """Runs jobs: finds the action, checks the job, gets the secret, calls, and tells what happened.

    1. the registry knows the connector and the action
    2. the tenant may be served for this publisher; the parameters fit
    3. the deadline has not come
    4. the vault gives the credential; while it cannot, the job waits
    5. the action runs in a task of its own, with its timeout and the deadline
    6. whatever it returned or raised becomes an `Outcome`

    Started and closed by the service.
    """

    def __init__(
        self,
        registry: Registry,
        credentials: CredentialSource,
        http: HttpPool,
        *,
        publishers: Mapping[str, tuple[str, ...]] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._connectors = registry.connectors
        self._credentials = credentials
        self._http = http
        self._publishers = publishers
        self._clock = clock
        self._stopping = asyncio.Event()
        self._threads: dict[str, ThreadPoolExecutor] = {}

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

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        """Run one attempt of a job.

        Raises:
            NotNow: failing infrastructure; the job has lost nothing.
        """
        try:
            connector, action = self._find(job)
            self._check_tenant(job, attempt.publisher)
            params = self._read_params(action, job)
            if job.mode == "undo" and not action.can_undo:
                raise ConnectorError(f"{job.connector}.{job.action} has no undo", code=Code.ACTION_NOT_FOUND)
            self._check_deadline(attempt.deadline)
            document = await self._fetch(connector, job, attempt)
            if job.mode == "validate":
                connector.read_credential(document)
                return Outcome(data={"valid": True}, starts=attempt.starts)
            return await self._attempt(_Call(connector, action, params, job, attempt), document)
        except ConnectorError as error:
            return Outcome(error=error, starts=attempt.starts)

    def _find(self, job: Job) -> tuple[Connector, Action[..., Any]]:
        connector = self._connectors.get(job.connector)
        if connector is None:
            fault = self._registry.broken.get(job.connector)
            raise ConnectorError(
                fault or f"no worker runs a connector {job.connector!r}", code=Code.CONNECTOR_NOT_FOUND
            )
        action = connector.actions.get(job.action)
        if action is None:
            known = ", ".join(connector.actions)
            raise ConnectorError(
                f"connector {job.connector!r} has no action {job.action!r}; it has {known}",
                code=Code.ACTION_NOT_FOUND,
            )
        return connector, action

    def _check_tenant(self, job: Job, publisher: str | None) -> None:
        if self._publishers is None:
            return
        tenants = self._publishers.get(publisher or "", ())
        if job.tenant not in tenants and "*" not in tenants:
            who = f"the broker user {publisher!r}" if publisher else "a publisher without user_id"
            raise ConnectorError(
                f"{who} may not act for the tenant {job.tenant!r}", code=Code.TENANT_FORBIDDEN
            )

    @staticmethod
    def _read_params(action: Action[..., Any], job: Job) -> BaseModel:
        return action.signature.read(job.params)

    def _check_deadline(self, deadline: datetime | None) -> None:
        if deadline is not None and (late_s := (self._clock() - deadline).total_seconds()) >= 0:
            raise deadline_exceeded(
                f"the deadline {write_instant(deadline)} passed {late_s:.1f} s before the call could start",
                outcome="not_started",
            )

    async def _fetch(self, connector: Connector, job: Job, attempt: Attempt) -> Mapping[str, Any]:
        """Get the secret, waiting while the vault cannot give it."""
        if connector.credential is None:
            return {}
        waited_from = asyncio.get_running_loop().time()
        while True:
            try:
                return await self._credentials.fetch(job.tenant, job.connector, job.credential)
            except VaultUnavailable as unavailable:
                attempt.note("waiting", "the credential store is not available")
                waited_s = asyncio.get_running_loop().time() - waited_from
                await self._wait_for_vault(str(unavailable), HOLD_S - waited_s, attempt.deadline)
                self._check_deadline(attempt.deadline)

    async def _wait_for_vault(self, reason: str, at_most_s: float, deadline: datetime | None) -> None:
        if self._stopping.is_set() or at_most_s <= 0:
            raise NotNow(reason)
        if deadline is not None:
            at_most_s = min(at_most_s, max(0.0, (deadline - self._clock()).total_seconds()))
        available = asyncio.create_task(self._credentials.wait_available(at_most_s))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({available, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            available.cancel()
            stopping.cancel()

    async def _attempt(self, call: _Call, document: Mapping[str, Any]) -> Outcome:
        """Call the action; a provider that refuses the secret makes us read the secret once more."""
        outcome = await self._call(call, document)
        if not isinstance(outcome.error, CredentialInvalid) or call.connector.credential is None:
            return outcome
        job = call.job
        await self._credentials.invalidate(job.tenant, job.connector, job.credential)
        fresh = await self._fetch(call.connector, job, call.attempt)
        if fresh == document:
            return outcome  # the same secret would be refused again, and accounts get locked
        return await self._call(replace(call, attempt=replace(call.attempt, starts=outcome.starts)), fresh)

    async def _call(self, call: _Call, document: Mapping[str, Any]) -> Outcome:
        """Run the action in a task of its own, until it ends or its time does."""
        job, action, deadline = call.job, call.action, call.attempt.deadline
        credential = call.connector.read_credential(document)
        effect = action.effect_of(call.params, credential)
        self._check_deadline(deadline)
        starts = call.attempt.starts + 1
        call.attempt.note("started", None)
        running = asyncio.create_task(self._guard(call, self._context(call, credential, starts)))
        limit_s, deadline_first = action.timeout_s, False
        if deadline is not None:
            rest_s = (deadline - self._clock()).total_seconds()
            limit_s, deadline_first = min(limit_s, rest_s), rest_s < limit_s
        await asyncio.wait({running}, timeout=max(0.0, limit_s))
        if running.done():
            return self._judge(running, call, effect, starts)
        if deadline_first and effect is not Effect.READ:
            lingering = asyncio.create_task(self._linger(running, action.timeout_s - limit_s, job))
            return Outcome(error=_came_due(deadline), starts=starts, lingering=lingering)
        await self._cancel(running, job)
        if running.done() and not running.cancelled():
            return self._judge(running, call, effect, starts)  # it ended in the last moment
        if deadline_first:
            return Outcome(error=_came_due(deadline), starts=starts)
        error = Timeout(f"{job.connector}.{job.action} did not end in {action.timeout_s:g} s")
        return Outcome(error=_certain(error, effect), starts=starts)

    def _context(self, call: _Call, credential: Any, starts: int) -> Context[Any]:
        job, attempt = call.job, call.attempt
        fields = {
            "job_id": job.id,
            "tenant": job.tenant,
            "connector": job.connector,
            "action": job.action,
            "attempt": starts,
        }
        return Context(
            job_id=job.id,
            tenant=job.tenant,
            connector=job.connector,
            action=job.action,
            idempotency_key=job.key,
            credential=credential,
            http=self._http.client(tenant=job.tenant, connector=job.connector, credential=job.credential),
            attempt=starts,
            deadline=attempt.deadline,
            locale=job.locale,
            log=JobLog(_CONNECTOR_LOG, fields),
            _note=lambda message: attempt.note("note", message),
        )

    async def _linger(self, running: "asyncio.Task[Any]", rest_s: float, job: Job) -> None:
        """Leave a write that is on its way to finish within the action's timeout."""
        await asyncio.wait({running}, timeout=rest_s)
        if not running.done():
            await self._cancel(running, job)

    async def _cancel(self, running: "asyncio.Task[Any]", job: Job) -> None:
        running.cancel()
        await asyncio.wait({running}, timeout=UNWIND_S)
        if not running.done():
            logger.warning("action ignores its cancellation", job_id=job.id, connector=job.connector)

    async def _guard(self, call: _Call, context: Context[Any]) -> Any:
        """Call the function, keeping whatever it raises inside this task."""
        action = call.action
        try:
            if action.is_async:
                return action.dump(await action.call(call.params, context))
            threads = self._threads_of(action.connector)
            running = asyncio.get_running_loop().run_in_executor(threads, action.call, call.params, context)
            return action.dump(await running)
        except (ConnectorError, asyncio.CancelledError):
            raise
        except BaseException as bug:  # SystemExit, too: a connector ends its own job, not the worker
            logger.bind(job_id=context.job_id, tenant=context.tenant).error(
                "connector raised",
                connector=context.connector,
                action=context.action,
                error=type(bug).__name__,
                # Frames only: the text of a third party's error may hold a secret or the body.
                frames=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in _frames(bug)],
            )
            raise ConnectorError(
                f"{context.connector}.{context.action} raised {type(bug).__name__}; "
                f"the worker's log has the traceback under the job {context.job_id}",
                # Whether anything was sent cannot be known.
                sent=Sent.UNCERTAIN,
            ) from None

    def _threads_of(self, connector: str) -> ThreadPoolExecutor:
        if connector not in self._threads:
            self._threads[connector] = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{connector}-action")
        return self._threads[connector]

    @staticmethod
    def _judge(running: "asyncio.Task[Any]", call: _Call, effect: Effect, starts: int) -> Outcome:
        if running.cancelled():
            bug = ConnectorError(f"{call.job.connector}.{call.job.action} cancelled itself")
            return Outcome(error=bug, starts=starts)
        error = running.exception()
        if isinstance(error, ConnectorError):
            return Outcome(error=_certain(error, effect), starts=starts)
        assert error is None
        data = running.result()
        if (size := len(to_json(data))) > MAX_RESULT_BYTES:
            too_large = ConnectorError(
                f"the result has {size} bytes; a reply holds {MAX_RESULT_BYTES}", code=Code.RESULT_TOO_LARGE
            )
            return Outcome(error=too_large, starts=starts)
        return Outcome(data=data, starts=starts)


def deadline_exceeded(message: str, *, outcome: str, **more: str) -> ConnectorError:
    """Make the error of a job whose deadline came.

    Args:
        outcome: `not_started` or `unknown`.
    """
    return ConnectorError(message, code=Code.DEADLINE_EXCEEDED, data={"outcome": outcome, **more})


def _came_due(deadline: datetime | None) -> ConnectorError:
    when = "" if deadline is None else f" {write_instant(deadline)}"
    return deadline_exceeded(f"the deadline{when} came while the action ran", outcome="unknown")


def _certain(error: ConnectorError, effect: Effect) -> ConnectorError:
    """Turn an uncertain failure of a WRITE into what it is: nobody knows."""
    if effect is Effect.WRITE and error.sent is Sent.UNCERTAIN and error.code.facts.retryable:
        return OutcomeUnknown(f"{error.message}; the write may or may not have happened")
    return error


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
