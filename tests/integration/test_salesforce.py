"""Salesforce through real queues, vault and worker: a caller, an agent, and an org that fails in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from connectors.sandbox.salesforce.server import Fault, SalesforceSandbox
from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job
from worker.dev.openbao import PrivateOpenBao

pytestmark = pytest.mark.integration


async def test_contact_lead_and_case_in_one_story(
    broker_url: str, start_worker: StartWorker, openbao: PrivateOpenBao, tmp_path: Path
) -> None:
    async with SalesforceSandbox() as org:
        org.seed()
        document = org.credential()
        role = await openbao.enable_approle()
        await openbao.put_secret("connectors/default/salesforce/default", document)
        (secret_id := tmp_path / "secret-id").write_text(role.secret_id.get_secret_value())
        worker = await start_worker(
            broker_url,
            enabled="salesforce",
            vault_url=openbao.url,
            vault_role_id=role.role_id,
            vault_secret_id_file=str(secret_id),
            log_level="DEBUG",
        )
        org.faults.add(Fault("upsert", cut="after"))

        def story() -> list[dict[str, Any]]:
            with ExternalClient(broker_url) as caller:
                found = caller.call(job("salesforce", "get_contact_details", {"phone": "0532 111 22 33"}))
                lead = {"last_name": "Hopper", "company": "Navy"}
                made = caller.call(job("salesforce", "create_lead", lead), timeout_s=30)
                change = {"case_number": "00001001", "status": "Working", "comment": "Called back"}
                changed = caller.call(job("salesforce", "update_case", change))
                wrong = caller.call(job("salesforce", "update_case", {**change, "status": "Nonsense"}))
                return [found, made, changed, wrong]

        found, made, changed, wrong = await asyncio.to_thread(story)
        metrics = (await worker.get("metrics")).text

        assert "Ada" == found["data"]["contact"]["FirstName"]
        assert ("succeeded", 2) == (made["status"], made["attempts"])
        assert 1 == len(org.journal.of("created", "Lead"))
        assert ["Status"] == changed["data"]["updated_fields"]
        assert "REJECTED" == wrong["error"]["code"]
        assert [{"field": "Status"}.items() <= each.items() for each in wrong["error"]["details"]] == [True]
        assert 1 == org.journal.calls["token"]
        assert 'connectors_provider_quota_used_ratio{connector="salesforce"}' in metrics
        secrets = [
            document["private_key"].splitlines()[1],
            *(each.partition(" ")[2] for each in org.tokens if each),
        ]
        said = worker.log_path.read_text() + metrics + str([found, made, changed, wrong])
        assert not [secret for secret in secrets if secret in said]
