"""A job in, an outcome out. No AMQP, no SQL and no vault here: those come as protocols."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.action_runner import ActionRunner, CredentialSource
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.claims import ClaimKeeper
from connectors.sdk.runtime.clock import Clock, SystemClock
from connectors.sdk.runtime.hung_calls import HungCallback, HungCalls, ignore_hung
from connectors.sdk.runtime.idempotency import IdempotentRunner
from connectors.sdk.runtime.infrastructure import HoldPolicy, Infrastructure
from connectors.sdk.runtime.invocation import IsolatedHost
from connectors.sdk.runtime.known_connectors import KnownConnectors
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Ledger
from connectors.sdk.runtime.name_lease import NameLeases
from connectors.sdk.runtime.outcome import Attempt, Outcome
from connectors.sdk.runtime.publisher_rights import Publishers, check_publisher
from connectors.sdk.runtime.reconcile import Reconciler
from connectors.sdk.runtime.threads import THREADS
from connectors.sdk.runtime.undo import UndoRunner
from schemas.error import Code
from schemas.job import Job

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpPool

#: Connectors log through the standard library; the worker's log takes that in.
CONNECTOR_LOG: Final = logging.getLogger("connectors")


class Executor:
    """Runs jobs: finds the action, checks the job, and has it run.

    1. the registry knows the connector and the action
    2. the publisher may act for the tenant; the parameters fit
    3. what reads is run at once; what writes goes through the ledger, which may know the answer
    4. the deadline has not come; the vault gives the secret, and while it cannot, the job waits
    5. the action runs in a task of its own, with its timeout
    6. its return value or exception becomes an `Outcome`

    Created and closed by the service, or by the test kit.

    Args:
        http: None if no action needs a Context.
    """

    def __init__(
        self,
        known: KnownConnectors,
        credentials: CredentialSource,
        http: "HttpPool | None",
        ledger: Ledger,
        *,
        publishers: Publishers | None = None,
        clock: Clock | None = None,
        lease_policy: LeasePolicy | None = None,
        hold_policy: HoldPolicy | None = None,
        action_timeout_s: float | None = None,
        threads: int = THREADS,
        on_hung: HungCallback = ignore_hung,
        isolated: IsolatedHost | None = None,
        log: logging.Logger = CONNECTOR_LOG,
    ) -> None:
        self._connectors = known.connectors
        self._broken = known.broken
        self._publishers = publishers
        self._clock = clock = clock or SystemClock()
        policy = lease_policy or LeasePolicy()
        self._infrastructure = Infrastructure(hold_policy or HoldPolicy(), clock)
        leases = NameLeases(ledger, policy, clock)
        self._runner = ActionRunner(
            credentials,
            http,
            self._infrastructure,
            clock,
            leases.hold,
            log=log,
            action_timeout_s=action_timeout_s,
            threads=threads,
            on_hung=on_hung,
            isolated=isolated,
        )
        keeper = ClaimKeeper(ledger, self._infrastructure, policy, clock)
        reconciler = Reconciler(self._runner, clock)
        self._idempotent = IdempotentRunner(ledger, keeper, self._runner, reconciler, clock)
        self._undo = UndoRunner(ledger, keeper, self._runner, reconciler, clock)

    @property
    def is_stopping(self) -> bool:
        """Whether the worker drains."""
        return self._infrastructure.is_stopping

    @property
    def running(self) -> Collection["asyncio.Task[Any]"]:
        """The functions of connectors that run now."""
        return self._runner.running

    @property
    def hung(self) -> HungCalls:
        """The calls that go on though they were given up."""
        return self._runner.hung

    def stop_waiting(self) -> None:
        """Send jobs that wait for infrastructure back to their queue: the worker is stopping."""
        self._infrastructure.stop()

    async def close(self) -> None:
        """Cut short what still runs, and close what the actions hold."""
        await self._idempotent.close()
        await self._undo.close()
        self._runner.close()

    async def execute(self, job: Job, attempt: Attempt) -> Outcome:
        """Run one attempt of a job.

        Raises:
            Snooze: infrastructure is unavailable, or another worker is at it; no attempt is used up.
        """
        try:
            call = self._check(job, attempt)
            if job.mode == "undo":
                return await self._undo.undo(call)
            if job.mode == "validate":
                return await self._validate(call)
            if call.action.effect_of(call.params, None) is not Effect.READ:
                return await self._idempotent.run(call)
            attempt.deadline.check()
            secret = await self._runner.fetch(call)
            outcome = await self._runner.run(call, secret, heeds_deadline=True)
            # However it ended, it changed nothing.
            return replace(outcome, is_uncertain=False) if outcome.is_uncertain else outcome
        except ConnectorError as error:
            return Outcome(error=error, attempts=attempt.attempts)

    def context(self, job: Job, attempt: Attempt, credential: Any) -> Context[Any]:
        """Create the context of a run, to call a function of a connector by hand."""
        connector, action = self._find(job)
        return self._runner.context(Call(connector, action, None, job, attempt), credential)

    async def _validate(self, call: Call) -> Outcome:
        """Run every check up to the call, and no call."""
        call.attempt.deadline.check()
        call.connector.read_credential(await self._runner.fetch(call))
        return Outcome(data={"valid": True}, attempts=call.attempt.attempts)

    def _check(self, job: Job, attempt: Attempt) -> Call:
        """Return the call that a job asks for.

        Raises:
            ConnectorError: there is no such action, the publisher may not, or the params do not fit.
        """
        check_publisher(self._publishers, attempt.publisher, job)
        connector, action = self._find(job)
        return Call(connector, action, _read_params(action, job), job, attempt)

    def _find(self, job: Job) -> tuple[Connector[Any], Action[..., Any]]:
        connector = self._connectors.get(job.connector)
        if connector is None:
            fault = self._broken.get(job.connector)
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


def _read_params(action: Action[..., Any], job: Job) -> BaseModel | None:
    """Return the checked parameters; an undo may come without."""
    return None if job.mode == "undo" and not job.params else action.signature.read(job.params)
