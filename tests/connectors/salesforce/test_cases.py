"""Cases: looked up, opened, changed with a comment in one step."""

from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault
from connectors.sdk.effects import Effect
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    InvalidParams,
    NotFound,
    Rejected,
    Sent,
    Unavailable,
)
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration


def _case(bench: Bench) -> dict[str, Any]:
    return next(iter(bench.org.store.records("Case")))


def _comments(bench: Bench) -> list[str]:
    return [each["CommentBody"] for each in bench.org.store.records("CaseComment")]


@pytest.mark.parametrize("by", ["case_id", "case_number"])
async def test_a_case_is_found_by_id_and_by_number(bench: Bench, by: str) -> None:
    case = _case(bench)
    value = case["Id"][:15] if by == "case_id" else case["CaseNumber"]

    found = (await bench.run("get_case", {by: value}))["case"]

    assert (case["Id"], "00001001") == (found["Id"], found["CaseNumber"])
    assert {"Name": "Desk", "Type": "User"} == found["Owner"]
    assert "Ada Lovelace" == found["Contact"]["Name"]


async def test_the_owner_of_a_case_may_be_a_queue(bench: Bench) -> None:
    case = _case(bench)
    queue = bench.org.store.insert("Group", {"Name": "Front desk"})
    case["OwnerId"] = queue["Id"]

    found = await bench.run("get_case", {"case_id": case["Id"], "fields": ["Owner.Name", "Owner.Type"]})
    with pytest.raises(InvalidParams, match="has no field"):
        await bench.run("get_case", {"case_id": case["Id"], "fields": ["Owner.Department"]})

    assert {"Name": "Front desk", "Type": "Group"} == found["case"]["Owner"]


@pytest.mark.parametrize(
    "ref", [{"case_number": "1001"}, {"case_number": "99999999"}, {"case_id": "500000000000001AAA"}]
)
async def test_an_unknown_case_is_not_found(bench: Bench, ref: dict[str, str]) -> None:
    for action, more in (
        ("get_case", {}),
        ("update_case", {"status": "Working"}),
        ("update_case", {"comment": "x"}),
        ("add_case_comment", {"comment": "x"}),
    ):
        with pytest.raises(NotFound):
            await bench.run(action, {**ref, **more})


