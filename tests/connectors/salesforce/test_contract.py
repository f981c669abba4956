"""Salesforce passes the contract that every connector must, with each way to create a record once."""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Field, SalesforceSandbox
from connectors.sdk.testing import ConnectorContract, Via

pytestmark = pytest.mark.integration

#: What says when, and by which of two runs.
_GENERATED: Final = frozenset({"LastModifiedDate", "CreatedDate", "created"})


class SeededOrg(SalesforceSandbox):
    """An org with a record of each kind that the examples are about."""

    async def start(self) -> None:
        await super().start()
        self.seed()
        for name in ("Number__c", KEY_FIELD):
            self.store.add_field("Account", Field(name, length=64, is_external_id=True, is_unique=True))
        self.store.insert("Lead", {"LastName": "Hopper", "Company": "Navy"})
        self.store.flows["Send_Reminder"] = self._remind
        #: Parameters that name what is there.
        self.named = {
            "case_number": "00001001",
            "contact_id": self._first("Contact"),
            "lead_id": self._first("Lead"),
            "record_id": self._first("Account"),
        }

    def _remind(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"reminderId": self.store.insert("Task", {"Subject": "Reminder"})["Id"]}

    def _first(self, object_name: str) -> str:
        return str(next(self.store.records(object_name))["Id"])


class TestSalesforceWithExternalIds(ConnectorContract):
    """Creates are upserts under the job's mark: KEYED."""

    connector = salesforce
    keys: ClassVar[Mapping[str, Any]] = {
        "lead_external_id_field": KEY_FIELD,
        "contact_external_id_field": KEY_FIELD,
        "case_external_id_field": KEY_FIELD,
        "external_id_fields": {"Account": KEY_FIELD},
    }

    def provider(self) -> SeededOrg:
        return SeededOrg()

    def credential(self, provider: SeededOrg, via: Via) -> dict[str, Any]:
        # The login says where the org is: that, too, must lead through the proxy.
        provider.authority.login_url = provider.authority.instance_url = via(provider.url)
        return provider.authority.document("client_credentials", **self.keys)

    def example(self, action: str, provider: SeededOrg) -> Mapping[str, Any]:
        params = super().example(action, provider)
        return {name: provider.named.get(name, value) for name, value in params.items()}

    def state(self, provider: SeededOrg) -> object:
        return {
            record["Id"]: {name: value for name, value in record.items() if name not in _GENERATED}
            for name in provider.store.objects
            for record in provider.store.records(name)
        }

    def essence(self, data: Any) -> object:
        return {name: value for name, value in data.items() if name not in _GENERATED}


class TestSalesforceWithKeyFields(TestSalesforceWithExternalIds):
    """Creates carry the job's mark: WRITE, and found again where uncertain. A comment on a case is a WRITE, too."""

    exempt: ClassVar[Mapping[str, Mapping[str, str]]] = {
        check: {
            name: "no key has to do with it, and it is held to this with external ids"
            for name, action in salesforce.actions.items()
            if not action.can_reconcile and name != "update_case"
        }
        for check, *_ in ConnectorContract.checks()
    }
    keys: ClassVar[Mapping[str, Any]] = {
        "lead_key_field": KEY_FIELD,
        "contact_key_field": KEY_FIELD,
        "case_key_field": KEY_FIELD,
        "task_key_field": KEY_FIELD,
        "key_fields": {"Account": KEY_FIELD},
    }

    def example(self, action: str, provider: SeededOrg) -> Mapping[str, Any]:
        comment = {"comment": "Called back"} if action == "update_case" else {}
        return {**super().example(action, provider), **comment}


class TestSalesforceWithoutKeys(TestSalesforceWithKeyFields):
    """Creates leave no trace of their job: WRITE, and where they are uncertain, unknown."""

    keys: ClassVar[Mapping[str, Any]] = {}
