"""Queries and searches: bound values, pages and cursors, text that LIKE takes literally."""

from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sandbox.salesforce.server import Fault, Field
from connectors.sdk.errors import InvalidParams, Rejected, Unavailable
from connectors.sdk.testing import Answer, FakeProvider, Kit
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

API = "/services/data/v62.0"
PAGE = b'{"totalSize": 9, "done": false, "records": [], "nextRecordsUrl": "%b"}'


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


async def test_an_unknown_object_of_a_query_is_the_jobs_fault(bench: Bench) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run("query", {"soql": "SELECT Id FROM Nope__c"})

    assert ["soql"] == [detail.field for detail in caught.value.details]