@pytest.mark.parametrize(
    "ref",
    [
        {},
        {"case_id": "500000000000001AAA", "case_number": "1"},
        {"case_number": 1001},
        {"case_number": "1'--"},
    ],
)
async def test_a_case_must_be_named_in_one_way(bench: Bench, ref: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("get_case", ref)

    assert [] == bench.org.requests


async def test_a_number_of_several_cases_is_a_conflict(bench: Bench) -> None:
    twin = bench.org.store.insert("Case", {"Subject": "Twin"})
    twin["CaseNumber"] = _case(bench)["CaseNumber"]

    with pytest.raises(Conflict) as caught:
        await bench.run("update_case", {"case_number": twin["CaseNumber"], "status": "Closed"})

    assert caught.value.data is not None
    assert {twin["Id"], _case(bench)["Id"]} == set(caught.value.data["ids"])


async def test_a_case_is_created_once_and_returned_with_its_number(bench: Bench) -> None:
    params = {
        "subject": "Printer on fire",
        "priority": "High",
        "origin": "Phone",
        "fields": {"Description": "!"},
    }

    made = await bench.run("create_case", params)
    again = await bench.run("create_case", params, is_repeat=True)

    assert ("00001002", True) == (made["case_number"], made["created"])
    assert made | {"created": False} == again
    await bench.undo("create_case", result=made)
    assert 1 == len(list(bench.org.store.records("Case")))


async def test_a_case_is_created_even_if_its_number_cannot_be_read(bench: Bench) -> None:
    bench.org.faults.add(Fault("query", status=500))

    made = await bench.run("create_case", {"subject": "Printer on fire"})

    assert made["case_number"] is None
    assert made["created"] is True


async def test_an_uncertain_case_is_found_with_its_number(bench: Bench) -> None:
    document = bench.org.authority.document("jwt", case_key_field=KEY_FIELD)
    made = await bench.run("create_case", {"subject": "Printer"}, document=document)

    assert made == await bench.reconcile("create_case", {"subject": "Printer"}, document=document)


@pytest.mark.parametrize("by", ["case_id", "case_number"])
async def test_fields_of_a_case_are_changed(bench: Bench, by: str) -> None:
    case = _case(bench)
    value = case["Id"] if by == "case_id" else case["CaseNumber"]

    answer = await bench.run(
        "update_case", {by: value, "status": "Closed", "priority": "Low", "fields": {"Origin": "Web"}}
    )

    assert {"case_id": case["Id"], "updated_fields": ["Origin", "Priority", "Status"]} == answer
    assert ("Closed", "Low", True) == (case["Status"], case["Priority"], case["IsClosed"])
    assert 0 == bench.org.journal.calls["composite"]


async def test_fields_and_comment_are_written_in_one_step(bench: Bench) -> None:
    case = _case(bench)

    answer = await bench.run(
        "update_case", {"case_number": case["CaseNumber"], "status": "Working", "comment": "Called back"}
    )

    assert ["Status"] == answer["updated_fields"]
    assert "Working" == _case(bench)["Status"]
    assert ["Called back"] == _comments(bench)
    assert 1 == bench.org.journal.calls["composite"]


async def test_neither_is_written_if_one_is_refused(bench: Bench) -> None:
    case = _case(bench)

    with pytest.raises(Rejected) as caught:
        await bench.run(
            "update_case", {"case_id": case["Id"], "status": "Nonsense", "comment": "Called back"}
        )

    assert caught.value.data is not None
    assert "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST" == caught.value.data["reason"]
    assert ["Status"] == [detail.field for detail in caught.value.details]
    assert [] == _comments(bench)
    assert "New" == _case(bench)["Status"]


async def test_a_comment_alone_is_one_call(bench: Bench) -> None:
    answer = await bench.run("update_case", {"case_id": _case(bench)["Id"], "comment": "Called back"})

    assert [] == answer["updated_fields"]
    assert ["Called back"] == _comments(bench)


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"compositeResponse": []}', b'{"compositeResponse": [{}, {}]}', b'{"compositeResponse": 3}'],
)
async def test_an_empty_composite_answer_leaves_the_outcome_open(bench: Bench, body: bytes) -> None:
    bench.org.faults.add(Fault("composite", body=body))

    with pytest.raises(ConnectorError) as caught:
        await bench.run("update_case", {"case_id": _case(bench)["Id"], "status": "Working", "comment": "x"})

    assert isinstance(caught.value, Unavailable)
    assert Sent.UNCERTAIN is caught.value.sent


@pytest.mark.parametrize("public", [True, False])
async def test_a_comment_is_added(bench: Bench, public: bool) -> None:
    answer = await bench.run(
        "add_case_comment", {"case_number": "00001001", "comment": "Line\n'two' \\", "public": public}
    )

    (comment,) = bench.org.store.records("CaseComment")
    assert {"comment_id": comment["Id"], "case_id": _case(bench)["Id"]} == answer
    assert ("Line\n'two' \\", public) == (comment["CommentBody"], comment["IsPublished"])


def test_only_a_comment_makes_an_update_a_write() -> None:
    action = salesforce.actions["update_case"]
    ref = {"case_number": "00001001"}

    assert Effect.KEYED is action.effect_of(action.signature.read({**ref, "status": "New"}), None)
    assert Effect.WRITE is action.effect_of(action.signature.read({**ref, "comment": "x"}), None)


@pytest.mark.parametrize(
    "params", [{}, {"fields": {}}, {"comment": ""}, {"comment": "x" * 4001}, {"subject": "x" * 256}]
)
async def test_an_update_that_makes_no_sense_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("update_case", {"case_number": "00001001", **params})

    assert [] == bench.org.requests


async def test_a_hidden_field_of_a_case_is_left_out(bench: Bench) -> None:
    del bench.org.store.object("Case").fields["origin"]

    answer = await bench.run("get_case", {"case_number": "00001001"})

    assert "Origin" not in answer["case"]
