"""A refusal is explained: whose fault it is, which field, and which values are allowed."""

from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault, Field
from connectors.sdk.errors import (
    Conflict,
    CredentialInvalid,
    NotFound,
    PermissionDenied,
    Rejected,
)
from connectors.sdk.testing import Answer, FakeProvider, Kit
from schemas.error import Code
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

API = "/services/data/v62.0"
LEAD = {"last_name": "Hopper", "company": "Navy"}
UNKNOWN = [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}]


@pytest.mark.parametrize(
    ("setting", "reads"),
    [
        ({"lead_external_id_field": "Conectors_Key__c"}, False),
        ({"external_id_fields": {"lead": "Conectors_Key__c"}}, False),
        ({"lead_key_field": "Conectors_Key__c"}, False),
        ({"lead_key_field": "Conectors_Key__c"}, True),
        ({"key_fields": {"Lead": "Conectors_Key__c"}}, True),
    ],
)
async def test_a_misspelt_mark_field_is_the_credentials_fault(
    bench: Bench, setting: dict[str, Any], reads: bool
) -> None:
    document = bench.org.authority.document("jwt", **setting)

    with pytest.raises(CredentialInvalid, match="Conectors_Key__c") as caught:
        await (bench.reconcile if reads else bench.run)("create_lead", LEAD, document=document)

    assert list(setting) == [detail.field for detail in caught.value.details]
    assert [] == list(bench.org.store.records("Lead"))


async def test_a_mark_field_that_is_no_external_id_is_the_credentials_fault(bench: Bench) -> None:
    document = bench.org.authority.document("jwt", lead_external_id_field="Title")

    with pytest.raises(CredentialInvalid, match="lead_external_id_field"):
        await bench.run("create_lead", LEAD, document=document)


async def test_another_misspelt_field_is_not_the_credentials_fault(bench: Bench) -> None:
    bench.org.faults.add(
        Fault("upsert", status=400, code="INVALID_FIELD", message="No such column 'Else__c' on Lead")
    )

    with pytest.raises(Rejected) as caught:
        await bench.run("create_lead", LEAD)

    assert ["Else__c"] == [detail.field for detail in caught.value.details]


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("create_lead", {**LEAD, "status": "Nonsense"}),
        ("create_case", {"subject": "Printer", "status": "Nonsense"}),
        ("update_case", {"case_number": "00001001", "status": "Nonsense"}),
        ("update_case", {"case_number": "00001001", "status": "Nonsense", "comment": "x"}),
        ("create_task", {"subject": "Call back", "status": "Nonsense"}),
        (
            "create_record",
            {"object": "Lead", "fields": {"LastName": "x", "Company": "y", "Status": "Nonsense"}},
        ),
    ],
)
async def test_a_value_that_is_not_allowed_is_refused_with_those_that_are(
    bench: Bench, action: str, params: dict[str, Any]
) -> None:
    kind = "Lead" if "ead" in action or action == "create_record" else "Task" if "task" in action else "Case"
    allowed = list(bench.org.store.object(kind).fields["status"].picklist)

    with pytest.raises(Rejected) as caught:
        await bench.run(action, params)

    assert {"Status": allowed} == (caught.value.data or {})["allowed_values"]
    assert ["Status"] == [detail.field for detail in caught.value.details]
    assert allowed[0] in caught.value.details[0].issue


async def test_an_object_that_is_hidden_is_a_lack_of_permission(bench: Bench) -> None:
    del bench.org.store.objects["lead"]

    with pytest.raises(PermissionDenied, match="no object Lead"):
        await bench.run("create_lead", LEAD, document=bench.org.authority.document("jwt"))


async def test_a_duplicate_refusal_says_whether_it_may_be_saved(bench: Bench) -> None:
    bench.org.store.duplicate_rules.add("Lead")
    lead = {**LEAD, "email": "grace@navy.example"}
    made = await bench.run("create_lead", lead)

    with pytest.raises(Conflict) as warned:
        await bench.run("create_lead", lead, key="other")
    bench.org.store.blocking_rules.add("Lead")
    with pytest.raises(Conflict) as blocked:
        await bench.run("create_lead", {**lead, "allow_duplicates": True}, key="other")

    assert ([made["lead_id"]], True) == tuple((warned.value.data or {})[name] for name in ("ids", "may_save"))
    assert ([made["lead_id"]], False) == tuple(
        (blocked.value.data or {})[name] for name in ("ids", "may_save")
    )


