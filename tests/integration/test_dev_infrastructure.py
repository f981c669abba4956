"""Private RabbitMQ, OpenBao and PostgreSQL: apart from everything else, and as mortal as a test wants them."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from uuid import uuid4

import aio_pika
import asyncpg
import httpx
import psutil
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPConnectionError
from pamqp.common import FieldTable

from worker.dev.errors import CommandFailed
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ
from worker.dev.rabbitmq_cluster import PrivateCluster

pytestmark = pytest.mark.integration

QUORUM: FieldTable = {"x-queue-type": "quorum"}

#: Starts those named, pauses them where told to, says so, and waits to be killed.
LAUNCHER = """
import asyncio, sys
from pathlib import Path
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ
async def main():
    parts = [globals()[name](Path(sys.argv[1]) / name) for name in sys.argv[3:]]
    await asyncio.gather(*(part.start() for part in parts))
    if sys.argv[2] == "paused":
        for part in parts:
            part.pause()
    print("up", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("state", "parts", "programs"),
    [
        (
            "running",
            ["PrivateRabbitMQ", "PrivateOpenBao", "PrivatePostgres"],
            {"beam.smp", "epmd", "bao", "postgres"},
        ),
        # Its backends leave its process group, and stopped ones do not notice that it has died.
        ("paused", ["PrivatePostgres"], {"postgres"}),
    ],
)
async def test_kill_9_of_the_launcher_leaves_no_broker_vault_or_database(
    tmp_path: Path, state: str, parts: list[str], programs: set[str]
) -> None:
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path), state, *parts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert "up\n" == await asyncio.to_thread(launcher.stdout.readline)
        family = psutil.Process(launcher.pid).children(recursive=True)
        names = {process.name() for process in family}

        launcher.kill()

    assert programs <= names
    await _until(lambda: not any(map(_lives, family)))


async def test_everything_listens_on_loopback_alone(
    rabbitmq: PrivateRabbitMQ, openbao: PrivateOpenBao, postgres: PrivatePostgres
) -> None:
    ours = psutil.Process().children(recursive=True)
    listening = [
        connection.laddr
        for process in ours
        if process.status() != psutil.STATUS_ZOMBIE
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]

    assert {rabbitmq.amqp_port, postgres.port, httpx.URL(openbao.url).port} <= {at.port for at in listening}
    assert all(ip_address(at.ip).is_loopback for at in listening)


async def test_a_vhost_is_made_and_deleted_within_a_blink(rabbitmq: PrivateRabbitMQ) -> None:
    name = f"blink-{uuid4().hex}"

    url = await rabbitmq.add_vhost(name)
    async with await aio_pika.connect(url) as connection:
        await (await connection.channel()).declare_queue("jobs", durable=True, arguments=QUORUM)
    assert "true" == await rabbitmq.eval(f'rabbit_vhost:exists(<<"{name}">>)')
    await rabbitmq.delete_vhost(name)

    assert "false" == await rabbitmq.eval(f'rabbit_vhost:exists(<<"{name}">>)')


async def test_a_refusal_of_the_broker_is_reported(rabbitmq: PrivateRabbitMQ) -> None:
    with pytest.raises(CommandFailed, match=r"no_such_vhost"):
        await rabbitmq.delete_vhost("nowhere")
    with pytest.raises(CommandFailed, match=r"rabbitmqctl ended with code \d+"):
        await rabbitmq.ctl("no_such_command")
    assert "/" in (await rabbitmq.ctl("list_vhosts", "--no-table-headers")).split()


async def test_a_killed_broker_comes_back_on_its_port_with_its_messages(
    own_rabbitmq: PrivateRabbitMQ,
) -> None:
    url, pid = own_rabbitmq.url, own_rabbitmq.pid
    async with _channel(url) as channel:
        queue = await channel.declare_queue("jobs", durable=True, arguments=QUORUM)
        await channel.default_exchange.publish(aio_pika.Message(b"job", delivery_mode=2), queue.name)

    # The broker writes down twice a second which quorum queues it has: one younger than that is lost to a kill.
    await own_rabbitmq.eval("[dets:sync(Table) || Table <- dets:all()]")

    await own_rabbitmq.kill()
    assert not psutil.pid_exists(pid)
    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(url, timeout=10)
    await own_rabbitmq.restart()

    assert url == own_rabbitmq.url
    assert b"job" == await _get(url, "jobs")


