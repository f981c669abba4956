"""Leads, and how any record is created: once, found again, undone."""

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest

from connectors.salesforce import salesforce
from connectors.salesforce.client import SalesforceApi, TimeLimits
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault, Field, Rule
from connectors.sdk.effects import Effect
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    InvalidParams,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Timeout,
    Unavailable,
)
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

LEAD = {"last_name": "Hopper", "company": "Navy", "email": "grace@navy.example"}


def plain_document(bench: Bench, **more: Any) -> dict[str, Any]:
    """A credential that names no field of ours, or only these."""
    return bench.org.authority.document("client_credentials", **more)


async def test_lead_is_created_with_all_its_fields(bench: Bench) -> None:
    params = {
        **LEAD,
        "first_name": "Grace",
        "phone": "+1 555 123 4567",
        "title": "Rear Admiral",
        "lead_source": "Web",
        "status": "Working - Contacted",
        "description": "Asked about 'COBOL'\n\\ 😀",
        "fields": {"rating": "Hot", "NumberOfEmployees": 3},
    }

    answer = await bench.run("create_lead", params)

    (lead,) = bench.org.store.records("Lead")
    assert {"lead_id": lead["Id"], "created": True} == answer
    assert {
        "FirstName": "Grace",
        "Title": "Rear Admiral",
        "Status": "Working - Contacted",
        "Description": "Asked about 'COBOL'\n\\ 😀",
        "Rating": "Hot",
        "NumberOfEmployees": 3,
    }.items() <= lead.items()


async def test_the_same_job_twice_creates_one_lead(bench: Bench) -> None:
    first = await bench.run("create_lead", LEAD)
    again = await bench.run("create_lead", LEAD, is_repeat=True)

    assert (True, False) == (first["created"], again["created"])
    assert first["lead_id"] == again["lead_id"]
    assert 1 == len(list(bench.org.store.records("Lead")))


async def test_concurrent_copies_of_one_job_create_one_lead(bench: Bench) -> None:
    answers = await asyncio.gather(*(bench.run("create_lead", LEAD) for _ in range(20)))

    assert 1 == len({answer["lead_id"] for answer in answers})
    assert 1 == len(bench.org.journal.of("created", "Lead"))


async def test_a_concurrent_copy_of_a_job_is_found(bench: Bench) -> None:
    first = await bench.run("create_lead", LEAD)
    bench.org.faults.add(Fault("upsert", status=400, code="DUPLICATE_VALUE"))

    assert {"lead_id": first["lead_id"], "created": False} == await bench.run("create_lead", LEAD)


async def test_another_key_action_or_tenant_creates_another_lead(bench: Bench) -> None:
    body = {"LastName": "Hopper", "Company": "Navy"}
    made = [
        (await bench.run("create_lead", LEAD))["lead_id"],
        (await bench.run("create_lead", LEAD, key="key-2"))["lead_id"],
        (await bench.run("create_lead", LEAD, tenant="globex"))["lead_id"],
        (await bench.run("create_record", {"object": "Lead", "fields": body}))["record_id"],
    ]

    assert 4 == len(set(made))


@pytest.mark.parametrize("key", ["../../query", "a/b?c#d%", "x.inc", "..", "~" * 255])
async def test_no_key_leads_the_upsert_elsewhere(bench: Bench, key: str) -> None:
    await bench.run("create_lead", LEAD, key=key)

    path = bench.org.requests[-1]
    assert path.startswith(f"PATCH /services/data/v62.0/sobjects/Lead/{KEY_FIELD}/")
    assert 7 == unquote(path).count("/")


async def test_a_connection_cut_after_the_upsert_leaves_one_lead(bench: Bench) -> None:
    bench.org.faults.add(Fault("upsert", cut="after"))

    with pytest.raises(Unavailable) as caught:
        await bench.run("create_lead", LEAD)
    again = await bench.run("create_lead", LEAD, is_repeat=True)

    assert Sent.UNCERTAIN is caught.value.sent
    assert again["created"] is False
    assert 1 == len(bench.org.journal.of("created", "Lead"))


async def test_the_lead_is_looked_up_if_an_older_api_returns_no_id(bench: Bench) -> None:
    first = await bench.run("create_lead", LEAD)
    bench.org.faults.add(Fault("upsert", body=b""))

    assert first["lead_id"] == (await bench.run("create_lead", LEAD))["lead_id"]


