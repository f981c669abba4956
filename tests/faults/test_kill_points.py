"""kill -9 at every point of a job's life: at most one effect, and the same answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartWorker
from tests.faults import kill_table
from tests.support.failing_worker import POINTS
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]

#: Worker processes at once; more would only wait for the two cores.
AT_ONCE = 3


@dataclass(frozen=True)
class Case:
    """One job, killed at one point."""

    point: str
    action: str

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"{self.action}-{self.point}"

    @property
    def kind(self) -> str:
        """What it leaves at the provider."""
        return "bookings" if self.action == "book" else "notes"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.mark.parametrize("action", ["book", "jot", "scribble"])
async def test_kill_9_at_each_point_leaves_one_effect_and_one_answer(
    action: str, rabbitmq: PrivateRabbitMQ, provider: Provider, start_worker: StartWorker, tmp_path: Path
) -> None:
    """On SQLite: the worker dies, and is started again."""
    seen = await _kill_at_each_point(action, rabbitmq, provider, start_worker, tmp_path, None)

    assert kill_table.recorded("SQLite", action, seen) == seen


@pytest.mark.parametrize("action", ["book", "jot", "scribble"])
async def test_a_second_worker_takes_over_from_one_killed_at_each_point(
    action: str,
    rabbitmq: PrivateRabbitMQ,
    postgres: PrivatePostgres,
    provider: Provider,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """On PostgreSQL: two workers; whichever takes the job dies, and the other sees it through."""
    seen = await _kill_at_each_point(action, rabbitmq, provider, start_worker, tmp_path, postgres)

    assert kill_table.recorded("PostgreSQL", action, seen) == seen


async def _kill_at_each_point(
    action: str,
    rabbitmq: PrivateRabbitMQ,
    provider: Provider,
    start_worker: StartWorker,
    tmp_path: Path,
    postgres: PrivatePostgres | None,
) -> dict[str, str]:
    """Kill at each point, and say what came of it by point."""
    slots = asyncio.Semaphore(AT_ONCE)
    cases = [Case(point, action) for point in POINTS]

    # One after the other: the helper that informs the node has one name.
    urls = {case: await rabbitmq.add_vhost(f"{case.key}-{tmp_path.name}") for case in cases}
    ledgers = {
        case: f"sqlite:///{tmp_path}/{case.key}.db"
        if postgres is None
        else await postgres.create_database(f"{case.key}-{tmp_path.name}".lower())
        for case in cases
    }

    async def run(case: Case) -> dict[str, Any]:
        async with slots:
            return await _run(
                case,
                urls[case],
                start_worker,
                {
                    "enabled": "effects",
                    "EFFECTS_URL": provider.url,
                    "FAILPOINT": case.point,
                    "FAILPOINT_MARKER": str(tmp_path / case.key),
                    "database_url": ledgers[case],
                },
                together=postgres is not None,
            )

    replies = dict(zip(cases, await asyncio.gather(*(run(case) for case in cases)), strict=True))

    seen = {}
    for case, reply in replies.items():
        effects = provider.effects()[(case.kind, case.key)]
        if reply["status"] == "succeeded":
            assert (1, {"key": case.key}) == (effects, reply["data"]), case
        else:
            # A write that nobody can look up: said to be unknown, and never repeated.
            assert "scribble" == case.action and case.point in {"K4", "K5", "K6"}, (case, reply)
            assert "OUTCOME_UNKNOWN" == reply["error"]["code"]
            assert effects <= 1, case
        said = "answered" if reply["status"] == "succeeded" else reply["error"]["code"]
        seen[case.point] = f"{'one effect' if effects else 'no effect'}, {said}"
    return seen


async def _run(
    case: Case, url: str, start_worker: StartWorker, settings: dict[str, str], *, together: bool
) -> dict[str, Any]:
    workers = [await start_worker(url, failing=True, **settings)]
    if together:
        workers.append(await start_worker(url, failing=True, **settings))
    client = await asyncio.to_thread(ExternalClient, url)
    try:
        correlation_id = client.send(job("effects", case.action, idempotency_key=case.key))
        async with asyncio.timeout(40):
            while all(worker.is_running for worker in workers):
                await asyncio.sleep(0.02)
        if not together:
            workers.append(await start_worker(url, failing=True, **settings))
        replies = await asyncio.to_thread(client.wait, [correlation_id])
        alive = next(worker for worker in workers if worker.is_running)
        # Nothing is left over, and a copy that came twice said the same.
        await alive.until(lambda: client.depth("connectors.jobs.effects") == 0)
        for reply in replies[correlation_id]:
            assert reply["data"] == replies[correlation_id][0]["data"]
        return replies[correlation_id][-1]
    finally:
        client.close()
        for worker in workers:
            worker.close()
