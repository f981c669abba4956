"""What the catalogue shows of Salesforce is true."""

import pytest

from connectors.salesforce import salesforce
from connectors.sdk.effects import Effect
from connectors.sdk.params import example_of
from connectors.sdk.personal import MASK

ACTIONS = {
    "get_contact_details",
    "find_caller",
    "convert_lead",
    "run_flow",
    "create_lead",
    "update_case",
    "get_case",
    "create_case",
    "add_case_comment",
    "create_contact",
    "update_contact",
    "update_lead",
    "create_task",
    "log_call",
    "search_records",
    "query",
    "get_record",
    "create_record",
    "update_record",
    "upsert_record",
    "delete_record",
    "describe_object",
    "get_limits",
}
READS = {
    "find_caller",
    "get_contact_details",
    "get_case",
    "search_records",
    "query",
    "get_record",
    "describe_object",
    "get_limits",
}


def test_the_actions_are_those_of_the_contract() -> None:
    assert ACTIONS == set(salesforce.actions)


def test_personal_parameters_are_marked_and_ids_are_not() -> None:
    marked = {
        name
        for action in salesforce.actions.values()
        for name, part in action.signature.schema["properties"].items()
        if part.get("x-personal")
    }

    names = {"first_name", "last_name", "name", "email", "phone", "mobile_phone"}
    assert names | {"subject", "description", "comment", "text", "bindings", "fields", "inputs"} == marked


def test_a_leads_person_is_masked_and_its_status_is_not() -> None:
    params = {
        "last_name": "Lovelace",
        "company": "Navy",
        "email": "ada@lovelace.example",
        "status": "Working - Contacted",
        "fields": {"Rating": "Hot", "NumberOfEmployees": 2},
    }
    personal = salesforce.actions["create_lead"].signature.personal(params)

    masked = {name: personal.mask(value, name) for name, value in params.items()}
    line = personal.mask({"event": "lead created", "lead_id": "00QSb0000000002IAA", "attempt": 2})

    assert {"company": "Navy", "status": "Working - Contacted"} == {
        name: value for name, value in masked.items() if value != MASK
    }
    assert {"event": "lead created", "lead_id": "00QSb0000000002IAA", "attempt": 2} == line


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_each_action_has_a_valid_example_and_a_description(name: str) -> None:
    action = salesforce.actions[name]

    params = action.signature.read(example_of(action.signature.model))

    assert action.description
    assert (name in READS) == (action.effect_of(params, None) is Effect.READ)
    assert action.can_undo == name.startswith(("create_", "log_"))
    assert action.can_reconcile == (action.can_undo or name == "convert_lead")
