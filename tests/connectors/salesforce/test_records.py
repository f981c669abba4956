"""Records of any object, descriptions, limits."""

import asyncio
from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault, Field
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, InvalidParams, NotFound, OutcomeUnknown, Unavailable
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

OBJECT = "Invoice__c"


@pytest.fixture
def invoices(bench: Bench) -> Bench:
    bench.org.store.add_object(
        OBJECT,
        "a0B",
        Field("Number__c", length=40, is_external_id=True, is_unique=True),
        Field("Total__c", "currency"),
        Field("Account__c", "reference", 18, reference_to=("Account",), relationship="Account__r"),
    )
    return bench


async def test_a_record_lives_and_dies(invoices: Bench) -> None:
    made = await invoices.run("create_record", {"object": OBJECT, "fields": {"Total__c": 12.5}})
    ref = {"object": OBJECT, "record_id": made["record_id"]}
    changed = await invoices.run("update_record", {**ref, "fields": {"Total__c": 13}})
    whole = await invoices.run("get_record", ref)
    part = await invoices.run("get_record", {**ref, "fields": ["Total__c", "Account__r.Name"]})
    gone = await invoices.run("delete_record", ref)

    assert ["Total__c"] == changed["updated_fields"]
    assert 13 == whole["record"]["Total__c"]
    assert {"Id": made["record_id"], "Total__c": 13, "Account__r": None} == part["record"]
    assert gone["deleted"] is True
    for action, more in (
        ("get_record", {}),
        ("update_record", {"fields": {"Total__c": 1}}),
    ):
        with pytest.raises(NotFound):
            await invoices.run(action, ref | more)
    with pytest.raises(NotFound):
        await invoices.run("get_record", {**ref, "fields": ["Id"]})
    assert (await invoices.run("delete_record", ref))["deleted"] is True
    with pytest.raises(NotFound):
        await invoices.run("delete_record", {**ref, "record_id": "a00000000000001AAA"})


async def test_a_repeated_delete_is_a_success(invoices: Bench) -> None:
    made = await invoices.run("create_record", {"object": OBJECT, "fields": {"Total__c": 1}})
    ref = {"object": OBJECT, "record_id": made["record_id"]}
    invoices.org.faults.add(Fault("delete", cut="after"))

    with pytest.raises(Unavailable):
        await invoices.run("delete_record", ref)

    assert (await invoices.run("delete_record", ref, is_repeat=True))["deleted"] is True


@pytest.mark.parametrize("number", ["17", "a/b", "a b+c%d", "Ünïcode 😀", "x.inc", "a//b?c#d"])
async def test_a_record_is_upserted_by_its_external_id(invoices: Bench, number: str) -> None:
    params = {"object": OBJECT, "external_id_field": "Number__c", "external_id": number}

    first = await invoices.run("upsert_record", {**params, "fields": {"Total__c": 1}})
    second = await invoices.run("upsert_record", {**params, "fields": {"Total__c": 2}})

    assert (True, False) == (first["created"], second["created"])
    (invoice,) = invoices.org.store.records(OBJECT)
    assert (number, 2) == (invoice["Number__c"], invoice["Total__c"])


async def test_an_upsert_that_loses_a_race_still_writes_its_values(invoices: Bench) -> None:
    params = {"object": OBJECT, "external_id_field": "Number__c", "external_id": "17"}
    await invoices.run("upsert_record", {**params, "fields": {"Total__c": 1}})
    invoices.org.faults.add(Fault("upsert", status=400, code="DUPLICATE_VALUE"))

    await invoices.run("upsert_record", {**params, "fields": {"Total__c": 2}})

    (invoice,) = invoices.org.store.records(OBJECT)
    assert 2 == invoice["Total__c"]


async def test_another_unique_value_that_is_taken_is_a_conflict(invoices: Bench) -> None:
    invoices.org.store.add_field(OBJECT, Field("Code__c", is_unique=True))
    taken = await invoices.run("create_record", {"object": OBJECT, "fields": {"Code__c": "A"}})
    params = {"object": OBJECT, "external_id_field": "Number__c", "external_id": "18"}

    with pytest.raises(Conflict) as caught:
        await invoices.run("upsert_record", {**params, "fields": {"Code__c": "a"}})

    assert caught.value.data is not None
    assert [taken["record_id"]] == caught.value.data["ids"]


