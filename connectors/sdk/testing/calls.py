"""Calling one action in the kit: its secret, its context, its time, and what it returned or raised."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import to_json

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context, JobLog
from connectors.sdk.errors import ConnectorError, CredentialNotFound, Sent, Timeout
from connectors.sdk.http.client import HttpPool
from connectors.sdk.testing.clock import FakeClock
from connectors.sdk.testing.ran import Recorder, Seen, secrets_of
from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES

#: Seconds that a cancelled action gets to clean up, as in the worker.
UNWIND_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try."""

    data: Any = None
    error: ConnectorError | None = None
    starts: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A job that passed every check, with what it takes to run it."""

    action: Action[..., Any]
    params: BaseModel | None
    job: Job
    seen: Seen
    starts: int


class Caller:
    """Calls actions of one connector, as the worker's caller does. Made by the kit, for its own time.

    Args:
        secrets: what must not come out; added to as it becomes known.
        timeout_s: in the place of each action's own.
    """

    def __init__(
        self,
        connector: Connector[Any],
        document: Mapping[str, Any] | None,
        http: HttpPool,
        *,
        clock: FakeClock,
        secrets: set[str],
        timeout_s: float | None,
    ) -> None:
        self._connector = connector
        self._document = document
        self._http = http
        self._clock = clock
        self._secrets = secrets
        self.timeout_s = timeout_s
        self._over = asyncio.Event()

    def end_call(self) -> None:
        """Let the time of what runs be over now, whatever its limit."""
        self._over.set()
        self._over = asyncio.Event()

    def credential(self) -> Any:
        """Read the document as the worker does, against the connector's model."""
        if self._connector.credential is None:
            return None
        if self._document is None:
            raise CredentialNotFound(f"the kit was given no credential for {self._connector.name!r}")
        credential = self._connector.read_credential(self._document)
        self._secrets.update(secrets_of(credential))
        return credential

    def rest_s(self, job: Job) -> float | None:
        """Count the seconds until the deadline; None without one."""
        return None if job.deadline is None else max(0.0, (job.deadline - self._clock.now()).total_seconds())

    def check_deadline(self, job: Job) -> None:
        """Start nothing after the deadline."""
        if self.rest_s(job) == 0:
            raise due("the deadline passed before the call could start", "not_started")

    async def contained(self, call: Call, running: Any, what: str) -> Any:
        """Wait for a reconcile or an undo, within the action's time."""
        try:
            async with asyncio.timeout(self._limit_s(call)):
                return await running
        except TimeoutError:
            raise Timeout(f"{what} {call.job.connector}.{call.job.action} took too long") from None
        except (ConnectorError, asyncio.CancelledError):
            raise
        except BaseException as bug:
            raise _bug(call, bug) from bug

    async def call(self, call: Call, *, heeds_deadline: bool) -> Outcome:
        """Call the action and wait until its time is over.

        Args:
            heeds_deadline: end the call at the deadline. A write on its way is left to finish.
        """
        starts, context = call.starts + 1, self.context(call)
        limit_s, rest_s, at_deadline = self._limit_s(call), self.rest_s(call.job), False
        if heeds_deadline and rest_s is not None and rest_s < limit_s:
            limit_s, at_deadline = rest_s, True
        running = asyncio.create_task(self._guard(call, context))
        running.add_done_callback(_look_at)
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({running, over}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                running.cancel()
                await asyncio.wait({running}, timeout=UNWIND_S)
                if not running.done():
                    raise AssertionError(f"{call.action!r} ignores its cancellation")
                if running.cancelled():
                    return Outcome(error=_late(call, limit_s, at_deadline=at_deadline), starts=starts)
        finally:
            over.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running}, timeout=UNWIND_S)
        if running.cancelled():
            bug = ConnectorError(f"{call.action!r} cancelled itself", sent=Sent.UNCERTAIN)
            return Outcome(error=bug, starts=starts)
        error = running.exception()
        if isinstance(error, ConnectorError):
            return Outcome(error=error, starts=starts)
        return Outcome(data=running.result(), starts=starts)

    async def _guard(self, call: Call, context: Context[Any]) -> Any:
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

    def _limit_s(self, call: Call) -> float:
        return call.action.timeout_s if self.timeout_s is None else self.timeout_s

    def context(self, call: Call) -> Context[Any]:
        """Put together what an action is told and handed."""
        job, rest_s = call.job, self.rest_s(call.job)
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
            log=JobLog(logger, {"job_id": job.id, "action": job.action}, lambda: call.seen.personal),
            _note=call.seen.notes.append,
            _now=self._clock.now,
        )


def _look_at(task: "asyncio.Task[Any]") -> None:
    """Look at the error even where nobody waits any more: asyncio complains of unseen ones."""
    if not task.cancelled():
        task.exception()


def _bug(call: Call, bug: BaseException) -> ConnectorError:
    return ConnectorError(
        f"{call.job.connector}.{call.job.action} raised {type(bug).__name__}", sent=Sent.UNCERTAIN
    )


def _late(call: Call, limit_s: float, *, at_deadline: bool) -> ConnectorError:
    if at_deadline:
        return due("the deadline came while the action ran", "unknown")
    return Timeout(f"{call.job.connector}.{call.job.action} did not end in {limit_s:g} s")


def due(message: str, outcome: str) -> ConnectorError:
    """Make the error of a job whose deadline came."""
    return ConnectorError(message, code=Code.DEADLINE_EXCEEDED, data={"outcome": outcome})
