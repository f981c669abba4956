"""Records of any object, queries, searches, descriptions, limits."""

import asyncio
from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import KEY_FIELD, Fault, Field
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, InvalidParams, NotFound, OutcomeUnknown, Rejected, Unavailable
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.testing import Answer, FakeProvider, Kit
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

API = "/services/data/v62.0"
OBJECT = "Invoice__c"
PAGE = b'{"totalSize": 9, "done": false, "records": [], "nextRecordsUrl": "%b"}'


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


async def test_a_query_is_bound_and_returns_plain_records(bench: Bench) -> None:
    answer = await bench.run(
        "query",
        {
            "soql": "SELECT Name, Account.Name FROM Contact "
            "WHERE LastName IN {names} AND CreatedDate = TODAY ORDER BY Name",
            "bindings": {"names": ["Lovelace", "x' OR Name LIKE '%"]},
        },
    )

    record = {"Name": "Ada Lovelace", "Account": {"Name": "Lovelace Clinic"}}
    assert {"records": [record], "total": 1, "truncated": False, "cursor": None} == answer


@pytest.mark.parametrize(
    ("limit", "count", "truncated"), [(5, 5, True), (200, 200, True), (450, 450, False), (500, 450, False)]
)
async def test_pages_are_followed_up_to_the_limit(
    bench: Bench, limit: int, count: int, truncated: bool
) -> None:
    for number in range(450):
        bench.org.store.insert("Account", {"Name": f"Bulk {number:03}"})

    answer = await bench.run(
        "query",
        {"soql": "SELECT Name FROM Account WHERE Name LIKE {p}", "bindings": {"p": "Bulk%"}, "limit": limit},
    )

    assert (count, 450, truncated) == (len(answer["records"]), answer["total"], answer["truncated"])
    assert count == len({record["Name"] for record in answer["records"]})


async def test_records_are_counted(bench: Bench) -> None:
    answer = await bench.run("query", {"soql": "SELECT COUNT() FROM Contact"})

    assert {"records": [], "total": 2, "truncated": False, "cursor": None} == answer


@pytest.mark.parametrize(
    ("soql", "reason"),
    [
        ("SELECT Nope FROM Contact", "INVALID_FIELD"),
        ("SELECT Id Contact", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Name = {n} OR Name = {n} AND Name = {n}", "MALFORMED_QUERY"),
    ],
)
async def test_a_refused_query_is_rejected_by_its_code(bench: Bench, soql: str, reason: str) -> None:
    bindings = {"n": "x"} if "{n}" in soql else {}
    with pytest.raises(Rejected) as caught:
        await bench.run("query", {"soql": soql, "bindings": bindings})

    assert caught.value.data is not None
    assert reason == caught.value.data["reason"]


async def test_a_page_that_leads_elsewhere_is_not_followed(bench: Bench) -> None:
    bench.org.faults.add(Fault("query", body=PAGE % b"https://evil.example/"))

    with pytest.raises(Unavailable):
        await bench.run("query", {"soql": "SELECT Id FROM Contact"})

    assert 1 == bench.org.journal.calls["query"]


async def test_empty_pages_without_an_end_end(bench: Bench) -> None:
    page = PAGE % b"/services/data/v62.0/query/01g-1"
    bench.org.faults.add(Fault("query", times=None, body=page))

    with pytest.raises(Unavailable):
        await bench.run("query", {"soql": "SELECT Id FROM Contact"})

    assert 2 == bench.org.journal.calls["query"]


def _bulk(bench: Bench, count: int) -> dict[str, Any]:
    for number in range(count):
        bench.org.store.insert("Account", {"Name": f"Bulk {number:04}"})
    return {
        "soql": "SELECT Name FROM Account WHERE Name LIKE {p} ORDER BY Name",
        "bindings": {"p": {"starts_with": "Bulk"}},
    }


@pytest.mark.parametrize(
    ("count", "limits"),
    [(450, [50]), (450, [200]), (450, [150, 300]), (2450, [2000]), (199, [66]), (200, [200])],
)
async def test_a_cursor_leads_through_every_record_once(bench: Bench, count: int, limits: list[int]) -> None:
    asked = _bulk(bench, count)
    names: list[str] = []
    cursor, turn = None, 0

    while turn == 0 or cursor is not None:
        answer = await bench.run("query", {**asked, "limit": limits[turn % len(limits)], "cursor": cursor})
        assert (count, answer["cursor"] is not None) == (answer["total"], answer["truncated"])
        names += [record["Name"] for record in answer["records"]]
        cursor, turn = answer["cursor"], turn + 1

    assert [f"Bulk {number:04}" for number in range(count)] == names


@pytest.mark.parametrize("cursor", ["", "x", "00000000.first.1", "{}", "{}/../../x.0", "{}.01gGone-2000.0"])
async def test_a_cursor_that_does_not_belong_is_the_jobs_fault(bench: Bench, cursor: str) -> None:
    asked = _bulk(bench, 3)
    digest = (await bench.run("query", {**asked, "limit": 1}))["cursor"].partition(".")[0]

    with pytest.raises(InvalidParams) as caught:
        await bench.run("query", {**asked, "cursor": cursor.format(digest)})

    assert ["cursor"] == [detail.field for detail in caught.value.details]


@pytest.mark.parametrize("pages", [1, 3])
async def test_the_rest_of_a_sub_query_is_read(pages: int) -> None:
    async with FakeProvider() as org:
        login = {"access_token": "token-1-abcdefgh", "instance_url": org.url}
        org.on("POST", "/services/oauth2/token", Answer(login))

        def page(number: int) -> dict[str, Any]:
            rest = {"nextRecordsUrl": f"{API}/query/01gChild-{number + 1}"} if number < pages else {}
            return {"totalSize": pages + 1, "done": not rest, "records": [{"Id": str(number)}], **rest}

        org.on(
            "GET", f"{API}/query/", Answer({"totalSize": 1, "done": True, "records": [{"Contacts": page(0)}]})
        )
        for number in range(1, pages + 1):
            org.on("GET", f"{API}/query/01gChild-{number}", Answer(page(number)))
        credential = {
            "auth": "client_credentials",
            "client_id": "c",
            "client_secret": "s3cret-app",
            "login_url": org.url,
        }
        async with Kit(salesforce, credential=credential) as kit:
            ran = await kit.run("query", {"soql": "SELECT (SELECT Id FROM Contacts) FROM Account"})

    assert ran.data is not None
    assert [str(number) for number in range(pages + 1)] == [
        each["Id"] for each in ran.data["records"][0]["Contacts"]
    ]
    assert ran.data["truncated"] is False


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        ({"contains": "_b"}, {"a_b 100%"}),
        ({"contains": "100%"}, {"a_b 100%"}),
        ({"starts_with": "a_"}, {"a_b 100%"}),
        ({"starts_with": "a"}, {"a_b 100%", "axb 1000", "a\\b"}),
        ({"contains": "\\"}, {"a\\b"}),
        ({"contains": "'"}, {"o'a"}),
        ("a_b%", {"a_b 100%", "axb 1000", "a\\b"}),
    ],
)
async def test_like_finds_text_with_wildcards_of_its_own(bench: Bench, bound: Any, found: set[str]) -> None:
    for name in ("a_b 100%", "axb 1000", "a\\b", "o'a"):
        bench.org.store.insert("Account", {"Name": name})

    answer = await bench.run(
        "query", {"soql": "SELECT Name FROM Account WHERE Name LIKE {name}", "bindings": {"name": bound}}
    )

    assert found == {record["Name"] for record in answer["records"]}


