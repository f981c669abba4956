"""A job in, an outcome out: what is checked before anything runs."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from connectors.sdk.errors import Code
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.outcome import Attempt, Outcome
from connectors.sdk.runtime.publisher_rights import PublisherRights
from connectors.sdk.testing import FakeClock
from schemas.job import Job
from tests.support.runtime_bench import Bench, open_bench, said


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench


RIGHTS = {
    "clinic": PublisherRights(tenants=("acme",)),
    "root": PublisherRights(tenants=("*",)),
    "reader": PublisherRights(tenants=("*",), actions=("shop.read",)),
    "booker": PublisherRights(tenants=("acme",), connectors=("shop",), modes=("run", "validate")),
    "outsider": PublisherRights(tenants=("acme",), connectors=("erp",)),
}


async def _execute(bench: Bench, *, publisher: str | None = None, late: bool = False, **job: Any) -> Outcome:
    at = bench.clock.now() - timedelta(seconds=1) if late else None
    worker = bench.worker(publishers=RIGHTS if publisher else None)
    fields = {"id": "j", "connector": "shop", "action": "keyed", "tenant": "acme", **job}
    return await worker.execute(Job(**fields), Attempt(Deadline(at, bench.clock), publisher))


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"connector": "erp"}, Code.CONNECTOR_NOT_FOUND),
        ({"action": "fly"}, Code.ACTION_NOT_FOUND),
        ({"action": "write", "mode": "undo"}, Code.ACTION_NOT_FOUND),
        ({"params": {"colour": "red"}}, Code.INVALID_PARAMS),
    ],
    ids=["no such connector", "no such action", "no undo", "unknown parameter"],
)
async def test_a_job_that_does_not_fit_runs_nothing(
    bench: Bench, job: dict[str, Any], expected: Code
) -> None:
    outcome = await _execute(bench, **job)

    assert (expected, 0, []) == (said(outcome)[0], outcome.attempts, bench.shop.orders)


@pytest.mark.parametrize(
    ("publisher", "tenant", "is_allowed"),
    [("clinic", "acme", True), ("clinic", "beta", False), ("root", "beta", True), ("guest", "acme", False)],
)
async def test_a_publisher_acts_for_its_tenants_alone(
    bench: Bench, publisher: str, tenant: str, is_allowed: bool
) -> None:
    outcome = await _execute(bench, publisher=publisher, tenant=tenant)

    assert is_allowed is (outcome.error is None)
    assert is_allowed or Code.TENANT_FORBIDDEN is said(outcome)[0]


@pytest.mark.parametrize(
    ("publisher", "job"),
    [
        ("reader", {"action": "keyed"}),
        ("booker", {"mode": "undo"}),
        ("outsider", {}),
        ("guest", {"connector": "unknown"}),
    ],
    ids=["another action", "undo without the right", "another connector", "no rights at all"],
)
async def test_a_publisher_asks_for_what_it_has_the_right_to_alone(
    bench: Bench, publisher: str, job: dict[str, Any]
) -> None:
    outcome = await _execute(bench, publisher=publisher, **job)

    assert (Code.TENANT_FORBIDDEN, []) == (said(outcome)[0], bench.shop.orders)


async def test_a_job_to_validate_is_checked_and_not_run(bench: Bench) -> None:
    outcome = await _execute(bench, mode="validate")

    assert ({"valid": True}, []) == (outcome.data, bench.shop.orders)


@pytest.mark.parametrize("mode", ["run", "validate"])
async def test_a_job_past_its_deadline_is_not_started(bench: Bench, mode: str) -> None:
    outcome = await _execute(bench, late=True, mode=mode)

    assert (Code.DEADLINE_EXCEEDED, "not_started") == said(outcome)
    assert [] == bench.shop.orders


async def test_a_write_has_one_effect_however_often_its_job_comes() -> None:
    async with open_bench(FakeClock()) as bench:
        first, again = await bench.run("keyed"), await bench.run("keyed")

    assert (["k"], "order 1", "order 1", True) == (bench.shop.orders, first.data, again.data, again.replayed)