async def test_a_reference_may_be_given_by_an_external_id(invoices: Bench) -> None:
    invoices.org.store.add_field("Account", Field("Code__c", is_external_id=True))
    account = next(iter(invoices.org.store.records("Account")))
    account["Code__c"] = "C-1"

    made = await invoices.run(
        "create_record", {"object": OBJECT, "fields": {"Account__r": {"Code__c": "C-1"}}}
    )

    record = invoices.org.store.find(OBJECT, made["record_id"])
    assert account["Id"] == record["Account__c"]


async def test_a_custom_object_is_created_once_if_its_field_is_named(invoices: Bench) -> None:
    document = invoices.org.authority.document("jwt", external_id_fields={OBJECT: "Number__c"})
    params = {"object": OBJECT, "fields": {"Total__c": 1}}

    made = await invoices.run("create_record", params, document=document)
    again = await invoices.run("create_record", params, document=document)
    await invoices.undo("create_record", params, document=document)

    assert made | {"created": False} == again
    assert [] == list(invoices.org.store.records(OBJECT))
    action = salesforce.actions["create_record"]
    credential = invoices.context(document=document).credential
    assert Effect.KEYED is action.effect_of(action.signature.read(params), credential)
    assert Effect.WRITE is action.effect_of(
        action.signature.read({**params, "object": "Account"}), credential
    )


async def test_a_record_is_found_again_and_undone(invoices: Bench) -> None:
    document = invoices.org.authority.document("jwt", key_fields={OBJECT: "Number__c"})
    params = {"object": OBJECT, "fields": {"Total__c": 1}}
    assert await invoices.reconcile("create_record", params, document=document) is None
    made = await invoices.run("create_record", params, document=document)

    assert made == await invoices.reconcile("create_record", params, document=document)
    await invoices.undo("create_record", document=document, result=made)
    assert [] == list(invoices.org.store.records(OBJECT))
    with pytest.raises(OutcomeUnknown):
        await invoices.undo("create_record", document=document, is_repeat=True)


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("get_record", {"object": "Lead;DELETE", "record_id": "00Q000000000001AAA"}),
        ("get_record", {"object": "Lead", "record_id": "../../query?q=SELECT"}),
        ("get_record", {"object": "Lead", "record_id": "https://evil.example/x"}),
        ("get_record", {"object": "../Account", "record_id": "00Q000000000001AAA"}),
        ("get_record", {"object": "Lead", "record_id": "00Q000000000001AAA", "fields": ["Id FROM User--"]}),
        ("update_record", {"object": "Lead", "record_id": "00Q000000000001AAA", "fields": {}}),
        ("update_record", {"object": "Lead", "record_id": "00Q000000000001AAA", "fields": {"a b": 1}}),
        ("delete_record", {"object": "Lead", "record_id": "//evil.example/x"}),
        (
            "upsert_record",
            {"object": "Lead", "external_id_field": "A/B", "external_id": "1", "fields": {"A": 1}},
        ),
        (
            "upsert_record",
            {"object": "Lead", "external_id_field": "A", "external_id": "..", "fields": {"B": 1}},
        ),
        (
            "upsert_record",
            {"object": "Lead", "external_id_field": "A", "external_id": "1", "fields": {"a": 1}},
        ),
        ("describe_object", {"object": "Lead/describe"}),
        ("search_records", {"text": "x"}),
        ("search_records", {"text": "Ada", "objects": ["Contact(Id)"]}),
        ("query", {"soql": "SELECT Id FROM Lead", "limit": 0}),
        ("query", {"soql": "SELECT Id FROM Lead", "limit": 2001}),
        ("query", {"soql": "SELECT Id FROM Lead WHERE Name = {n}", "bindings": {"n": {"date": "yesterday"}}}),
        (
            "query",
            {"soql": "SELECT Id FROM Lead WHERE Name = {n}", "bindings": {"n": {"datetime": "1700000000"}}},
        ),
        ("query", {"soql": "SELECT Id FROM Lead WHERE Name = 'x'"}),
        ("create_lead", {"last_name": "x" * 81, "company": "y"}),
        ("create_lead", {"last_name": "x", "company": "y", "description": "x" * 32_001}),
        ("create_lead", {"last_name": "x", "company": "y", "fields": {"attributes": {"type": "User"}}}),
        ("log_call", {"duration_seconds": -1}),
        ("create_task", {"subject": "x", "due_date": "1700000000"}),
    ],
)
async def test_hostile_input_is_refused_before_any_request(
    bench: Bench, action: str, params: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParams):
        await bench.run(action, params)

    assert [] == bench.org.requests