@pytest.mark.parametrize("still_there", [True, False])
async def test_undo_believes_only_a_proof_that_the_record_is_gone(still_there: bool) -> None:
    async with FakeProvider() as org:
        org.on(
            "POST",
            "/services/oauth2/token",
            Answer({"access_token": "token-1-abcdefgh", "instance_url": org.url}),
        )
        org.on("GET", f"{API}/", Answer({}))
        org.on("GET", f"{API}/sobjects/Lead/describe", Answer({"name": "Lead", "fields": []}))
        org.on(
            "POST", f"{API}/sobjects/Lead/", Answer({"id": "00Q000000000001AAA", "success": True}, status=201)
        )
        org.on("DELETE", f"{API}/sobjects/Lead/{{id}}", Answer(UNKNOWN, status=404))
        found = [{"Id": "00Q000000000001AAA"}] if still_there else []
        org.on("GET", f"{API}/query/", Answer({"totalSize": len(found), "done": True, "records": found}))
        credential = {
            "auth": "client_credentials",
            "client_id": "c",
            "client_secret": "s3cret-app",
            "login_url": org.url,
        }
        async with Kit(salesforce, credential=credential) as kit:
            await kit.run("create_lead", LEAD, key="k")
            undone = await kit.run("create_lead", LEAD, key="k", mode="undo")

    assert (Code.PERMISSION_DENIED if still_there else None) is undone.code


async def test_undo_of_a_misspelt_mark_field_is_no_success(bench: Bench) -> None:
    document = bench.org.authority.document("jwt", lead_external_id_field="Conectors_Key__c")

    with pytest.raises(CredentialInvalid):
        await bench.undo("create_lead", LEAD, document=document)


async def test_a_repeated_delete_is_a_success_if_the_record_is_gone(bench: Bench) -> None:
    ref = {"object": "Lead", "record_id": "00Q000000000001AAA"}

    with pytest.raises(NotFound):
        await bench.run("delete_record", ref)
    repeated = await bench.run("delete_record", ref, is_repeat=True)

    assert repeated["deleted"] is True


async def test_a_repeated_create_finds_its_own_record_behind_a_conflict(bench: Bench) -> None:
    bench.org.store.add_field("Lead", Field(KEY_FIELD, length=64, is_unique=True))
    document = bench.org.authority.document("jwt", lead_key_field=KEY_FIELD)
    made = await bench.run("create_lead", LEAD, document=document)

    with pytest.raises(Conflict):
        await bench.run("create_lead", LEAD, document=document)
    repeated = await bench.run("create_lead", LEAD, document=document, is_repeat=True)

    assert (made["lead_id"], False) == (repeated["lead_id"], repeated["created"])


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
@pytest.mark.parametrize("code", ["UNKNOWN_EXCEPTION", "SERVER_UNAVAILABLE", "REQUIRED_FIELD_MISSING"])
async def test_a_create_without_a_key_is_never_repeated_after_a_5xx(
    bench: Bench, status: int, code: str
) -> None:
    bench.org.faults.add(Fault("create", status=status, code=code, does_work=True))
    bench.org.seed()
    document = bench.org.authority.document("client_credentials")

    async with Kit(salesforce, credential=document) as kit:
        ran = await kit.run("create_contact", {"last_name": "Once"})

    assert Code.OUTCOME_UNKNOWN is ran.code
    assert 1 == len([each for each in bench.org.store.records("Contact") if each["LastName"] == "Once"])


@pytest.mark.parametrize("status", [500, 503])
async def test_a_create_with_a_key_field_is_looked_up_after_a_5xx(bench: Bench, status: int) -> None:
    bench.org.faults.add(Fault("create", status=status, does_work=True))
    document = bench.org.authority.document("client_credentials", contact_key_field=KEY_FIELD)

    async with Kit(salesforce, credential=document) as kit:
        ran = await kit.run("create_contact", {"last_name": "Once"})

    assert ran.code is None
    assert 1 == len([each for each in bench.org.store.records("Contact") if each["LastName"] == "Once"])
