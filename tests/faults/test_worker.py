"""The worker itself is stopped, starved, or brought down by a connector: one effect, and the rest goes on."""

import asyncio
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from aiohttp import web

from tests.conftest import StartWorker
from tests.support.http_servers import Served, serve
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres

pytestmark = pytest.mark.faults


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


async def _gather(url: str, jobs: list[dict[str, Any]], timeout_s: float = 60) -> list[list[dict[str, Any]]]:
    """Send jobs at once and give the replies to each."""

    def call() -> list[list[dict[str, Any]]]:
        with ExternalClient(url) as client:
            sent = [client.send(each) for each in jobs]
            replies = client.wait(sent, timeout_s)
            return [replies[each] for each in sent]

    return await asyncio.to_thread(call)


async def test_f36_a_worker_past_its_lease_cannot_overwrite_the_result(
    broker_url: str, start_worker: StartWorker, provider: Provider, postgres: PrivatePostgres
) -> None:
    database = await postgres.create_database(f"test_{uuid4().hex}")
    settings = {
        "enabled": "effects",
        "EFFECTS_URL": provider.url,
        "database_url": database,
        "HEARTBEAT_S": "2",
    }
    first = await start_worker(broker_url, failing=True, **settings)
    provider.delay_s = 3
    actions = ("book", "jot", "linger")
    client = await asyncio.to_thread(ExternalClient, broker_url)
    fields = {"linger": {"seconds": 0}}
    sent = {
        action: client.send(job("effects", action, fields.get(action), idempotency_key="k"))
        for action in actions
    }
    while provider.requests < len(actions):
        await asyncio.sleep(0.02)

    first.signal(signal.SIGSTOP)  # its calls have had their effects, and it sleeps
    provider.delay_s = 0
    second = await start_worker(broker_url, failing=True, **settings)
    replies = await asyncio.to_thread(client.wait, list(sent.values()), 60)
    first.signal(signal.SIGCONT)
    await first.until_logged("queue consumer lost its connection", 40)
    again = await _gather(
        broker_url, [job("effects", action, fields.get(action), idempotency_key="k") for action in actions]
    )
    client.close()

    told = {action: replies[each] for action, each in sent.items()}
    for action in ("book", "jot"):
        assert {"key": "k"} == told[action][0]["data"]
    assert "OUTCOME_UNKNOWN" == told["linger"][0]["error"]["code"]
    for action, (later, *_) in zip(actions, again, strict=True):
        assert told[action][0]["data"] == later["data"]
    # One booking; a note of jot, and one of linger, which nobody can find again.
    assert [("bookings", "k"), ("notes", "k"), ("notes", "k")] == sorted(provider.journal)
    assert second.is_running


async def test_f33_sigterm_at_any_point_leaves_one_effect_and_exits_with_0(
    broker_url: str, start_worker: StartWorker, provider: Provider
) -> None:
    provider.delay_s = 0.05
    settings = {"enabled": "effects", "EFFECTS_URL": provider.url}
    worker = await start_worker(broker_url, tenant_concurrency="100", **settings)
    answering = []

    for wave in range(3):
        begun = provider.requests
        jobs = [job("effects", "scribble", idempotency_key=f"k{wave}-{number}") for number in range(130)]
        answering.append(asyncio.create_task(_gather(broker_url, jobs)))
        await worker.until(lambda begun=begun: provider.requests > begun)
        worker.signal(signal.SIGTERM)
        assert 0 == await worker.wait()
        worker = await start_worker(broker_url, tenant_concurrency="100", **settings)

    replies = [each for wave in answering for copies in await wave for each in copies]
    assert {None} == {each["error"] and each["error"]["code"] for each in replies}
    assert {1} == set(provider.effects().values())


async def test_f38_a_connector_that_exits_or_blocks_ends_its_own_job_alone(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url, enabled="dummy,effects")

    quitting, blocking, *pings = await _gather(
        broker_url,
        [
            job("effects", "quit"),
            job("dummy", "block", {"seconds": 2}),
            *(job("dummy", "ping") for _ in range(20)),
        ],
    )

    assert "CONNECTOR_ERROR" == quitting[0]["error"]["code"]
    assert "succeeded" == blocking[0]["status"]
    assert {"pong"} == {replies[0]["data"] for replies in pings}
    assert max(replies[0]["duration_ms"] for replies in pings) < 1500
    assert worker.is_running


