"""An executor whose one connector runs in a process of its own, on a ledger in memory."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.refresh_tokens import Rotation
from connectors.sdk.isolation.plan import Plan
from connectors.sdk.isolation.processes import Processes
from connectors.sdk.isolation.reports import Callbacks
from connectors.sdk.runtime.clock import SystemClock
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.known_connectors import GivenConnectors
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.outcome import Attempt, Outcome
from connectors.sdk.testing.secret import FixedSecret
from schemas.job import Job
from tests.support.isolated_connector import isolated


@dataclass
class Bench:
    """Runs jobs of the isolated connector."""

    executor: Executor
    processes: Processes
    kept: list[Rotation]
    calls: list[tuple[str, str]]
    ends: list[str]
    secrets: list[str]
    quotas: list[tuple[tuple[str, str, str], int, int]]
    notes: list[str] = field(default_factory=list)

    async def run(
        self, action: str, _tenant: str = "t", _mode: Any = "run", _key: str | None = None, **params: Any
    ) -> Outcome:
        """Run one attempt to the end of all that follows it."""
        job = Job(
            id=str(uuid4()),
            connector="isolated",
            action=action,
            params=params,
            tenant=_tenant,
            mode=_mode,
            idempotency_key=_key,
        )
        report = lambda stage, message: self.notes.append(message) if stage == "note" else None  # noqa: E731
        return await self.executor.execute(
            job, Attempt(Deadline(job.deadline, SystemClock()), report_progress=report)
        )


@pytest.fixture
def base_url() -> str:
    """Return where the connector's provider is."""
    return "http://127.0.0.1:9"


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch, base_url: str) -> AsyncIterator[Bench]:
    """An executor, its processes, and what they report."""
    monkeypatch.setenv("CONNECTORS_VAULT_TOKEN", "worker-secret")
    for action in isolated.actions.values():
        monkeypatch.setattr(action, "is_isolated", True)
    kept: list[Rotation] = []
    calls: list[tuple[str, str]] = []
    ends: list[str] = []
    secrets: list[str] = []
    quotas: list[tuple[tuple[str, str, str], int, int]] = []

    async def keep(rotation: Rotation) -> None:
        kept.append(rotation)

    plan = Plan(
        connector="isolated",
        reference="tests.support.isolated_connector:isolated",
        worker_pid=os.getpid(),
        settings={"api_url": "https://set.example"},
        threads=2,
        log_level=20,
        egress=("loopback",),
    )
    processes = Processes(
        {"isolated": plan},
        Callbacks(
            lambda reach, outcome, _: calls.append((reach, outcome)),
            lambda *quota: quotas.append(quota),
            secrets.append,
            keep,
        ),
        on_end=ends.append,
    )
    http = HttpPool(HttpPolicy())
    executor = Executor(
        GivenConnectors({"isolated": isolated}),
        FixedSecret(isolated, {"base_url": base_url, "key": "tenant-secret"}, set()),
        http,
        MemoryLedger(),
        isolated=processes,
    )
    yield Bench(executor, processes, kept, calls, ends, secrets, quotas)
    await executor.close()
    await processes.close()
    await http.close()
