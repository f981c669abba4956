"""Faults of vault and database as a worker shows them: `/readyz`, and what becomes of its jobs."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import StartWorker
from tests.support.pgbouncer import pgbouncer
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: Seconds within which `/readyz` must tell of a fault, and of its end.
NOTICED_S = 10.0


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


async def unready(worker: WorkerProcess) -> tuple[str, str]:
    """Wait until `/readyz` is 503; give the failing check and its reason."""
    async with asyncio.timeout(NOTICED_S):
        while (answer := await worker.get("readyz")).status_code == 200:
            await asyncio.sleep(0.1)
    failing = [each for each in answer.json()["checks"] if not each["ok"]]
    return failing[0]["name"], failing[0]["detail"]


async def set_read_only(server: PrivatePostgres, value: str) -> None:
    connection = await asyncpg.connect(server.url, ssl=False)
    await connection.execute("set default_transaction_read_only = off")
    await connection.execute(f"alter system set default_transaction_read_only = {value}")
    await connection.execute("select pg_reload_conf()")
    await connection.close()


async def test_an_idle_worker_is_unready_while_its_ledger_takes_no_claim(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as server:
        worker = await start_worker(broker_url, database_url=server.url)

        await set_read_only(server, "on")
        failing, reason = await unready(worker)
        await set_read_only(server, "off")
        await worker.ready(NOTICED_S)

        assert ("ledger", True) == (failing, "read-only" in reason)


async def test_an_idle_worker_is_unready_while_its_vault_has_no_secrets(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao
) -> None:
    role = await openbao.enable_approle()
    worker = await start_worker(
        broker_url,
        enabled="dummy,http",
        vault_url=openbao.url,
        vault_role_id=role.role_id,
        vault_secret_id=role.secret_id.get_secret_value(),
    )

    await openbao.ask("POST", "sys/remount", {"from": "secret", "to": "elsewhere"})
    failing, reason = await unready(worker)
    await openbao.ask("POST", "sys/remount", {"from": "elsewhere", "to": "secret"})
    await worker.ready(NOTICED_S)

    assert ("credentials", True) == (failing, "CONNECTORS_VAULT_MOUNT" in reason)


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_two_workers_behind_a_pooler_run_every_job_once(
    broker_url: str,
    start_worker: StartWorker,
    provider: Provider,
    postgres: PrivatePostgres,
    tmp_path: Path,
    mode: Literal["transaction", "session"],
) -> None:
    url = await postgres.create_database(f"test_{uuid4().hex}")
    servers = 4 if mode == "transaction" else 20  # in session mode each connection holds a server
    jobs = 100

    def call() -> tuple[set[str], float]:
        with ExternalClient(broker_url) as client:
            begun = time.monotonic()
            sent = [client.send(job("effects", "book", idempotency_key=f"k{n}")) for n in range(jobs)]
            replies = client.wait(sent, 60)
            took_s = time.monotonic() - begun
        return {replies[each][0]["status"] for each in sent}, took_s

    async with pgbouncer(url, tmp_path / "pooler", mode, servers=servers) as pooled:
        settings = {"enabled": "effects", "EFFECTS_URL": provider.url, "database_url": pooled}
        workers = [await start_worker(broker_url, **settings) for _ in range(2)]
        outcomes, took_s = await asyncio.to_thread(call)

        faults = [
            line
            for worker in workers
            for event in ("ledger unavailable", "ledger question failed")
            for line in worker.logged(event)
        ]
        assert [] == faults
        assert {"succeeded"} == outcomes
        assert took_s < 30
        effects = provider.effects()
        assert jobs == len(effects) == sum(effects.values())
