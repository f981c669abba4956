"""The worked example: built as a wheel, installed in an environment, run through the real broker and vault."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from connectors.examples.acme_tickets import tickets
from connectors.examples.help_desk import SECRET, HelpDesk
from connectors.sdk.errors import Code
from connectors.sdk.testing import ConnectorContract, Via
from tests.packaging.conftest import EXAMPLE, build_wheel, run
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import WORKER_POLICY, PrivateOpenBao

pytestmark = pytest.mark.integration

PATH = "connectors/acme/acme_tickets/default"
WRITING_POLICY = WORKER_POLICY + 'path "secret/data/connectors/*" { capabilities = ["read", "update"] }'


class TestContract(ConnectorContract):
    """The example passes what every connector must."""

    connector = tickets

    def provider(self) -> HelpDesk:
        return HelpDesk()

    def credential(self, provider: HelpDesk, via: Via) -> Mapping[str, Any]:
        return provider.secret(via(provider.url))

    def example(self, action: str, provider: HelpDesk) -> Mapping[str, Any]:
        return {"text": "two words"} if action == "count_words" else super().example(action, provider)

    def failures(self, action: str, provider: HelpDesk) -> Mapping[Code, Mapping[str, Any]]:
        failures: dict[str, Mapping[Code, Mapping[str, Any]]] = {
            "close_ticket": {Code.NOT_FOUND: {"ticket_id": "99"}, Code.INVALID_PARAMS: {"ticket_id": "x"}}
        }
        return failures.get(action, {})

    def state(self, provider: HelpDesk) -> object:
        return {number: dict(ticket) for number, ticket in provider.tickets.items()}


@pytest.fixture(scope="module")
def installed(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment with the example's wheel in it."""
    built = build_wheel(EXAMPLE, tmp_path_factory.mktemp("example"))
    pip = [str(environment / "bin" / "python"), "-m", "pip"]
    run([*pip, "install", "-q", "--no-deps", "--no-index", str(built)], environment)
    return environment


@pytest.fixture
async def help_desk() -> AsyncIterator[HelpDesk]:
    async with HelpDesk() as help_desk:
        yield help_desk


@pytest.fixture
async def worker(
    installed: Path, broker_url: str, openbao: PrivateOpenBao, help_desk: HelpDesk, tmp_path: Path
) -> AsyncIterator[WorkerProcess]:
    await openbao.put_secret(PATH, help_desk.secret())
    role = await openbao.enable_approle(policy=WRITING_POLICY)
    secret_id = tmp_path / "secret-id"
    secret_id.write_text(role.secret_id.get_secret_value())
    worker = WorkerProcess(
        {
            "CONNECTORS_RABBITMQ_URL": broker_url,
            "CONNECTORS_ENABLED": "acme_tickets",
            "CONNECTORS_EGRESS_ALLOW": "localhost",
            "CONNECTORS_DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
            "CONNECTORS_VAULT_URL": openbao.url,
            "CONNECTORS_VAULT_ROLE_ID": role.role_id,
            "CONNECTORS_VAULT_SECRET_ID_FILE": str(secret_id),
        },
        tmp_path / "worker",
        python=str(installed / "bin" / "python"),
    )
    worker.start()
    await worker.ready()
    yield worker
    worker.close()


async def test_it_runs_through_the_broker_from_its_wheel(
    worker: WorkerProcess, broker_url: str, help_desk: HelpDesk, openbao: PrivateOpenBao, installed: Path
) -> None:
    caller = "+905321112233"

    def call() -> list[Any]:
        with ExternalClient(broker_url) as client:
            jobs = [
                job("acme_tickets", "list_tickets", {"limit": 3}, tenant="acme"),
                job("acme_tickets", "open_ticket", {"subject": "Ağ yok", "caller": caller}, tenant="acme"),
                job("acme_tickets", "close_ticket", {"ticket_id": "4"}, tenant="acme"),
                job("acme_tickets", "count_words", {"text": "iki kelime"}, tenant="acme"),
            ]
            return [client.call(each) for each in jobs]

    listed, opened, closed, counted = await asyncio.to_thread(call)

    assert (3, False) == (len(listed["data"]["tickets"]), listed["data"]["truncated"])
    assert {"id": "4", "subject": "Ağ yok", "caller": caller} == opened["data"] == closed["data"]
    assert "closed" == help_desk.tickets["4"]["state"]
    assert 2 == counted["data"]
    # The provider exchanged the refresh token, and the vault has the new one.
    stored = (await openbao.ask("GET", f"secret/data/{PATH}"))["data"]["data"]
    assert help_desk.refresh_token == stored["refresh_token"] != "refresh-token-0"
    log = worker.log_path.read_text()
    for secret in (SECRET, "refresh-token-", "access-token-", caller):
        assert secret not in log
    assert "acme_tickets" in run([str(installed / "bin" / "connectors"), "list"], installed)


def test_its_catalogue_comes_with_it(installed: Path) -> None:
    described = json.loads(
        run([str(installed / "bin" / "connectors"), "describe", "acme_tickets", "--json"], installed)
    )

    assert "1.4.2" == described["version"]
    assert ["read", "write", "keyed", "read"] == [action["effect"] for action in described["actions"]]
