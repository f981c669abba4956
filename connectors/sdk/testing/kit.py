"""One action run as a worker runs it: the checks, the effect, the retries, the key, the masking."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, Self
from uuid import uuid4

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError, Sent
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.personal import PersonalData
from connectors.sdk.retry import MAX_ATTEMPTS, Retry, decide
from connectors.sdk.testing.calls import Call, Caller, Outcome
from connectors.sdk.testing.clock import FakeClock
from connectors.sdk.testing.once import Once
from connectors.sdk.testing.ran import Ran, Seen, observe
from schemas.error import Code
from schemas.job import Job
from schemas.result import Result, error_of


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
        self._settings = dict(settings or {})
        self._max_attempts = max_attempts
        self._tenant = tenant
        self._secrets: set[str] = set()
        self._http = HttpPool(HttpPolicy(), on_secret=self._secrets.add)
        #: Calls the functions; its `timeout_s` may be changed between runs.
        self.caller = Caller(
            connector, credential, self._http, clock=self.clock, secrets=self._secrets, timeout_s=timeout_s
        )
        self._once = Once(self.caller)

    async def __aenter__(self) -> Self:
        self._settings, self.connector.settings = self.connector.settings, self._settings
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connector.settings = self._settings
        await self._http.close()

    def forget(self) -> None:
        """Forget every key, as a worker would that lost its ledger: the provider alone knows now."""
        self._once.forget()

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

    async def _attempt(self, job: Job, seen: Seen, starts: int) -> Outcome:
        """Make one try, as the worker's executor does."""
        try:
            action = self._find(job)
            without = job.mode == "undo" and not job.params
            params = None if without else action.signature.read(job.params)
            call = Call(action, params, job, seen, starts)
            if job.mode == "undo":
                return await self._once.undo(call)
            if job.mode == "validate":
                self.caller.check_deadline(job)
                self.caller.credential()
                return Outcome(data={"valid": True}, starts=starts)
            if action.effect_of(params, None) is not Effect.READ:
                return await self._once.run(call)
            self.caller.check_deadline(job)
            return await self.caller.call(call, heeds_deadline=True)
        except ConnectorError as error:
            return Outcome(error=error, starts=starts)

    def _find(self, job: Job) -> Action[..., Any]:
        action = self.connector.actions.get(job.action)
        if action is None:
            message = f"connector {job.connector!r} has no action {job.action!r}"
            raise ConnectorError(message, code=Code.ACTION_NOT_FOUND)
        if job.mode == "undo" and not action.can_undo:
            message = f"{job.connector}.{job.action} declares no undo"
            raise ConnectorError(message, code=Code.ACTION_NOT_FOUND)
        return action

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
        return self.caller.context(Call(action, None, job, seen, starts=0))


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


def _result(job: Job, outcome: Outcome, started_at: datetime, finished_at: datetime) -> Result:
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


def _out_of_time(last: ConnectorError) -> ConnectorError:
    outcome = "unknown" if last.sent is Sent.UNCERTAIN else "not_started"
    return ConnectorError(
        f"no time was left for another try before the deadline; the last met {last.code}: {last.message}",
        code=Code.DEADLINE_EXCEEDED,
        data={"outcome": outcome, "last_code": last.code.value},
    )
