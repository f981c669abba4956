"""A vault of three nodes, asked at a standby: secrets are read, also after the active node died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import StartWorker
from tests.support.http_servers import Served, serve
from tests.support.openbao_cluster import ClusterNode, OpenBaoCluster
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.errors import CommandFailed

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(180)]

#: Seconds that a vault may be without an active node, by its own defaults.
ELECTION_S = 30.0
#: What a standby shows while there is no active node: nothing, if it answers reads itself.
TRUE_REASONS = {
    (
        "credentials",
        "CONNECTORS_VAULT_URL answered HTTP 307, a redirect, which is not followed: "
        "a standby sends one while it does not reach the active node",
    ),
    ("credentials", "the vault answered HTTP 500"),
    ("credentials", "the vault did not answer in time"),
}


@pytest.fixture(params=[True, False], ids=["standby reads", "standby forwards"])
async def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[OpenBaoCluster]:
    async with OpenBaoCluster(tmp_path / "openbao", standby_reads=request.param) as cluster:
        yield cluster


@pytest.fixture
async def shop() -> AsyncIterator[Served]:
    """An API that knows the tokens of the vault's secrets."""

    async def answer(request: web.Request) -> web.Response:
        known = request.headers.get("Authorization", "").startswith("Bearer a-token-of-a-secret-")
        return web.json_response({}, status=200 if known else 401)

    async with serve(answer) as served:
        yield served


@asynccontextmanager
async def reasons(worker: WorkerProcess) -> AsyncIterator[set[tuple[str, str]]]:
    """Collect which checks of `/readyz` failed meanwhile, and why."""
    seen: set[tuple[str, str]] = set()

    async def look() -> None:
        while True:
            checks = (await worker.get("readyz")).json()["checks"]
            seen.update((each["name"], each["detail"]) for each in checks if not each["ok"])
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait({looking})


async def put(node: ClusterNode, shop: Served, name: str) -> None:
    document = {"base_url": shop.url, "auth": "bearer", "token": f"a-token-of-a-secret-{name}"}
    await node.put_secret(f"connectors/default/http/{name}", document)


async def reaches(node: ClusterNode, name: str) -> None:
    """Wait until a standby that answers reads itself has the secret; it lags for some milliseconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                await node.ask("GET", f"secret/data/connectors/default/http/{name}")
            except CommandFailed:
                await asyncio.sleep(0.05)
            else:
                return


async def run(url: str, names: list[str]) -> set[tuple[str, int]]:
    """Run a job with each secret, none read before; return how they ended, after how many attempts."""

    def call() -> set[tuple[str, int]]:
        with ExternalClient(url) as client:
            request = {"method": "GET", "path": "/x"}
            sent = [client.send(job("http", "request", request, credential=name)) for name in names]
            replies = client.wait(sent, 2 * ELECTION_S)
        return {(replies[each][0]["status"], replies[each][0]["attempts"]) for each in sent}

    return await asyncio.to_thread(call)


async def test_a_standby_gives_secrets_also_after_the_active_node_died(
    broker_url: str, start_worker: StartWorker, cluster: OpenBaoCluster, shop: Served
) -> None:
    active = await cluster.active()
    standby = next(node for node in cluster.nodes if node is not active)
    role = await active.enable_approle(token_ttl="12s")  # renewed before, while and after there is none
    names = [f"secret{number}" for number in range(20)]
    for name in names:
        await put(active, shop, name)
    worker = await start_worker(
        broker_url,
        enabled="dummy,http",
        vault_url=standby.url,
        vault_role_id=role.role_id,
        vault_secret_id=role.secret_id.get_secret_value(),
    )

    async with reasons(worker) as before:
        forwarded = await run(broker_url, names[:10])
        await asyncio.sleep(10)  # of the watch, which reads and renews
    async with reasons(worker) as meanwhile:
        await active.kill()
        elected = await run(broker_url, names[10:])
        successor = await cluster.successor(active)
        await worker.ready(ELECTION_S)
    await put(successor, shop, "later")
    await reaches(standby, "later")
    later = await run(broker_url, ["later"])

    assert {("succeeded", 1)} == forwarded == elected == later
    assert set() == before
    assert meanwhile <= TRUE_REASONS