async def test_several_leads_of_one_external_id_are_a_conflict(bench: Bench) -> None:
    await bench.run("create_lead", LEAD)
    bench.org.store.add_field("Lead", Field(KEY_FIELD, length=64, is_external_id=True))
    (lead,) = bench.org.store.records("Lead")
    other = bench.org.store.insert("Lead", {"LastName": "X", "Company": "Y", KEY_FIELD: lead[KEY_FIELD]})

    with pytest.raises(Conflict) as caught:
        await bench.run("create_lead", LEAD)

    assert caught.value.data is not None
    assert [lead["Id"], other["Id"]] == caught.value.data["ids"]


async def test_duplicates_are_a_conflict_unless_allowed(bench: Bench) -> None:
    bench.org.store.duplicate_rules.add("Lead")
    first = await bench.run("create_lead", LEAD)

    with pytest.raises(Conflict) as caught:
        await bench.run("create_lead", LEAD, key="key-2")
    allowed = await bench.run("create_lead", {**LEAD, "allow_duplicates": True}, key="key-3")
    plain = await bench.run(
        "create_lead", {**LEAD, "allow_duplicates": True}, key="key-4", document=plain_document(bench)
    )

    assert caught.value.data is not None
    assert [first["lead_id"]] == caught.value.data["ids"]
    assert allowed["created"] is True
    assert plain["created"] is True


@pytest.mark.parametrize(
    ("more", "field", "code"),
    [
        ({"email": "a@b"}, "Email", "INVALID_EMAIL_ADDRESS"),
        ({"status": "Nonsense"}, "Status", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"fields": {"MobilePhone": "1" * 41}}, "MobilePhone", "STRING_TOO_LONG"),
        ({"fields": {"NumberOfEmployees": 10**20}}, "NumberOfEmployees", "NUMBER_OUTSIDE_VALID_RANGE"),
        ({"fields": {"OwnerId": "005000000000000AAA"}}, "OwnerId", "INVALID_CROSS_REFERENCE_KEY"),
        ({"fields": {"Name": "Grace"}}, "Name", "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ],
)
async def test_a_value_that_the_org_refuses_is_named(
    bench: Bench, more: dict[str, Any], field: str, code: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await bench.run("create_lead", LEAD | more)

    assert caught.value.data is not None
    assert code == caught.value.data["reason"]
    assert [field] == [detail.field for detail in caught.value.details]
    assert 0 == len(bench.org.journal.of("created"))


async def test_a_required_field_that_is_missing_is_named(bench: Bench) -> None:
    with pytest.raises(Rejected) as caught:
        await bench.run("create_record", {"object": "Lead", "fields": {"FirstName": "Grace"}})

    assert ["LastName", "Company"] == [detail.field for detail in caught.value.details]


async def test_a_validation_rules_text_reaches_the_agent(bench: Bench) -> None:
    rule = Rule("Lead", lambda lead: lead.get("Phone") is None, "Ask for a number first", "Phone")
    bench.org.store.rules.append(rule)

    with pytest.raises(Rejected) as caught:
        await bench.run("create_lead", LEAD)

    assert caught.value.data is not None
    assert "Ask for a number first" == caught.value.data["rule_message"]
    assert "Ask for" not in caught.value.message


@pytest.mark.parametrize("fields", [{"Nope__c": 1}, {"Nope": {"Key__c": "1"}}])
async def test_an_unknown_field_is_refused_before_it_is_written(bench: Bench, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run("create_lead", LEAD | {"fields": fields})

    assert [f"fields.{next(iter(fields))}"] == [detail.field for detail in caught.value.details]
    assert 0 == bench.org.journal.calls["upsert"]


@pytest.mark.parametrize("fields", [{"LastName": "X"}, {"lastname": "X"}, {KEY_FIELD: "mine"}])
async def test_a_field_cannot_be_given_twice(bench: Bench, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("create_lead", LEAD | {"fields": fields})

    assert 0 == bench.org.journal.calls["upsert"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("upsert", status=400, code="UNABLE_TO_LOCK_ROW"), Unavailable),
        (Fault("upsert", status=503, code="SERVER_UNAVAILABLE"), Unavailable),
        (Fault("upsert", status=500, code="UNKNOWN_EXCEPTION"), Unavailable),
        (
            Fault("upsert", status=403, code="REQUEST_LIMIT_EXCEEDED", message="ConcurrentRequests"),
            RateLimited,
        ),
        (Fault("upsert", status=403, code="REQUEST_LIMIT_EXCEEDED", message="TotalRequests"), RateLimited),
        (Fault("upsert", status=403, code="INSUFFICIENT_ACCESS_OR_READONLY"), PermissionDenied),
        (Fault("upsert", status=403, code="API_DISABLED_FOR_ORG"), PermissionDenied),
        (Fault("upsert", status=400, code="FIELD_INTEGRITY_EXCEPTION"), Rejected),
        (Fault("upsert", status=400, code="STORAGE_LIMIT_EXCEEDED"), Rejected),
        (Fault("upsert", status=404, code="ENTITY_IS_DELETED"), NotFound),
    ],
)
async def test_a_refused_write_changes_nothing(
    bench: Bench, fault: Fault, kind: type[ConnectorError]
) -> None:
    bench.org.faults.add(fault)

    with pytest.raises(kind) as caught:
        await bench.run("create_lead", LEAD)

    assert (Sent.UNCERTAIN if (fault.status or 0) >= 500 else Sent.ANSWERED) is caught.value.sent
    assert 0 == len(bench.org.journal.of("created"))


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"<html>", b'{"id": NaN}', b'{"id": 1e999}', b"[" * 100_000, b"{}"]
)
async def test_an_unreadable_answer_leaves_the_outcome_open(bench: Bench, body: bytes) -> None:
    bench.org.faults.add(Fault("create", body=body))

    with pytest.raises(Unavailable) as caught:
        await bench.run("create_lead", LEAD, document=plain_document(bench))

    assert Sent.UNCERTAIN is caught.value.sent