async def test_a_stopped_brokers_directory_serves_the_next_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_NODENAME", "production@localhost")
    monkeypatch.setenv("RABBITMQ_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("ERL_FLAGS", "-no_such_flag")

    async with PrivateRabbitMQ(tmp_path / "with space") as first, _channel(first.url) as channel:
        assert "production@localhost" != await first.eval("node()")
        queue = await channel.declare_queue("jobs", durable=True, arguments=QUORUM)
        await channel.default_exchange.publish(aio_pika.Message(b"job", delivery_mode=2), queue.name)

    settings = ["consumer_timeout = 4321"]
    async with PrivateRabbitMQ(tmp_path / "with space", config=settings) as second:
        assert "{ok, 4321}" == await second.eval("application:get_env(rabbit, consumer_timeout)")
        assert b"job" == await _get(second.url, "jobs")


async def test_a_paused_broker_does_not_respond_until_it_is_resumed(
    rabbitmq: PrivateRabbitMQ, broker_url: str
) -> None:
    async with _channel(broker_url) as channel:
        rabbitmq.pause()
        declaring = asyncio.create_task(channel.declare_queue("jobs", durable=True, arguments=QUORUM))
        _, unanswered = await asyncio.wait({declaring}, timeout=1)
        rabbitmq.resume()

        assert {declaring} == unanswered
        assert "jobs" == (await asyncio.wait_for(declaring, 20)).name


@pytest.mark.faults
async def test_a_cluster_goes_on_without_the_leader_that_was_killed(tmp_path: Path) -> None:
    async with PrivateCluster(tmp_path) as cluster:
        url = cluster.nodes[0].url
        async with _channel(url) as channel:
            queue = await channel.declare_queue("jobs", durable=True, arguments=QUORUM)
            await channel.default_exchange.publish(aio_pika.Message(b"job", delivery_mode=2), queue.name)
        leader = await cluster.leader_of("jobs")

        await leader.kill()
        successor = await cluster.leader_of("jobs")

        assert leader is not successor
        assert b"job" == await _get(successor.url, "jobs")
        await leader.restart()
        assert "3" == await leader.eval("length(rabbit_nodes:all_running())")


async def test_secrets_outlive_a_seal_a_kill_and_a_new_start(tmp_path: Path) -> None:
    async with PrivateOpenBao(tmp_path) as vault:
        await vault.put_secret("connectors/acme/http/default", {"token": "t"})

        await vault.seal()
        with pytest.raises(CommandFailed, match="503"):
            await _read(vault)
        await vault.unseal()
        assert {"token": "t"} == await _read(vault)

        url = vault.url
        await vault.kill()
        await vault.restart()
        assert url == vault.url
        assert {"token": "t"} == await _read(vault)

    async with PrivateOpenBao(tmp_path) as next_one:
        assert {"token": "t"} == await _read(next_one)


async def test_a_paused_vault_does_not_respond_until_it_is_resumed(openbao: PrivateOpenBao) -> None:
    openbao.pause()
    async with httpx.AsyncClient(trust_env=False, timeout=0.5) as client:
        with pytest.raises(httpx.TimeoutException):
            await client.get(f"{openbao.url}/v1/sys/health")
    openbao.resume()

    assert not (await openbao.ask("GET", "sys/seal-status"))["sealed"]


async def test_the_workers_role_may_only_read_credentials_and_renew_its_token(
    openbao: PrivateOpenBao,
) -> None:
    await openbao.put_secret("connectors/acme/http/default", {"token": "t"})
    await openbao.put_secret("elsewhere", {"token": "t"})
    role = await openbao.enable_approle()
    login = await openbao.ask(
        "POST",
        "auth/approle/login",
        {"role_id": role.role_id, "secret_id": role.secret_id.get_secret_value()},
    )
    headers = {"X-Vault-Token": login["auth"]["client_token"]}

    async with httpx.AsyncClient(base_url=f"{openbao.url}/v1/", headers=headers, trust_env=False) as client:

        async def status(method: str, path: str) -> int:
            return (await client.request(method, path, json={} if method != "GET" else None)).status_code

        assert 200 == await status("GET", "secret/data/connectors/acme/http/default")
        assert 200 == await status("GET", "auth/token/lookup-self")
        assert 200 == await status("POST", "auth/token/renew-self")
        assert 403 == await status("GET", "secret/data/elsewhere")
        assert 403 == await status("POST", "secret/data/connectors/acme/http/default")
        assert 403 == await status("LIST", "secret/metadata/connectors")
        assert 403 == await status("DELETE", "secret/metadata/connectors/acme/http/default")


async def test_a_role_can_have_expiring_tokens_and_a_limited_secret_id(
    openbao: PrivateOpenBao,
) -> None:
    role = await openbao.enable_approle(
        role="brief", token_ttl="1s", token_max_ttl="1s", secret_id_num_uses=1
    )
    credentials = {"role_id": role.role_id, "secret_id": role.secret_id.get_secret_value()}
    login = await openbao.ask("POST", "auth/approle/login", credentials)

    assert 1 == login["auth"]["lease_duration"]
    with pytest.raises(CommandFailed, match="400"):
        await openbao.ask("POST", "auth/approle/login", credentials)


async def test_what_was_committed_outlives_the_kill_of_the_database(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path / "with space") as server:
        url = await server.create_database("ledger")
        connection = await asyncpg.connect(url, ssl=False)
        await connection.execute("create table claims (key text)")
        await connection.execute("insert into claims values ('k')")

        await server.kill()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await connection.fetch("select 1")
        await connection.close(timeout=5)
        await server.restart()

        assert url == server.url_of("ledger")
        assert ["k"] == await _keys(url)

    async with PrivatePostgres(tmp_path / "with space") as next_one:
        assert ["k"] == await _keys(next_one.url_of("ledger"))


async def test_a_paused_database_does_not_respond_until_it_is_resumed(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path) as server:
        connection = await asyncpg.connect(server.url, ssl=False)
        server.pause()
        asking = asyncio.create_task(connection.fetchval("select 1"))
        _, unanswered = await asyncio.wait({asking}, timeout=0.5)
        server.resume()

        assert {asking} == unanswered
        assert 1 == await asyncio.wait_for(asking, 10)
        await connection.close(timeout=5)


@pytest.mark.parametrize("kind", [PrivateRabbitMQ, PrivateOpenBao, PrivatePostgres])
async def test_stop_leaves_no_process_and_may_be_repeated(
    tmp_path: Path, kind: type[PrivateRabbitMQ | PrivateOpenBao | PrivatePostgres]
) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    part = kind(tmp_path)
    await part.start()
    started = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    part.pause()  # as a test leaves it that fails in between

    await part.stop()
    await part.stop()

    assert started
    await _until(lambda: not any(map(_lives, started)))


def test_root_starts_a_database_below_its_own_closed_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    async def start_and_stop() -> None:
        async with PrivatePostgres(closed / "postgres"):
            pass

    asyncio.run(start_and_stop())

    assert 0o700 == closed.stat().st_mode & 0o777
    assert os.getuid() == closed.stat().st_uid


@asynccontextmanager
async def _channel(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url, timeout=10) as connection:
        yield await connection.channel()


async def _get(url: str, queue: str) -> bytes:
    async with _channel(url) as channel:
        found = await channel.declare_queue(queue, passive=True)
        message = await found.get(timeout=10, no_ack=True)
        assert message is not None
        return message.body


async def _read(vault: PrivateOpenBao) -> object:
    return (await vault.ask("GET", "secret/data/connectors/acme/http/default"))["data"]["data"]


async def _keys(url: str) -> list[str]:
    connection = await asyncpg.connect(url, ssl=False, timeout=10)
    try:
        return [row["key"] for row in await connection.fetch("select key from claims")]
    finally:
        await connection.close(timeout=5)


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
