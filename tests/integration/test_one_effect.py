"""The same job any number of times: one effect, one answer. And its undo."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import StartWorker
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.postgres import PrivatePostgres

pytestmark = pytest.mark.integration


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest.fixture
async def effects_worker(broker_url: str, start_worker: StartWorker, provider: Provider) -> WorkerProcess:
    return await start_worker(broker_url, enabled="effects", EFFECTS_URL=provider.url, max_attempts="2")


async def _call(url: str, *jobs: dict[str, object]) -> list[dict[str, object]]:
    """Send jobs one after the other, off the loop, which the provider needs."""

    def call() -> list[dict[str, object]]:
        with ExternalClient(url) as client:
            return [client.call(each, timeout_s=40) for each in jobs]

    return await asyncio.to_thread(call)


async def _call_at_once(url: str, jobs: list[dict[str, object]]) -> list[dict[str, object]]:
    def call() -> list[dict[str, object]]:
        with ExternalClient(url) as client:
            sent = [client.send(each) for each in jobs]
            replies = client.wait(sent, 40)
            return [replies[each][0] for each in sent]

    return await asyncio.to_thread(call)


@pytest.mark.parametrize("action", ["book", "jot", "scribble"])
async def test_a_repeated_job_is_answered_from_the_ledger(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider, action: str
) -> None:
    first, second, third = await _call(
        broker_url, *(job("effects", action, idempotency_key="k") for _ in range(3))
    )

    assert [False, True, True] == [each["replayed"] for each in (first, second, third)]
    assert first["data"] == second["data"] == third["data"] == {"key": "k"}
    assert 1 == len(provider.journal)


async def test_other_params_under_the_same_key_are_a_conflict(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    _, other, credential = await _call(
        broker_url,
        job("effects", "scribble", {"note": "a"}, idempotency_key="k"),
        job("effects", "scribble", {"note": "b"}, idempotency_key="k"),
        job("effects", "scribble", {"note": "a"}, idempotency_key="k", credential="other"),
    )

    assert ["IDEMPOTENCY_CONFLICT"] * 2 == [each["error"]["code"] for each in (other, credential)]  # type: ignore[index]
    assert 1 == len(provider.journal)


async def test_copies_at_once_join_the_one_that_runs(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    provider.delay_s = 0.5

    replies = await _call_at_once(
        broker_url, [job("effects", "scribble", idempotency_key="k") for _ in range(20)]
    )

    assert [{"key": "k"}] * 20 == [reply["data"] for reply in replies]
    assert 19 == sum(bool(reply["replayed"]) for reply in replies)
    assert 1 == len(provider.journal)


async def test_copies_on_two_workers_have_one_effect(
    broker_url: str, start_worker: StartWorker, provider: Provider, postgres: PrivatePostgres
) -> None:
    database = await postgres.create_database(f"test_{uuid4().hex}")
    settings = {"enabled": "effects", "EFFECTS_URL": provider.url, "database_url": database}
    await asyncio.gather(*(start_worker(broker_url, **settings) for _ in range(2)))
    provider.delay_s = 0.5

    replies = await _call_at_once(
        broker_url,
        [job("effects", "scribble", idempotency_key=f"k{number % 5}") for number in range(40)],
    )

    assert {"succeeded"} == {reply["status"] for reply in replies}
    assert {1} == {reply["attempts"] for reply in replies}
    assert 5 == len(provider.journal)


async def test_a_write_cut_after_the_work_is_unknown_and_never_repeated(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    provider.is_cut = lambda key: True
    (first,) = await _call(broker_url, job("effects", "scribble", idempotency_key="k"))
    provider.is_cut = lambda key: False
    (second,) = await _call(broker_url, job("effects", "scribble", idempotency_key="k"))

    codes = [each["error"]["code"] for each in (first, second)]  # type: ignore[index]
    assert ["OUTCOME_UNKNOWN"] * 2 == codes
    assert 1 == len(provider.journal)
    with ExternalClient(broker_url) as client:
        assert 2 == client.depth("connectors.dead")


async def test_a_write_cut_after_the_work_is_found_again_by_its_reconcile(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    provider.is_cut = lambda key: True

    (reply,) = await _call(broker_url, job("effects", "jot", idempotency_key="k"))

    assert ("succeeded", {"key": "k"}) == (reply["status"], reply["data"])
    assert 1 == len(provider.journal)


async def test_a_keyed_action_cut_after_the_work_runs_again_with_one_effect(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    cuts = iter([True, False])

    provider.is_cut = lambda key: next(cuts)

    (reply,) = await _call(broker_url, job("effects", "book", idempotency_key="k"))

    assert ("succeeded", 2) == (reply["status"], reply["attempts"])
    assert [("bookings", "k")] == provider.journal


async def test_undo_takes_an_effect_back_once_and_its_key_is_spent(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    run, undo, again, rerun = await _call(
        broker_url,
        job("effects", "jot", idempotency_key="k"),
        job("effects", "jot", idempotency_key="k", mode="undo"),
        job("effects", "jot", idempotency_key="k", mode="undo"),
        job("effects", "jot", idempotency_key="k"),
    )

    assert "succeeded" == run["status"]
    assert [{"undone": True}] * 2 == [undo["data"], again["data"]]
    assert ("CONFLICT", {"outcome": "undone"}) == (rerun["error"]["code"], rerun["error"]["data"])  # type: ignore[index]
    assert [] == provider.journal


async def test_an_undo_that_overtakes_its_run_leaves_a_mark(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    undo, run = await _call(
        broker_url,
        job("effects", "book", idempotency_key="k", mode="undo"),
        job("effects", "book", idempotency_key="k"),
    )

    assert {"undone": True} == undo["data"]
    assert "CONFLICT" == run["error"]["code"]  # type: ignore[index]
    assert [] == provider.journal


async def test_a_write_past_its_deadline_ends_and_is_replayed_when_sent_again(
    effects_worker: WorkerProcess, broker_url: str, provider: Provider
) -> None:
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    begun = time.monotonic()
    (late,) = await _call(
        broker_url, job("effects", "linger", {"seconds": 4}, idempotency_key="k", deadline=deadline)
    )
    took_s = time.monotonic() - begun

    (told,) = await _call(
        broker_url, job("effects", "linger", {"seconds": 4}, idempotency_key="k", deadline=deadline)
    )
    (later,) = await _call(broker_url, job("effects", "linger", {"seconds": 4}, idempotency_key="k"))
    (expired,) = await _call(
        broker_url, job("effects", "linger", {"seconds": 4}, idempotency_key="k", deadline=deadline)
    )

    assert took_s < 3.5
    for each in (late, told):
        assert ("DEADLINE_EXCEEDED", {"outcome": "unknown"}) == (each["error"]["code"], each["error"]["data"])  # type: ignore[index]
    assert ("lingered", True) == (later["data"], later["replayed"]), later["error"]
    assert ("lingered", True) == (expired["data"], expired["replayed"])
    assert 1 == len(provider.journal)


async def test_a_bug_in_a_connector_is_dead_lettered_without_its_text(
    effects_worker: WorkerProcess, broker_url: str
) -> None:
    (reply,) = await _call(broker_url, job("effects", "crash"))

    assert "CONNECTOR_ERROR" == reply["error"]["code"]  # type: ignore[index]
    assert "hunter2" not in json.dumps(reply)
    assert "hunter2" not in effects_worker.log_path.read_text()
    assert "effects_connector.py" in effects_worker.log_path.read_text()


async def test_with_the_ledger_down_reads_go_on_and_writes_wait(
    broker_url: str, start_worker: StartWorker, provider: Provider, tmp_path: Path
) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as own:
        worker = await start_worker(
            broker_url, enabled="dummy,effects", EFFECTS_URL=provider.url, database_url=own.url
        )
        await own.kill()
        client = await asyncio.to_thread(ExternalClient, broker_url)
        waiting = client.send(job("effects", "scribble", idempotency_key="k"))
        read = await asyncio.to_thread(client.call, job("dummy", "ping"))
        while (await worker.get("readyz")).status_code == 200:
            await asyncio.sleep(0.1)
        assert [] == provider.journal

        await own.restart()
        replies = await asyncio.to_thread(client.wait, [waiting], 40)
        client.close()
        worker.close()

    assert "pong" == read["data"]
    assert ("succeeded", 1) == (replies[waiting][0]["status"], replies[waiting][0]["attempts"])


async def test_one_tenants_slow_jobs_do_not_hold_up_another(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url, concurrency="10", tenant_concurrency="5")

    def race() -> float:
        with ExternalClient(broker_url) as client:
            for _ in range(500):
                client.send(job("dummy", "sleep", {"seconds": 2}, tenant="slow"), reply_to="")
            asked = time.monotonic()
            client.call(job("dummy", "ping", tenant="quick"))
            return time.monotonic() - asked

    assert await asyncio.to_thread(race) < 5
