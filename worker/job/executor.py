"""A job in, an outcome out. No AMQP here, so it is tested without a broker."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from connectors.registry import Registry
from connectors.sdk.connector import Action, Connector
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError
from connectors.sdk.http.client import HttpPool
from schemas.error import Code
from schemas.job import Job
from worker.credentials.source import CredentialSource
from worker.job.action_runner import Call, Caller, utc_now
from worker.job.idempotency import Once
from worker.job.outcome import Attempt, Outcome
from worker.ledger.store import Ledger


class Executor:
    """Runs jobs: finds the action, checks the job, and has it called.

    1. the registry knows the connector and the action
    2. the tenant may be served for this publisher; the parameters fit
    3. what reads is called at once; what writes goes through the ledger, which may know the answer
    4. the deadline has not come; the vault gives the secret, and while it cannot, the job waits
    5. the action runs in a task of its own, with its timeout
    6. whatever it returned or raised becomes an `Outcome`

    Built and closed by the service.
    """

    def __init__(
        self,
        registry: Registry,
        credentials: CredentialSource,
        http: HttpPool,
        ledger: Ledger,
        *,
        publishers: Mapping[str, tuple[str, ...]] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._registry = registry
        self._connectors = registry.connectors
        self._publishers = publishers
        self._caller = Caller(credentials, http, clock=clock)
        self._once = Once(ledger, self._caller)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker drains."""
        return self._caller.is_stopping

    def stop_waiting(self) -> None:
        """Send jobs that wait for infrastructure back to their queue: the worker is stopping."""
        self._caller.stop_waiting()

    async def close(self) -> None:
        """Let go of what the actions hold."""
        await self._once.close()
        self._caller.close()

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        """Run one attempt of a job.

        Raises:
            Snooze: failing infrastructure, or another worker is at it; the job has lost nothing.
        """
        try:
            connector, action = self._find(job)
            self._check_tenant(job, attempt.publisher)
            params = _read_params(action, job)
            call = Call(connector, action, params, job, attempt)
            if job.mode == "undo":
                return await self._once.undo(call)
            if job.mode == "validate":
                return await self._validate(call)
            if action.effect_of(params, None) is not Effect.READ:
                return await self._once.run(call)
            self._caller.check_deadline(attempt.deadline)
            document = await self._caller.fetch(call)
            return await self._caller.call(call, document, heeds_deadline=True)
        except ConnectorError as error:
            return Outcome(error=error, starts=attempt.starts)

    async def _validate(self, call: Call) -> Outcome:
        """Make every check up to the call, and no call."""
        self._caller.check_deadline(call.attempt.deadline)
        call.connector.read_credential(await self._caller.fetch(call))
        return Outcome(data={"valid": True}, starts=call.attempt.starts)

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
        if job.mode == "undo" and not action.can_undo:
            raise ConnectorError(f"{job.connector}.{job.action} declares no undo", code=Code.ACTION_NOT_FOUND)
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


def _read_params(action: Action[..., Any], job: Job) -> BaseModel | None:
    """Check the parameters; an undo may come without."""
    return None if job.mode == "undo" and not job.params else action.signature.read(job.params)