async def test_effect_depends_on_what_the_credential_names(bench: Bench) -> None:
    action = salesforce.actions["create_lead"]
    params = action.signature.read(LEAD)
    keyed = bench.context().credential
    plain = bench.context(document=plain_document(bench)).credential

    assert Effect.KEYED is action.effect_of(params, keyed)
    assert Effect.WRITE is action.effect_of(params, plain)
    assert Effect.WRITE is action.effect_of(params, None)


async def test_an_uncertain_create_is_found_by_its_key_field(bench: Bench) -> None:
    document = plain_document(bench, lead_key_field=KEY_FIELD)
    bench.org.faults.add(Fault("create", cut="after"))

    assert await bench.reconcile("create_lead", LEAD, document=document) is None
    with pytest.raises(Unavailable):
        await bench.run("create_lead", LEAD, document=document)
    found = await bench.reconcile("create_lead", LEAD, document=document)

    (lead,) = bench.org.store.records("Lead")
    assert {"lead_id": lead["Id"], "created": True} == found
    assert await bench.reconcile("create_lead", LEAD, document=document, key="key-2") is None


async def test_an_uncertain_create_without_a_key_field_cannot_be_found(bench: Bench) -> None:
    with pytest.raises(OutcomeUnknown, match="names no field"):
        await bench.reconcile("create_lead", LEAD, document=plain_document(bench))


@pytest.mark.parametrize("knows_result", [True, False])
@pytest.mark.parametrize("fields", ["lead_external_id_field", "lead_key_field"])
async def test_undo_deletes_the_lead(bench: Bench, fields: str, knows_result: bool) -> None:
    document = plain_document(bench, **{fields: KEY_FIELD})
    result = await bench.run("create_lead", LEAD, document=document)

    for _ in range(2):  # undoing what is gone is a success
        await bench.undo(
            "create_lead", document=document, result=result if knows_result else None, is_repeat=True
        )

    assert [] == list(bench.org.store.records("Lead"))


async def test_undo_of_an_untraceable_create_is_unknown(bench: Bench) -> None:
    document = plain_document(bench)

    await bench.undo("create_lead", document=document)
    with pytest.raises(OutcomeUnknown):
        await bench.undo("create_lead", document=document, is_repeat=True)


async def test_update_lead_changes_only_the_given_fields(bench: Bench) -> None:
    lead = bench.org.store.insert("Lead", {"LastName": "Hopper", "Company": "Navy", "Title": "Captain"})

    answer = await bench.run(
        "update_lead",
        {"lead_id": lead["Id"][:15], "status": "Working - Contacted", "fields": {"Title": None}},
    )

    assert {"lead_id": lead["Id"], "updated_fields": ["Status", "Title"]} == answer
    assert ("Navy", None, "Working - Contacted") == (lead["Company"], lead["Title"], lead["Status"])


@pytest.mark.parametrize("params", [{}, {"fields": {}}, {"status": None}])
async def test_an_update_without_a_change_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("update_lead", {"lead_id": "00Q000000000001AAA", **params})


