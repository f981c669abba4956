"""What compose.yaml sets up, with the same files and settings, on processes instead of containers."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pika
import pika.exceptions
import pytest
from ruamel.yaml import YAML

from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job
from worker.broker.rabbitmq_definitions import broker_definitions
from worker.broker.topology import Topology
from worker.dev.openbao import find_program
from worker.dev.ports import LOOPBACK, free_ports
from worker.dev.process import ChildProcess, base_environment
from worker.dev.rabbitmq import PrivateRabbitMQ

# One worker of a parallel run takes them all: broker and vault are started once.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("compose")]

ROOT = Path(__file__).parents[2]
OPS = ROOT / "worker" / "ops"
REPLIES = "connectors.replies"


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make secrets` writes, made by the same script in another checkout."""
    checkout = tmp_path_factory.mktemp("checkout")
    script = checkout / "worker" / "ops" / "make_secrets.py"
    script.parent.mkdir(parents=True)
    shutil.copy(OPS / "make_secrets.py", script)
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True)
    return checkout / "secrets"


@pytest.fixture(scope="module")
def broker(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """A broker that reads the definitions as the container does."""
    definitions = tmp_path_factory.mktemp("definitions")
    shutil.copy(secrets / "rabbitmq_users.json", definitions / "10-users.json")
    shutil.copy(OPS / "rabbitmq" / "topology.json", definitions / "20-topology.json")
    # The tests' jobs are `dummy`'s, which compose does not run.
    dummy = json.dumps(broker_definitions(Topology(), ["dummy"]))
    (definitions / "30-dummy.json").write_text(dummy)
    config = (OPS / "rabbitmq" / "rabbitmq.conf").read_text()
    lines = [
        line.replace("/etc/rabbitmq/definitions.d", str(definitions))
        for line in config.splitlines()
        if line.startswith("load_definitions")
    ]
    broker = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"), config=lines)
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.stop())


@pytest.fixture(scope="module")
def vault(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChildProcess]:
    """A vault with compose's configuration; the process is named by its URL."""
    folder = tmp_path_factory.mktemp("openbao")
    port, cluster_port = free_ports(2)
    (folder / "data").mkdir()
    config = folder / "openbao.hcl"
    config.write_text(
        (OPS / "openbao" / "openbao.hcl")
        .read_text()
        .replace("/openbao/file", str(folder / "data"))
        .replace("/run/secrets", str(secrets))
        .replace("0.0.0.0:8200", f"{LOOPBACK}:{port}")
        .replace("openbao:8200", f"{LOOPBACK}:{port}")
        .replace("openbao:8201", f"{LOOPBACK}:{cluster_port}")
    )
    vault = ChildProcess(
        f"http://{LOOPBACK}:{port}",
        [find_program(), "server", f"-config={config}"],
        env={**base_environment(), "HOME": str(folder)},
        cwd=folder,
        log=folder / "openbao.log",
    )
    vault.start()
    asyncio.run(_set_up(vault, secrets))
    yield vault
    asyncio.run(vault.stop())


async def test_a_publisher_is_answered(
    broker: PrivateRabbitMQ, vault: ChildProcess, secrets: Path, tmp_path: Path, start_worker: StartWorker
) -> None:
    await _start_compose_worker(broker, vault, secrets, tmp_path, start_worker)

    with _publisher(broker, secrets) as agent:
        echoed = agent.call(job("dummy", "echo", {"message": "hi"}), user_id="agent")
        foreign = agent.call(job("dummy", "ping", tenant="acme"), user_id="agent")
        nameless = agent.call(job("dummy", "ping"))

    assert {"received_message": "hi"} == echoed["data"]
    assert "TENANT_FORBIDDEN" == foreign["error"]["code"]
    assert "TENANT_FORBIDDEN" == nameless["error"]["code"]


async def test_its_worker_may_leave_the_mark_of_its_ledger(
    broker: PrivateRabbitMQ, vault: ChildProcess, secrets: Path, tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await _start_compose_worker(broker, vault, secrets, tmp_path, start_worker)

    with _connected(broker, secrets, "operator") as operator:
        operator.channel().exchange_declare("connectors.ledger", passive=True)

    assert not worker.logged("ledger not checked")


async def test_a_reply_cannot_be_sent_to_a_queue_that_did_not_ask_for_it(
    broker: PrivateRabbitMQ, vault: ChildProcess, secrets: Path, tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = await _start_compose_worker(broker, vault, secrets, tmp_path, start_worker)

    with _connected(broker, secrets, "operator") as operator, _publisher(broker, secrets) as agent:
        channel = operator.channel()
        channel.queue_declare("victim", durable=True)
        agent.send(job("dummy", "ping"), reply_to="victim", user_id="agent")
        answered = agent.call(job("dummy", "ping"), user_id="agent")
        await worker.until_logged("job dead-lettered")  # not run: the address is no publisher's own
        depth = channel.queue_declare("victim", passive=True).method.message_count
        channel.queue_delete("victim")

    assert "pong" == answered["data"]
    assert 0 == depth


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("worker", "", "connectors.replies"),
        ("worker", "amq.topic", "x"),
        ("agent", "", "connectors.jobs.dummy"),
        ("agent", "connectors.dead", "x"),
        ("agent", "connectors.replies", "x"),
        ("agent", "connectors.retry.1s", "dummy.ping"),
    ],
)
def test_the_broker_refuses_to_publish_elsewhere(
    broker: PrivateRabbitMQ, secrets: Path, user: str, exchange: str, key: str
) -> None:
    with _connected(broker, secrets, user) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
            channel.basic_publish(exchange, key, b"{}")

    assert 403 == refusal.value.reply_code


