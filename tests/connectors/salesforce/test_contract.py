"""Salesforce passes the contract that every connector must."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce import KEY_FIELD, SalesforceSandbox
from connectors.sdk.errors import Code
from connectors.sdk.testing import ConnectorContract
from connectors.sdk.testing.contract import Via

pytestmark = pytest.mark.integration


@asynccontextmanager
async def seeded() -> AsyncIterator[SalesforceSandbox]:
    """An org with what the demo tells of, and a lead that waits."""
    async with SalesforceSandbox() as org:
        org.seed()
        org.store.insert("Lead", {"LastName": "Turing", "Company": "Bletchley"})
        yield org


class TestContract(ConnectorContract):
    connector = salesforce
    exempt: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "test_the_same_key_has_one_effect": {
            "delete_record": "a first try that finds nothing to delete says so; only a later one takes it for done"
        }
    }

    def provider(self) -> AbstractAsyncContextManager[SalesforceSandbox]:
        return seeded()

    def credential(self, provider: SalesforceSandbox, via: Via) -> Mapping[str, Any]:
        provider.authority.instance_url = via(provider.url)
        return provider.credential("client_credentials")

    def state(self, provider: SalesforceSandbox) -> object:
        drawn = {"Id", "CreatedDate", "LastModifiedDate", "SystemModstamp"}
        return sorted(
            str({field: value for field, value in record.items() if field not in drawn})
            for records in provider.store.snapshot().values()
            for record in records.values()
            if not record.get("IsDeleted")
        )

    def essence(self, data: Any) -> object:
        """Whether it was there already is not what was asked for."""
        return {**data, "created": None} if isinstance(data, dict) else data

    def example(self, action: str, provider: SalesforceSandbox) -> Mapping[str, Any]:
        contact, case = (next(provider.store.records(name))["Id"] for name in ("Contact", "Case"))
        leads = [record["Id"] for record in provider.store.records("Lead") if record["LastName"] == "Turing"]
        waiting = leads[0] if leads else "00Q000000000000AAA"  # it has been deleted
        lead = {"last_name": "Hopper", "company": "Navy"}
        examples: dict[str, Mapping[str, Any]] = {
            "get_contact_details": {"email": "ada@lovelace.example"},
            "get_case": {"case_id": case},
            "query": {"soql": "SELECT Id FROM Contact"},
            "search_records": {"text": "Lovelace"},
            "get_limits": {},
            "get_record": {"object": "Contact", "record_id": contact},
            "describe_object": {"object": "Contact"},
            "create_lead": lead,
            "create_contact": {"last_name": "Hopper"},
            "create_case": {"subject": "No dial tone"},
            "update_case": {"case_id": case, "status": "Closed"},
            "update_contact": {"contact_id": contact, "title": "Countess"},
            "update_lead": {"lead_id": waiting, "title": "Admiral"},
            "add_case_comment": {"case_id": case, "comment": "called back"},
            "create_record": {"object": "Contact", "fields": {"LastName": "Hopper"}},
            "update_record": {"object": "Contact", "record_id": contact, "fields": {"Title": "Countess"}},
            "upsert_record": {
                "object": "Contact",
                "fields": {"LastName": "Hopper"},
                "external_id_field": KEY_FIELD,
                "external_id": "h-1",
            },
            "delete_record": {"object": "Lead", "record_id": waiting},
            "create_task": {"subject": "Call back", "what_id": case},
            "log_call": {"subject": "Asked for a date", "what_id": case},
        }
        return examples[action]

    def failures(self, action: str, provider: SalesforceSandbox) -> Mapping[Code, Mapping[str, Any]]:
        return {Code.NOT_FOUND: {"case_id": "500000000000000AAA"}} if action == "get_case" else {}
