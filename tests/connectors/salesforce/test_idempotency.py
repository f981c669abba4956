"""Salesforce under the worker's promise: one effect per key, on a real ledger, whatever the org does."""

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from connectors.registry import Registry
from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault, SalesforceSandbox
from connectors.sdk.http.client import HttpPool
from connectors.sdk.runtime.clock import SystemClock
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.outcome import Attempt, Outcome, Snooze
from connectors.sdk.runtime.retry import GiveUp, Retry, decide
from schemas.error import Code
from schemas.job import Job
from worker.credentials.source import NoVault
from worker.ledger.store import SqlLedger

pytestmark = pytest.mark.integration

LEAD = {"last_name": "Hopper", "company": "Navy"}
MISHAPS = (
    Fault("upsert", cut="before"),
    Fault("upsert", cut="after"),
    Fault("upsert", truncate=5),
    Fault("upsert", body=b"<html>"),
    Fault("upsert", body=b"[]"),
    Fault("upsert", status=503, code="SERVER_UNAVAILABLE"),
    Fault("upsert", status=502, does_work=True),
    Fault("upsert", status=500),
    Fault("upsert", status=400, code="UNABLE_TO_LOCK_ROW"),
    Fault("upsert", status=401, code="INVALID_SESSION_ID"),
    Fault("token", status=503),
    Fault("token", cut="before"),
)


class Given(NoVault):
    """A source that holds one document."""

    def __init__(self) -> None:
        super().__init__()
        self.document: Mapping[str, JsonValue] = {}

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, JsonValue]:
        return self.document


class Desk:
    """An executor, and a caller who sends jobs to it."""

    def __init__(self, org: SalesforceSandbox, source: Given, executor: Executor) -> None:
        self.org = org
        self._source = source
        self._executor = executor

    async def send(
        self, action: str, params: dict[str, Any], attempts: int = 0, mode: str = "run", **fields: str
    ) -> Outcome:
        self._source.document = self.org.authority.document("client_credentials", **fields)
        job = Job.model_validate(
            {"id": "job-1", "connector": "salesforce", "action": action, "params": params, "mode": mode}
        )
        return await self._executor.execute(job, Attempt(Deadline(None, SystemClock()), attempts=attempts))

    def leads(self) -> int:
        return len(self.org.journal.of("created", "Lead"))


@pytest.fixture
async def desk(org: SalesforceSandbox, pool: HttpPool, tmp_path: Path) -> AsyncIterator[Desk]:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    await ledger.start()
    source = Given()
    executor = Executor(Registry.of(salesforce), source, pool, ledger)
    yield Desk(org, source, executor)
    await executor.close()
    await ledger.close()


def _code(outcome: Outcome) -> Code | None:
    return None if outcome.error is None else outcome.error.code


async def test_a_lost_upsert_leaves_one_lead(desk: Desk) -> None:
    desk.org.faults.add(Fault("upsert", cut="after"))
    first = await desk.send("create_lead", LEAD, lead_external_id_field=KEY_FIELD)
    second = await desk.send("create_lead", LEAD, attempts=1, lead_external_id_field=KEY_FIELD)
    third = await desk.send("create_lead", LEAD, lead_external_id_field=KEY_FIELD)

    assert (Code.UNAVAILABLE, None, None) == (_code(first), _code(second), _code(third))
    assert second.data["created"] is False
    assert third.replayed
    assert 1 == desk.leads()


@pytest.mark.parametrize("seed", range(12))
async def test_any_faults_leave_one_lead(desk: Desk, seed: int) -> None:
    luck = random.Random(seed)
    for _ in range(luck.randint(1, 5)):
        desk.org.faults.add(replace(luck.choice(MISHAPS)))
    if luck.random() < 0.5:
        desk.org.authority.expire_sessions()

    outcomes: list[Outcome] = []
    while not outcomes or outcomes[-1].error is not None:
        outcomes.append(await desk.send("create_lead", LEAD, len(outcomes), lead_external_id_field=KEY_FIELD))
        assert len(outcomes) < 10

    assert all(each.error.code.facts.retryable for each in outcomes[:-1] if each.error is not None)
    assert 1 == desk.leads()


