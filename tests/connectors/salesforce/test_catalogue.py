"""What the catalogue shows of Salesforce is true."""

import pytest

from connectors.salesforce import salesforce
from connectors.sdk.effects import Effect
from connectors.sdk.params import example_of

ACTIONS = {
    "get_contact_details",
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


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_an_actions_example_is_valid_and_it_says_what_it_does(name: str) -> None:
    action = salesforce.actions[name]

    params = action.signature.read(example_of(action.signature.model))

    assert action.description
    assert (name in READS) == (action.effect_of(params, None) is Effect.READ)
    assert action.can_undo == name.startswith(("create_", "log_"))
    assert action.can_reconcile == action.can_undo
