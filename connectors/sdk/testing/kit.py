"""One action run on the worker's own core, with memory in place of vault and database."""

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self
from uuid import uuid4

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.personal import PersonalData
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.known_connectors import GivenConnectors
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.outcome import Attempt, Outcome, Snooze
from connectors.sdk.runtime.result import result_of
from connectors.sdk.runtime.retry import MAX_ATTEMPTS, Retry, decide, final_outcome
from connectors.sdk.testing.clock import FakeClock
from connectors.sdk.testing.ran import Ran, Recorder, Seen, observe, secrets_of
from connectors.sdk.testing.secret import FixedSecret
from schemas.job import Job
from schemas.result import Stage

#: Seconds until a job that could not run comes back, unless it is known when; skipped, not waited for.
SNOOZE_S = 1.0
#: A lease that outlives every skip of a test.
PATIENT = LeasePolicy(lease_s=1e9)


class Kit:
    """Run actions of one connector; remembers keys from one run to the next, as the ledger does.

    async with Kit(acme, credential=document) as kit:
        first = await kit.run("create_contact", {"email": "ada@example.com"}, key="k")
        again = await kit.run("create_contact", {"email": "ada@example.com"}, key="k")
        assert again.replayed

    Waits between attempts are skipped (`clock`); timeouts end when they are over, or when they are skipped.

    Args:
        credential: the secret's fields, as they would lie in the vault.
        settings: what an operator would have set for the connector.
        timeout_s: in place of each action's own.
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
        self._settings = {**connector.settings, **(settings or {})}
        self._max_attempts = max_attempts
        self._timeout_s = timeout_s
        self._tenant = tenant
        self._secrets: set[str] = set()
        self._secret = FixedSecret(connector, credential, self._secrets)
        self._ledger = MemoryLedger(self.clock, PATIENT)
        self._http = HttpPool(
            HttpPolicy(),
            on_secret=self._secrets.add,
            clock=self.clock.monotonic,
            wall_clock=self.clock.timestamp,
        )
        # A logger of this kit's own: what the tests of others log is not caught.
        log = logging.Logger("connectors", logging.DEBUG)
        self._recorder = Recorder()
        log.addHandler(self._recorder)
        self._executor = Executor(
            GivenConnectors({connector.name: connector}),
            self._secret,
            self._http,
            self._ledger,
            clock=self.clock,
            lease_policy=PATIENT,
            action_timeout_s=timeout_s,
            log=log,
        )

    async def __aenter__(self) -> Self:
        self._settings, self.connector.settings = self.connector.settings, self._settings
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connector.settings = self._settings
        await self._executor.close()
        await self._http.close()

    async def cancel(self, within_s: float) -> bool:
        """Cancel what runs, like a worker that is stopped; return whether it ended in time."""
        running = self._executor.running
        await self._executor.close()
        if running:
            await asyncio.wait(running, timeout=within_s)
        return all(task.done() for task in running)

    def forget(self) -> None:
        """Forget every key, like a worker that lost its ledger: only the provider knows now."""
        self._ledger.clear()

    def end_calls(self) -> None:
        """End the time of every call that runs now, and skip to that moment."""
        limits = [action.timeout_s for action in self.connector.actions.values()]
        self.clock.skip(self._timeout_s or max(limits, default=0.0))

    def effect_of(self, action: Action[..., Any], params: Mapping[str, Any]) -> Effect:
        """Return what running an action with these params does."""
        return action.effect_of(action.signature.read(dict(params)), self._secret.read())

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
        """Run a job to its end: its last attempt, its undo, or its checks."""
        name = action if isinstance(action, str) else action.name
        job = self._job(name, params or {}, key, mode=mode, deadline=deadline, locale=locale)
        known = self.connector.actions.get(name)
        personal = PersonalData() if known is None else known.signature.personal(job.params)
        seen = Seen(self._secrets, personal)
        started_at, waits_s = self.clock.now(), list[float]()
        with self._recorder.keep(job.id, seen.lines):
            outcome = await self._run_to_end(job, seen, waits_s)
        result = result_of(job, outcome, started_at=started_at, finished_at=self.clock.now())
        return observe(result, seen, params=job.params, waits_s=tuple(waits_s))

    def context(self, action: Action[..., Any], params: Mapping[str, Any], *, key: str) -> Context[Any]:
        """Create the context of a run, to call a function of the connector by hand."""
        job = self._job(action.name, params, key, id=key)
        credential = self._secret.read()
        self._secrets.update(secrets_of(credential))
        return self._executor.context(job, Attempt(Deadline(None, self.clock)), credential)

    async def _run_to_end(self, job: Job, seen: Seen, waits_s: list[float]) -> Outcome:
        """Run attempts as the worker does, and skip the waits between them."""
        failures, attempts, is_uncertain = 0, 0, False

        def report(stage: Stage, message: str | None) -> None:
            if stage == "note":
                seen.notes.append(message or "")

        while True:
            deadline = Deadline(job.deadline, self.clock)
            attempt = Attempt(deadline, attempts=attempts, is_uncertain=is_uncertain, report_progress=report)
            try:
                outcome = await self._executor.execute(job, attempt)
            except Snooze as snooze:
                self.clock.skip(snooze.retry_in_s or snooze.at_most_s or SNOOZE_S)
                continue
            if outcome.ack_after is not None:
                await outcome.ack_after
            error, attempts, is_uncertain = outcome.error, outcome.attempts, outcome.is_uncertain
            if error is None:
                return outcome
            failures, now = failures + 1, self.clock.now()
            decision = decide(
                error.code,
                failures=failures,
                max_attempts=self._max_attempts,
                now=now,
                deadline=job.deadline,
                retry_after_s=error.retry_after_s,
                random_fraction=1.0,
            )
            if not isinstance(decision, Retry):
                return final_outcome(outcome, at_deadline=decision.at_deadline)
            waits_s.append((decision.not_before - now).total_seconds())
            self.clock.skip(waits_s[-1])

    def _job(
        self, action: str, params: Mapping[str, Any], key: str | None, *, id: str | None = None, **fields: Any
    ) -> Job:
        return Job(
            id=id or str(uuid4()),
            connector=self.connector.name,
            action=action,
            params=json.loads(json.dumps(params)),
            tenant=self._tenant,
            idempotency_key=key,
            **fields,
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