async def test_a_lost_create_is_found_by_its_key_field(desk: Desk) -> None:
    desk.org.faults.add(Fault("create", cut="after"))

    outcome = await desk.send("create_lead", LEAD, lead_key_field=KEY_FIELD)

    assert outcome.error is None
    assert outcome.data["lead_id"] == next(desk.org.store.records("Lead"))["Id"]
    assert 1 == desk.leads()


async def test_a_create_that_may_still_land_is_not_repeated(desk: Desk) -> None:
    desk.org.faults.add(Fault("create", cut="before"))
    first = await desk.send("create_lead", LEAD, lead_key_field=KEY_FIELD)

    assert Code.TIMEOUT == _code(first)
    with pytest.raises(Snooze, match="may land yet"):
        await desk.send("create_lead", LEAD, attempts=1, lead_key_field=KEY_FIELD)
    assert 0 == desk.leads()


async def test_a_create_without_a_mark_is_unknown_and_never_repeated(desk: Desk) -> None:
    desk.org.faults.add(Fault("create", cut="after"))
    first = await desk.send("create_lead", LEAD)
    second = await desk.send("create_lead", LEAD, attempts=1)

    assert (Code.OUTCOME_UNKNOWN, Code.OUTCOME_UNKNOWN) == (_code(first), _code(second))
    assert first.error is not None
    assert "names no field" in first.error.message
    assert 1 == desk.leads()


async def test_a_comment_cut_off_is_unknown_and_never_repeated(desk: Desk) -> None:
    params = {"case_number": "00001001", "status": "Working", "comment": "Called back"}
    desk.org.faults.add(Fault("composite", cut="after"))
    first = await desk.send("update_case", params)
    await desk.send("update_case", params, attempts=1)

    assert Code.OUTCOME_UNKNOWN == _code(first)
    assert 1 == len(desk.org.journal.of("created", "CaseComment"))


async def test_an_update_cut_off_is_made_again(desk: Desk) -> None:
    params = {"case_number": "00001001", "status": "Working"}
    desk.org.faults.add(Fault("update", cut="after"))
    first = await desk.send("update_case", params)
    second = await desk.send("update_case", params, attempts=1)

    assert (Code.UNAVAILABLE, None) == (_code(first), _code(second))


async def test_an_undone_lead_stays_undone(desk: Desk) -> None:
    await desk.send("create_lead", LEAD, lead_external_id_field=KEY_FIELD)
    undone = await desk.send("create_lead", {}, mode="undo", lead_external_id_field=KEY_FIELD)
    again = await desk.send("create_lead", LEAD, lead_external_id_field=KEY_FIELD)

    assert {"undone": True} == undone.data
    assert Code.CONFLICT == _code(again)
    assert [] == list(desk.org.store.records("Lead"))


@pytest.mark.parametrize("fields", [{}, {"lead_key_field": KEY_FIELD}, {"lead_external_id_field": KEY_FIELD}])
async def test_an_undo_that_comes_first_wins(desk: Desk, fields: dict[str, str]) -> None:
    undone = await desk.send("create_lead", {}, 0, "undo", **fields)
    late = await desk.send("create_lead", LEAD, 0, "run", **fields)

    assert {"undone": True} == undone.data
    assert Code.CONFLICT == _code(late)
    assert 0 == desk.leads()


async def test_a_used_up_day_is_reported_and_a_busy_moment_retried(desk: Desk) -> None:
    decided = []
    for message in ("TotalRequests Limit exceeded.", "ConcurrentRequests (Concurrent API) Limit exceeded."):
        desk.org.faults.add(Fault("limits", status=403, code="REQUEST_LIMIT_EXCEEDED", message=message))
        error = (await desk.send("get_limits", {})).error
        assert error is not None
        assert Code.RATE_LIMITED == error.code
        decided.append(
            decide(
                error.code,
                failures=1,
                max_attempts=5,
                now=desk.org.store.now(),
                deadline=None,
                retry_after_s=error.retry_after_s,
                random_fraction=0.5,
            )
        )

    assert [GiveUp, Retry] == [type(each) for each in decided]


async def test_validate_makes_no_call(desk: Desk) -> None:
    outcome = await desk.send("create_lead", LEAD, mode="validate")

    assert {"valid": True} == outcome.data
    assert [] == desk.org.requests