async def test_a_job_that_is_cancelled_frees_its_thread(bench: Bench) -> None:
    from connectors.salesforce import client

    await bench.run("get_limits")
    released = asyncio.Event()
    bench.org.faults.add(Fault("create", until=released))
    job = asyncio.create_task(bench.run("create_lead", LEAD, document=plain_document(bench)))
    while not bench.org.journal.calls["create"]:
        await asyncio.sleep(0.01)
    assert 31 == client._threads.free

    job.cancel()
    await asyncio.wait({job})

    assert job.cancelled()
    assert 32 == client._threads.free
    released.set()


async def test_a_slow_org_does_not_hold_up_another(bench: Bench) -> None:
    released = asyncio.Event()
    bench.org.faults.add(Fault("search", times=None, until=released))
    slow = [
        asyncio.create_task(bench.run("get_contact_details", {"name": "Ada Lovelace"}, tenant="slow"))
        for _ in range(60)
    ]
    while bench.org.journal.calls["search"] < 24:
        await asyncio.sleep(0.01)

    answer = await asyncio.wait_for(bench.run("get_contact_details", {"email": "ada@lovelace.example"}), 5)

    assert answer["found"] is True
    released.set()
    assert all(outcome["found"] for outcome in await asyncio.gather(*slow))


async def test_a_slow_answer_ends_at_the_calls_time(bench: Bench) -> None:
    await bench.run("get_limits")
    api = SalesforceApi(bench.context("create_lead"), limits=TimeLimits(call_s=0.3))
    bench.org.faults.add(Fault("create", drip_s=0.1))

    with pytest.raises(Timeout) as caught:
        await api.run(lambda org: org.object("Lead").create({"LastName": "Hopper", "Company": "Navy"}))

    assert Sent.UNCERTAIN is caught.value.sent


@pytest.mark.parametrize(
    "fault", [Fault("describe", status=502), Fault("describe", body=b"x"), Fault("describe", cut="after")]
)
async def test_a_read_that_fails_before_the_write_leaves_nothing_open(bench: Bench, fault: Fault) -> None:
    bench.org.faults.add(fault)

    with pytest.raises(Unavailable) as caught:
        await bench.run("create_lead", LEAD | {"fields": {"Rating": "Hot"}}, document=plain_document(bench))

    assert caught.value.sent is not Sent.UNCERTAIN


async def test_a_job_without_time_left_sends_nothing(bench: Bench) -> None:
    api = SalesforceApi(bench.context("create_lead"), limits=TimeLimits(job_s=0.0))

    with pytest.raises(ConnectorError) as caught:
        await api.run(lambda org: org.object("Lead").create({"LastName": "Hopper", "Company": "Navy"}))

    assert Sent.NO is caught.value.sent
    assert 0 == bench.org.journal.calls["create"]


async def test_an_owner_that_the_job_names_holds(bench: Bench) -> None:
    rule, owner = (bench.org.store.insert("User", {"LastName": name})["Id"] for name in ("Rule", "Owner"))
    bench.org.store.assignment_rules.update({"Lead": rule, "Case": rule})
    case = {"subject": "Printer"}

    async def owner_of(action: str, params: dict[str, Any], key: str) -> str:
        answer = await bench.run(action, params, key=key)
        record_id = answer.get("lead_id") or answer["case_id"]
        return str(bench.org.store.find("Lead" if "lead_id" in answer else "Case", record_id).get("OwnerId"))

    lead = await bench.run("create_lead", LEAD, key="lead")
    number = (await bench.run("create_case", case, key="case"))["case_number"]

    assert rule == await owner_of("create_lead", LEAD, "1")
    assert owner == await owner_of("create_lead", {**LEAD, "fields": {"OwnerId": owner}}, "2")
    assert owner == await owner_of("update_lead", {"lead_id": lead["lead_id"], "owner_id": owner}, "3")
    assert owner == await owner_of("create_case", {**case, "owner_id": owner}, "4")
    assert owner == await owner_of("update_case", {"case_number": number, "owner_id": owner}, "5")
    assert owner == await owner_of(
        "update_case", {"case_number": number, "owner_id": owner, "comment": "x"}, "6"
    )
    assert rule != await owner_of("create_lead", {**LEAD, "assignment_rule": "none"}, "7")
    assert rule == await owner_of(
        "update_case", {"case_number": number, "priority": "Low", "assignment_rule": "default"}, "8"
    )


async def test_a_person_accounts_org_needs_no_company(bench: Bench) -> None:
    with pytest.raises(Rejected) as caught:
        await bench.run("create_lead", {"last_name": "Hopper"})
    assert ["Company"] == [detail.field for detail in caught.value.details]
    bench.org.store.enable_person_accounts()

    made = await bench.run("create_lead", {"last_name": "Hopper"})

    assert bench.org.store.find("Lead", made["lead_id"]).get("Company") is None
