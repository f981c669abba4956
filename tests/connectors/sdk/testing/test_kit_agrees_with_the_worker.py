"""The kit and the worker's executor come to the same end, whatever an action does."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.registry import Registry
from connectors.sdk import (
    Conflict,
    Connector,
    ConnectorError,
    Context,
    Effect,
    InvalidParams,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Timeout,
    Unavailable,
)
from connectors.sdk.errors import Code, Sent
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.testing import Kit
from schemas.job import Job
from worker.credentials.source import NoVault
from worker.job.executor import Executor
from worker.job.outcome import Attempt, Snooze
from worker.job.retry import Retry, decide
from worker.ledger.store import Ledger

pytestmark = pytest.mark.integration

ATTEMPTS = 3


@dataclass
class Stage:
    """A connector whose actions fail as they are told, and what they did."""

    failures: list[Callable[[], BaseException]]
    happens: bool = True
    done: list[str] = field(default_factory=list)

    def connector(self) -> Connector[None]:
        connector = Connector("stage")

        async def act(ctx: Context, note: str = "") -> str:
            """Do it, or fail."""
            failure = self.failures.pop(0)() if self.failures else None
            if failure is None or self.happens:
                self.done.append(ctx.idempotency_key)
            if failure is not None:
                raise failure
            return "done"

        async def find(ctx: Context, note: str = "") -> str | None:
            return "found" if ctx.idempotency_key in self.done else None

        async def take_back(ctx: Context, result: str | None) -> None:
            while ctx.idempotency_key in self.done:
                self.done.remove(ctx.idempotency_key)

        connector.action(effect=Effect.READ, name="read")(act)
        connector.action(effect=Effect.KEYED, name="keyed", timeout_s=0.1)(act).undo(take_back)
        connector.action(effect=Effect.WRITE, name="write", timeout_s=0.1)(act)
        findable = connector.action(effect=Effect.WRITE, name="findable", timeout_s=0.1)(act)
        findable.reconcile(find)
        findable.undo(take_back)
        return connector


Seen = tuple[Code | None, Any, int, bool]


async def worker_runs(stage: Stage, jobs: list[Job], ledger: Ledger) -> list[Seen]:
    pool = HttpPool(HttpPolicy())
    executor = Executor(Registry.of(stage.connector()), NoVault(), pool, ledger)
    try:
        return [await _job_runs(executor, job) for job in jobs]
    finally:
        await executor.close()
        await pool.close()


async def _job_runs(executor: Executor, job: Job) -> Seen:
    """Run a job to its end as the consumer does, its waits skipped."""
    starts = failures = 0
    while True:
        try:
            outcome = await executor.execute(job, Attempt(starts=starts, deadline=job.deadline))
        except Snooze:
            continue  # what may land yet is looked up again
        starts = outcome.starts
        if outcome.error is None:
            return None, outcome.data, starts, outcome.replayed
        failures += 1
        decision = decide(
            outcome.error.code,
            failures=failures,
            max_attempts=ATTEMPTS,
            now=datetime.now(UTC),
            deadline=job.deadline,
            retry_after_s=outcome.error.retry_after_s,
            chance=1.0,
        )
        if not isinstance(decision, Retry):
            return outcome.error.code, None, starts, outcome.replayed


async def kit_runs(stage: Stage, jobs: list[Job]) -> list[Seen]:
    async with Kit(stage.connector(), max_attempts=ATTEMPTS) as kit:
        ran = [
            await kit.run(
                job.action, job.params, key=job.idempotency_key, mode=job.mode, deadline=job.deadline
            )
            for job in jobs
        ]
    return [(each.code, each.data, each.attempts, each.replayed) for each in ran]


def jobs_of(action: str, key: str) -> list[Job]:
    def job(**fields: Any) -> Job:
        return Job.model_validate(
            {"id": "j", "connector": "stage", "action": action, "idempotency_key": key, **fields}
        )

    undo = [job(mode="undo"), job()] if action in {"keyed", "findable"} else []
    return [job(), job(), job(params={"note": "another"}), *undo]


FAILURES: dict[str, list[Callable[[], BaseException]]] = {
    "none": [],
    "unavailable, nothing sent": [lambda: Unavailable("down", sent=Sent.NO)],
    "unavailable, answered": [lambda: Unavailable("down")],
    "cut": [lambda: Unavailable("cut", sent=Sent.UNCERTAIN)],
    "timeout": [lambda: Timeout("late")],
    "limited for good": [lambda: RateLimited("slow down")] * ATTEMPTS,
    "not found": [lambda: NotFound("none")],
    "rejected, uncertain": [lambda: Conflict("collides", sent=Sent.UNCERTAIN)],
    "wrong together": [lambda: InvalidParams("no")],
    "unknown": [lambda: OutcomeUnknown("who knows")],
    "a bug": [lambda: ZeroDivisionError("a bug")],
    "an exit": [lambda: SystemExit(3)],
    "a code of its own": [lambda: ConnectorError("no", code=Code.REJECTED)],
}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", ttl_hours=1)
    await ledger.start()
    yield ledger
    await ledger.close()


@pytest.mark.parametrize("happens", [True, False], ids=["happens", "does not happen"])
@pytest.mark.parametrize("action", ["read", "keyed", "write", "findable"])
async def test_they_come_to_the_same_end(action: str, happens: bool, ledger: Ledger) -> None:
    for failure, raised in FAILURES.items():
        jobs = jobs_of(action, failure)
        ours, theirs = (Stage(list(raised), happens) for _ in range(2))

        of_the_kit = await kit_runs(ours, jobs)
        of_the_worker = await worker_runs(theirs, jobs, ledger)

        assert (of_the_worker, theirs.done) == (of_the_kit, ours.done), failure
