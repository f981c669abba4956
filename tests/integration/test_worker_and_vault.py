"""Jobs that need a secret, with the vault in every state."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.conftest import StartWorker
from tests.integration.conftest import CANARY
from tests.support.http_servers import Served
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao

pytestmark = pytest.mark.integration


async def _start(
    start_worker: StartWorker, url: str, vault: PrivateOpenBao, shop: Served, tmp_path: Path
) -> WorkerProcess:
    document = {"base_url": shop.url, "auth": "bearer", "token": CANARY}
    await vault.put_secret("connectors/default/http/default", document)
    role = await vault.enable_approle()
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(role.secret_id.get_secret_value())
    return await start_worker(
        url,
        enabled="dummy,http",
        vault_url=vault.url,
        vault_role_id=role.role_id,
        vault_secret_id_file=str(secret_id),
        log_level="DEBUG",
    )


def _request(**fields: str) -> dict[str, object]:
    return job("http", "request", {"method": "GET", "path": "/x"}, **fields)


async def test_a_job_runs_with_its_credential_and_the_secret_shows_up_nowhere(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, shop: Served, tmp_path: Path
) -> None:
    worker = await _start(start_worker, broker_url, openbao, shop, tmp_path)

    def call() -> tuple[dict[str, object], dict[str, object], dict[str, object], bytes]:
        with ExternalClient(broker_url) as client:
            good = client.call(_request())
            absent = client.call(_request(credential="other"))
            client.send(_request(tenant="nobody"), reply_to="amq.gen-gone")
            client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the letter")
            _, properties, body = client.channel.basic_get("connectors.dead")
            return good, absent, dict(properties.headers), body

    good, absent, headers, body = await asyncio.to_thread(call)

    assert {"known": True} == good["data"]["body"]  # type: ignore[index]
    assert "CREDENTIAL_NOT_FOUND" == absent["error"]["code"]  # type: ignore[index]
    said = [worker.log_path.read_text(), str(good), str(absent), str(headers), str(body)]
    metrics = (await worker.get("metrics")).text
    assert 'connectors_http_call_duration_seconds_count{outcome="2xx",reach="loopback"} 1.0' in metrics
    assert not [text for text in [*said, metrics] if CANARY in text]


async def test_a_sealed_vault_makes_jobs_wait_and_uses_up_no_attempt(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, shop: Served, tmp_path: Path
) -> None:
    worker = await _start(start_worker, broker_url, openbao, shop, tmp_path)
    await openbao.seal()
    sealed_at = time.monotonic()
    client = await asyncio.to_thread(ExternalClient, broker_url)
    sent = [client.send(_request()) for _ in range(20)]
    meanwhile = await asyncio.to_thread(client.call, job("dummy", "ping"))
    while (await worker.get("readyz")).status_code == 200:
        assert time.monotonic() - sealed_at < 10
        await asyncio.sleep(0.1)
    named = (await worker.get("readyz")).json()

    waiting = set(sent) - client.replies.keys()
    await openbao.unseal()
    replies = await asyncio.to_thread(client.wait, sent, 40)
    client.close()
    await worker.ready()

    assert "pong" == meanwhile["data"]
    assert set(sent) == waiting
    assert ["credentials"] == [check["name"] for check in named["checks"] if not check["ok"]]
    assert {("succeeded", 1)} == {(replies[each][0]["status"], replies[each][0]["attempts"]) for each in sent}


async def test_a_job_that_waits_for_the_vault_is_answered_at_its_deadline(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, shop: Served, tmp_path: Path
) -> None:
    await _start(start_worker, broker_url, openbao, shop, tmp_path)
    await openbao.kill()
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    client = await asyncio.to_thread(ExternalClient, broker_url)

    begun = time.monotonic()
    reply = await asyncio.to_thread(client.call, _request(deadline=deadline))
    client.close()

    assert ("DEADLINE_EXCEEDED", {"outcome": "not_started"}) == (
        reply["error"]["code"],
        reply["error"]["data"],
    )
    assert time.monotonic() - begun < 4


async def test_a_secret_that_the_provider_refuses_is_read_once_more(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, shop: Served, tmp_path: Path
) -> None:
    await _start(start_worker, broker_url, openbao, shop, tmp_path)
    path = "connectors/default/http/rotated"
    await openbao.put_secret(
        path, {"base_url": shop.url, "auth": "bearer", "token": "an old and stale token"}
    )
    client = await asyncio.to_thread(ExternalClient, broker_url)
    refused = await asyncio.to_thread(client.call, _request(credential="rotated"))
    await openbao.put_secret(path, {"base_url": shop.url, "auth": "bearer", "token": CANARY})

    reply = await asyncio.to_thread(client.call, _request(credential="rotated"))
    client.close()

    assert "CREDENTIAL_INVALID" == refused["error"]["code"]
    assert ("succeeded", 2) == (reply["status"], reply["attempts"])


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("enabled", "dummy,fax", "fax"),
        ("concurrency", "none", "CONNECTORS_CONCURRENCY"),
        ("reply_exchange", "nowhere", "CONNECTORS_REPLY_EXCHANGE"),
        ("vault_url", "http://vault.example:8200", "CONNECTORS_PLAINTEXT_HOSTS"),
        ("database_url", "mysql://x/y", "CONNECTORS_DATABASE_URL"),
        ("database_url", "sqlite:////proc/nowhere/ledger.db", "CONNECTORS_DATABASE_URL"),
    ],
)
async def test_a_wrong_setting_is_one_line_that_names_it_and_ends_in_78(
    broker_url: str, start_worker: StartWorker, setting: str, value: str, named: str
) -> None:
    worker = await start_worker(broker_url, ready=False, **{setting: value})

    assert 78 == await worker.wait()
    assert named in worker.log_tail(1)
    assert "Traceback" not in worker.log_path.read_text()


async def test_a_taken_metrics_port_is_one_line_and_ends_in_78(
    broker_url: str, start_worker: StartWorker
) -> None:
    first = await start_worker(broker_url)
    port = first.metrics_url.rstrip("/").rpartition(":")[2]

    second = await start_worker(broker_url, ready=False, metrics_port=port)

    assert 78 == await second.wait()
    assert port in second.log_tail(1)


async def test_two_workers_with_ledgers_of_their_own_are_found_out(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    await start_worker(broker_url)

    second = await start_worker(broker_url, ready=False, database_url=f"sqlite:///{tmp_path}/other.db")

    assert 78 == await second.wait()
    assert "PostgreSQL" in second.log_tail(1)