@pytest.mark.parametrize("name", ["query", "session", "bulk", "describe", "headers"])
async def test_an_object_may_be_named_like_an_attribute_of_the_library(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("get_record", {"object": name, "record_id": "00Q000000000001AAA"})

    assert f"GET /services/data/v62.0/sobjects/{name}/00Q000000000001AAA" in bench.org.requests


async def test_a_description_is_kept_for_the_tenant(bench: Bench) -> None:
    described = await bench.run("describe_object", {"object": "lead"})
    await bench.run("describe_object", {"object": "Lead"})
    await bench.run("describe_object", {"object": "Lead"}, tenant="globex")

    fields = {field["name"]: field for field in described["fields"]}
    assert ("Lead", True) == (described["name"], described["createable"])
    assert fields["Company"]["nillable"] is False
    assert "Open - Not Contacted" in fields["Status"]["picklist"]
    assert fields[KEY_FIELD]["externalId"] is True
    assert 2 == bench.org.journal.calls["describe"]


async def test_concurrent_jobs_fetch_a_description_once(bench: Bench) -> None:
    await asyncio.gather(*(bench.run("describe_object", {"object": "Lead"}) for _ in range(20)))

    assert 1 == bench.org.journal.calls["describe"]


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("describe_object", {}),
        ("get_record", {"record_id": "00Q000000000001AAA"}),
        ("get_record", {"record_id": "00Q000000000001AAA", "fields": ["Id"]}),
        ("delete_record", {"record_id": "00Q000000000001AAA"}),
        ("update_record", {"record_id": "00Q000000000001AAA", "fields": {"Name": "x"}}),
        ("create_record", {"fields": {"Name": "x"}}),
        ("upsert_record", {"external_id_field": "A__c", "external_id": "1", "fields": {"Name": "x"}}),
    ],
)
async def test_an_unknown_object_is_the_jobs_fault(bench: Bench, action: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run(action, {"object": "Nope__c", **params})

    assert ["object"] == [detail.field for detail in caught.value.details]
    assert [] == [each for each in bench.org.journal.effects if each.kind != "login"]


@pytest.mark.parametrize("field", ["Nope__c", "Name"])
async def test_a_field_that_is_no_external_id_is_the_jobs_fault(bench: Bench, field: str) -> None:
    params = {"object": "Account", "external_id_field": field, "external_id": "1", "fields": {"Phone": "1"}}

    with pytest.raises(InvalidParams) as caught:
        await bench.run("upsert_record", params)

    assert ["external_id_field"] == [detail.field for detail in caught.value.details]


async def test_the_quota_of_each_answer_reaches_the_metrics(bench: Bench) -> None:
    told: list[tuple[tuple[str, str, str], int, int]] = []
    pool = HttpPool(HttpPolicy(), on_quota=lambda *quota: told.append(quota))
    try:
        await Bench(bench.org, pool).run("get_limits")
    finally:
        await pool.close()

    assert [(("acme", "salesforce", "default"), 1, 15_000)] == told


async def test_many_reads_at_once_are_all_answered(bench: Bench) -> None:
    answers = await asyncio.gather(
        *(bench.run("get_contact_details", {"email": "ada@lovelace.example"}) for _ in range(100))
    )

    assert all(answer["found"] for answer in answers)