async def test_a_query_too_long_for_a_url_is_refused_before_any_request(bench: Bench) -> None:
    ids = [f"003Aa{number:010d}" for number in range(700)]
    soql = "SELECT Id FROM Contact WHERE Id IN {ids}"

    with pytest.raises(InvalidParams) as caught:
        await bench.run("query", {"soql": soql, "bindings": {"ids": ids}})

    assert ["bindings"] == [detail.field for detail in caught.value.details]
    assert [] == bench.org.requests
    assert [] == (await bench.run("query", {"soql": soql, "bindings": {"ids": ids[:600]}}))["records"]


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("get_contact_details", {"email": "a@b.example"}),
        ("get_contact_details", {"name": "Ada Lovelace"}),
        ("get_record", {"object": "Contact", "record_id": "003000000000001AAA"}),
    ],
)
async def test_more_fields_than_a_url_holds_are_refused(
    bench: Bench, action: str, params: dict[str, Any]
) -> None:
    fields = [f"{'Long' * 18}{number}__c" for number in range(200)]
    for field in fields:
        bench.org.store.add_field("Contact", Field(field))

    with pytest.raises(InvalidParams) as caught:
        await bench.run(action, {**params, "fields": fields})

    assert ["fields"] == [detail.field for detail in caught.value.details]


async def test_a_time_as_salesforce_writes_it_is_taken_back(bench: Bench) -> None:
    soql = "SELECT CreatedDate FROM Account"
    written = (await bench.run("query", {"soql": soql}))["records"][0]["CreatedDate"]

    answer = await bench.run(
        "query", {"soql": f"{soql} WHERE CreatedDate = {{at}}", "bindings": {"at": {"datetime": written}}}
    )

    assert written.endswith("+0000")
    assert written == answer["records"][0]["CreatedDate"]


async def test_words_are_searched_in_several_objects(bench: Bench) -> None:
    bench.org.store.insert("Lead", {"LastName": "Lovelace", "Company": "Engines"})

    answer = await bench.run("search_records", {"text": "lovelace"})

    assert {"Contact", "Lead", "Account"} == {record["object"] for record in answer["records"]}
    assert {"Ada Lovelace", "Lovelace", "Lovelace Clinic"} == {record["Name"] for record in answer["records"]}
    assert answer["truncated"] is False


async def test_a_search_returns_the_fields_that_each_object_has(bench: Bench) -> None:
    answer = await bench.run(
        "search_records",
        {
            "text": "Asks for an earlier appointment",
            "objects": ["Case", "Contact"],
            "fields": ["Priority", "Account.Name"],
        },
    )

    (case,) = answer["records"]
    assert {"object", "Id", "Priority", "Account"} == set(case)
    with pytest.raises(InvalidParams, match="none of the objects"):
        await bench.run("search_records", {"text": "Ada", "objects": ["Contact"], "fields": ["Nope"]})
    with pytest.raises(InvalidParams) as caught:
        await bench.run("search_records", {"text": "Ada", "objects": ["Nope__c"]})
    assert ["objects"] == [detail.field for detail in caught.value.details]


async def test_a_search_reports_that_there_are_more(bench: Bench) -> None:
    for number in range(3):
        bench.org.store.insert("Account", {"Name": f"Engine {number}"})

    answer = await bench.run("search_records", {"text": "Engine", "objects": ["Account"], "limit": 2})

    assert (2, True) == (len(answer["records"]), answer["truncated"])


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


async def test_an_unknown_object_of_a_query_is_the_jobs_fault(bench: Bench) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run("query", {"soql": "SELECT Id FROM Nope__c"})

    assert ["soql"] == [detail.field for detail in caught.value.details]


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