async def test_f39_f40_a_long_vault_outage_fails_no_job_and_uses_no_attempt(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, tmp_path: Path
) -> None:
    """Ten minutes of it, by a hold of a quarter second instead of a minute."""
    async with serve(_welcome) as shop:
        worker = await _with_vault(start_worker, broker_url, openbao, shop, tmp_path)
        await openbao.seal()
        jobs = [job("http", "request", {"method": "GET", "path": "/x"}) for _ in range(20)]
        client = await asyncio.to_thread(ExternalClient, broker_url)
        sent = [client.send(each) for each in jobs]
        await worker.until_logged("job snoozed", 60, count=100)
        await openbao.unseal()
        replies = await asyncio.to_thread(client.wait, sent, 60)
        dead = client.depth("connectors.dead")
        client.close()

    assert 0 == dead
    assert {("succeeded", 1)} == {(replies[each][0]["status"], replies[each][0]["attempts"]) for each in sent}


async def test_f69_a_worker_out_of_file_descriptors_fails_calls_and_recovers(
    broker_url: str, start_worker: StartWorker, provider: Provider
) -> None:
    worker = await start_worker(
        broker_url, enabled="dummy,effects", EFFECTS_URL=provider.url, max_attempts="20"
    )
    usual = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (_used(worker), usual[1]))
    client = await asyncio.to_thread(ExternalClient, broker_url)
    sent = [client.send(job("effects", "book", idempotency_key=f"k{number}")) for number in range(20)]

    assert "pong" == (await asyncio.to_thread(client.call, job("dummy", "ping")))["data"]
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, usual)
    replies = await asyncio.to_thread(client.wait, sent)
    after = await asyncio.to_thread(client.call, job("effects", "book", idempotency_key="after"))
    client.close()

    # A connector that opens its own sockets raises what it likes; that is its own job's end.
    errors = {(replies[each][0]["error"] or {}).get("code") for each in sent}
    assert {None, "CONNECTOR_ERROR", "UNAVAILABLE"} >= errors
    assert "succeeded" == after["status"]
    assert {1} == set(provider.effects().values())
    await worker.ready()


async def test_f72_bodies_over_the_cap_are_answered_and_fill_no_memory(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url, concurrency="1")
    large = b'{"id": "j", "connector": "dummy", "action": "echo", "params": {"message": "%s"}}' % (
        b"x" * 10_000_000
    )
    idle = peak = psutil.Process(worker.pid).memory_info().rss

    def send() -> set[str]:
        nonlocal peak
        with ExternalClient(broker_url) as client:
            sent = [client.send(large) for _ in range(32)]

            def all_told() -> bool:
                nonlocal peak
                peak = max(peak, psutil.Process(worker.pid).memory_info().rss)
                return client.replies.keys() >= set(sent)

            client.until(all_told, 60, lambda: "the refusals")
            return {client.replies[each][0]["error"]["code"] for each in sent}

    assert {"MESSAGE_TOO_LARGE"} == await asyncio.to_thread(send)
    in_flight = peak - idle
    assert in_flight < 250_000_000, (
        f"{in_flight}: prefetch is four messages a slot, so large bodies want few slots"
    )


async def test_f73_a_hung_or_locked_ledger_makes_only_writes_wait(
    broker_url: str, start_worker: StartWorker, provider: Provider, tmp_path: Path
) -> None:
    path = tmp_path / "locked.db"
    await start_worker(
        broker_url, enabled="dummy,effects", EFFECTS_URL=provider.url, database_url=f"sqlite:///{path}"
    )
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    client = await asyncio.to_thread(ExternalClient, broker_url)
    waiting = client.send(job("effects", "scribble", idempotency_key="k"))
    read = await asyncio.to_thread(client.call, job("dummy", "ping"))
    await asyncio.to_thread(client.process, 6)  # longer than a statement may take
    held = (waiting in client.replies, list(provider.journal))
    other.execute("ROLLBACK")
    other.close()
    replies = await asyncio.to_thread(client.wait, [waiting])
    client.close()

    assert "pong" == read["data"]
    assert (False, []) == held
    assert ("succeeded", 1) == (replies[waiting][0]["status"], replies[waiting][0]["attempts"])


async def _welcome(_: web.Request) -> web.Response:
    return web.json_response({})


async def _with_vault(
    start_worker: StartWorker, url: str, vault: PrivateOpenBao, shop: Served, tmp_path: Path
) -> WorkerProcess:
    await vault.put_secret("connectors/default/http/default", {"base_url": shop.url})
    role = await vault.enable_approle()
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(role.secret_id.get_secret_value())
    return await start_worker(
        url,
        failing=True,
        HOLD_S="0.25",
        enabled="dummy,http",
        vault_url=vault.url,
        vault_role_id=role.role_id,
        vault_secret_id_file=str(secret_id),
    )


def _used(worker: WorkerProcess) -> int:
    """The descriptors in use, none to spare."""
    return max(int(entry.name) for entry in Path(f"/proc/{worker.pid}/fd").iterdir()) + 1