@pytest.mark.parametrize(
    ("user", "queue"),
    [
        ("agent", "connectors.jobs.dummy"),
        ("agent", "connectors.dead"),
        ("worker", "connectors.dead"),
        ("worker", "connectors.poison"),
    ],
)
def test_the_broker_refuses_to_read_elsewhere(
    broker: PrivateRabbitMQ, secrets: Path, user: str, queue: str
) -> None:
    with (
        _connected(broker, secrets, user) as connection,
        pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal,
    ):
        connection.channel().basic_get(queue)

    assert 403 == refusal.value.reply_code


@pytest.mark.parametrize("user", ["worker", "agent"])
def test_the_broker_refuses_to_declare(broker: PrivateRabbitMQ, secrets: Path, user: str) -> None:
    with (
        _connected(broker, secrets, user) as connection,
        pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal,
    ):
        connection.channel().queue_declare("connectors.jobs.mine", durable=True)

    assert 403 == refusal.value.reply_code


async def test_the_vault_gives_the_worker_its_secrets_and_no_more(vault: ChildProcess, secrets: Path) -> None:
    worker = await _log_in(vault, secrets, "worker")
    operator = await _log_in(vault, secrets, "operator")
    path = "secret/data/connectors/default/http/default"

    assert 200 == await _ask(vault, operator, "POST", path, {"data": {"base_url": "https://a.example"}})
    assert 200 == await _ask(vault, worker, "GET", path)
    assert 403 == await _ask(vault, worker, "POST", path, {"data": {}})
    assert 403 == await _ask(vault, worker, "GET", "secret/data/other")
    assert 403 == await _ask(vault, worker, "LIST", "secret/metadata/connectors")
    assert 403 == await _ask(vault, operator, "GET", "sys/policies/acl/connectors-worker")


async def test_the_vault_unseals_itself_and_keeps_what_it_has(vault: ChildProcess, secrets: Path) -> None:
    path = "secret/data/connectors/default/http/default"
    operator = await _log_in(vault, secrets, "operator")
    await _ask(vault, operator, "POST", path, {"data": {"base_url": "https://a.example"}})

    await vault.stop()
    vault.start()
    await _set_up(vault, secrets)

    assert 200 == await _ask(vault, await _log_in(vault, secrets, "worker"), "GET", path)


async def _start_compose_worker(
    broker: PrivateRabbitMQ, vault: ChildProcess, secrets: Path, tmp_path: Path, start_worker: StartWorker
) -> Any:
    """Start a worker with the environment of compose.yaml, hosts and paths replaced."""
    service = YAML(typ="safe").load((ROOT / "compose.yaml").read_text())["services"]["worker"]
    environment = {
        name: value.replace("http://openbao:8200", vault.name).replace("/run/secrets", str(secrets))
        for name, value in service["environment"].items()
    }
    environment["CONNECTORS_ENABLED"] = "dummy,http"
    environment["CONNECTORS_EGRESS_ALLOW"] = ""  # it is strict
    environment["CONNECTORS_DATABASE_URL"] = f"sqlite:///{tmp_path / 'ledger.db'}"
    return await start_worker(_url(broker, secrets, "worker"), **environment)


def _url(broker: PrivateRabbitMQ, secrets: Path, user: str) -> str:
    _, _, url = (secrets / f"{user}.env").read_text().splitlines()[0].partition("=")
    host = "rabbitmq" if user == "worker" else LOOPBACK
    return url.replace(f"@{host}:5672", f"@{LOOPBACK}:{broker.amqp_port}")


def _connected(broker: PrivateRabbitMQ, secrets: Path, user: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(_url(broker, secrets, user)))


def _publisher(broker: PrivateRabbitMQ, secrets: Path) -> ExternalClient:
    agent = ExternalClient(_url(broker, secrets, "agent"))
    agent.channel.queue_bind(str(agent.reply_to), REPLIES, routing_key=str(agent.reply_to))
    return agent


async def _set_up(vault: ChildProcess, secrets: Path) -> None:
    """Wait until the last role is there."""

    async def ready() -> bool:
        try:
            await _log_in(vault, secrets, "operator")
        except httpx.HTTPError:
            return False
        return True

    await vault.wait_until(ready, timeout_s=30)


async def _log_in(vault: ChildProcess, secrets: Path, who: str) -> str:
    body = {"role_id": f"connectors-{who}", "secret_id": (secrets / f"{who}_secret_id").read_text()}
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.post(f"{vault.name}/v1/auth/approle/login", json=body)
    return str(answer.raise_for_status().json()["auth"]["client_token"])


async def _ask(vault: ChildProcess, token: str, method: str, path: str, body: Any = None) -> int:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.request(
            method, f"{vault.name}/v1/{path}", headers={"X-Vault-Token": token}, json=body
        )
    return answer.status_code
