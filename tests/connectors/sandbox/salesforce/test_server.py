"""The sandbox on the wire, by a plain client: sessions, resources, refusals, faults, the journal."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connectors.sandbox.salesforce.server import Fault, Field, SalesforceSandbox

pytestmark = pytest.mark.integration

ROOT = "/services/data/v62.0"


class Client:
    """A plain HTTP client that is logged in."""

    def __init__(self, org: SalesforceSandbox, http: aiohttp.ClientSession) -> None:
        self.org = org
        self.http = http
        self.headers: dict[str, str] = {}

    async def login(self, **form: str) -> tuple[int, Any]:
        known = {"client_id": self.org.authority.client_id, "client_secret": self.org.authority.client_secret}
        async with self.http.post(f"{self.org.url}/services/oauth2/token", data=known | form) as answer:
            body = await answer.json()
            self.headers = {"Authorization": f"Bearer {body.get('access_token')}"}
            return answer.status, body

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.http.request(
            method, f"{self.org.url}{ROOT}{path}", json=body, headers=self.headers | headers
        ) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with (
        SalesforceSandbox(journal_file=tmp_path / "journal") as org,
        aiohttp.ClientSession() as http,
    ):
        client = Client(org, http)
        await client.login(grant_type="client_credentials")
        yield client


def _code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1][0]["errorCode"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "magic"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials", "client_secret": "x"}, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "x"}, "invalid_client_id"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant"),
        ({"grant_type": "password", "username": "x", "password": "y"}, "invalid_grant"),
        (
            {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"},
            "invalid_grant",
        ),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "invalid_grant"),
    ],
)
async def test_a_wrong_grant_is_refused(client: Client, form: dict[str, str], error: str) -> None:
    status, body = await client.login(**form)

    assert (400, error) == (status, body["error"])


async def test_a_call_without_a_session_is_refused(client: Client) -> None:
    client.headers = {"Authorization": "Bearer made-up"}

    assert (401, "INVALID_SESSION_ID") == _code(await client.call("GET", "/limits"))


async def test_a_record_lives_and_dies(client: Client) -> None:
    status, made = await client.call("POST", "/sobjects/Account", {"Name": "Clinic"})
    path = f"/sobjects/Account/{made['id']}"
    changed = await client.call("PATCH", path, {"Industry": "Healthcare"})
    _, read = await client.call("GET", f"{path}?fields=Name,Industry")
    gone = await client.call("DELETE", path)

    assert (201, 18) == (status, len(made["id"]))
    assert (204, None) == changed == gone
    assert {"Name": "Clinic", "Industry": "Healthcare"}.items() <= read.items()
    assert (404, "ENTITY_IS_DELETED") == _code(await client.call("GET", path))
    assert ["login", "created", "changed", "deleted"] == [each.kind for each in client.org.journal.effects]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "NOT_FOUND"),
        ("GET", "/sobjects/Nope/describe", None, 404, "NOT_FOUND"),
        ("POST", "/sobjects/Lead", {"LastName": "x"}, 400, "REQUIRED_FIELD_MISSING"),
        ("POST", "/sobjects/Lead", {"LastName": "x" * 81, "Company": "y"}, 400, "STRING_TOO_LONG"),
        ("POST", "/sobjects/Lead", {"LastName": 1, "Company": "y"}, 400, "JSON_PARSER_ERROR"),
        ("POST", "/sobjects/Lead", {"LastName": "x", "Company": "y", "Nope": 1}, 400, "INVALID_FIELD"),
        (
            "POST",
            "/sobjects/Lead",
            {"LastName": "x", "Company": "y", "Name": "z"},
            400,
            "INVALID_FIELD_FOR_INSERT_UPDATE",
        ),
        ("POST", "/sobjects/Case", {"Status": "Nope"}, 400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ("POST", "/sobjects/Case", {"ContactId": "x"}, 400, "MALFORMED_ID"),
        ("POST", "/sobjects/Case", {"ContactId": "003000000000001AAA"}, 400, "INVALID_CROSS_REFERENCE_KEY"),
        ("POST", "/sobjects/Lead", None, 400, "JSON_PARSER_ERROR"),
        ("PATCH", "/sobjects/Lead/Nope__c/1", {"LastName": "x"}, 404, "NOT_FOUND"),
        ("PATCH", "/sobjects/Lead/Phone/1", {"LastName": "x"}, 404, "NOT_FOUND"),
        ("GET", "/query", None, 400, "MALFORMED_QUERY"),
        ("GET", "/query/01g000000000-200", None, 400, "INVALID_QUERY_LOCATOR"),
        ("GET", "/search?q=x", None, 400, "MALFORMED_SEARCH"),
        ("POST", "/composite", {"compositeRequest": []}, 400, "INVALID_INPUT"),
        ("PUT", "/sobjects/Lead", {}, 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_the_sandbox_refuses_as_salesforce_does(
    client: Client, method: str, path: str, body: Any, status: int, code: str
) -> None:
    assert (status, code) == _code(await client.call(method, path, body))


async def test_an_external_id_creates_once_and_several_are_a_conflict(client: Client) -> None:
    client.org.store.add_field("Lead", Field("Key__c", is_external_id=True))
    path, body = "/sobjects/Lead/Key__c/a%2Fb", {"LastName": "x", "Company": "y"}
    first, second = await client.call("PATCH", path, body), await client.call("PATCH", path, body)
    twin = client.org.store.insert("Lead", {**body, "Key__c": "A/B"})

    assert (201, True) == (first[0], first[1]["created"])
    assert (200, False, first[1]["id"]) == (second[0], second[1]["created"], second[1]["id"])
    status, urls = await client.call("PATCH", path, body)
    assert 300 == status
    assert [first[1]["id"], twin["Id"]] == [url.rpartition("/")[2] for url in urls]
    assert (400, "INVALID_FIELD") == _code(
        await client.call("PATCH", "/sobjects/Lead/Key__c/z", {"key__c": "z"})
    )


async def test_a_unique_field_holds_a_value_once(client: Client) -> None:
    client.org.store.add_field("Account", Field("Code__c", is_unique=True))
    await client.call("POST", "/sobjects/Account", {"Name": "x", "Code__c": "A"})

    answer = await client.call("POST", "/sobjects/Account", {"Name": "y", "Code__c": "a"})

    assert (400, "DUPLICATE_VALUE") == _code(answer)


async def test_duplicates_are_refused_and_may_be_allowed(client: Client) -> None:
    client.org.store.duplicate_rules.add("Lead")
    body = {"LastName": "x", "Company": "y", "Email": "a@b.example"}
    _, first = await client.call("POST", "/sobjects/Lead", body)

    refused = await client.call("POST", "/sobjects/Lead", body)
    allowed, _ = await client.call(
        "POST", "/sobjects/Lead", body, **{"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    )

    match = refused[1][0]["duplicateResult"]["matchResults"][0]["matchRecords"][0]
    assert (400, "DUPLICATES_DETECTED") == _code(refused)
    assert first["id"] == match["record"]["Id"]
    assert 201 == allowed


async def test_a_composite_is_done_whole_or_not_at_all(client: Client) -> None:
    def request(status: str) -> dict[str, Any]:
        return {
            "allOrNone": True,
            "compositeRequest": [
                {
                    "method": "POST",
                    "url": f"{ROOT}/sobjects/Account",
                    "referenceId": "a",
                    "body": {"Name": "x"},
                },
                {
                    "method": "POST",
                    "url": f"{ROOT}/sobjects/Case",
                    "referenceId": "b",
                    "body": {"Status": status},
                },
            ],
        }

    _, failed = await client.call("POST", "/composite", request("Nope"))
    assert [] == list(client.org.store.records("Account"))
    _, done = await client.call("POST", "/composite", request("New"))

    codes = [part["body"][0]["errorCode"] for part in failed["compositeResponse"]]
    assert ["PROCESSING_HALTED", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"] == codes
    assert [201, 201] == [part["httpStatusCode"] for part in done["compositeResponse"]]
    assert 2 == len(client.org.journal.of("created"))


async def test_pages_are_cut_as_asked(client: Client) -> None:
    for number in range(250):
        client.org.store.insert("Account", {"Name": str(number)})
    size = {"Sforce-Query-Options": "batchSize=1"}  # 200 is the least

    _, first = await client.call("GET", "/query?q=SELECT+Name+FROM+Account", **size)
    _, second = await client.call("GET", first["nextRecordsUrl"].removeprefix(ROOT), **size)

    assert (200, False, 250) == (len(first["records"]), first["done"], first["totalSize"])
    assert (50, True) == (len(second["records"]), second["done"])


async def test_limits_count_the_calls(client: Client) -> None:
    await client.call("GET", "/sobjects")
    _, limits = await client.call("GET", "/limits")

    assert {"Max": 15_000, "Remaining": 14_998} == limits["DailyApiRequests"]


async def test_a_fault_happens_as_often_as_asked_and_is_counted(client: Client) -> None:
    client.org.faults.add(Fault("limits", times=2, skip=1, status=503, code="SERVER_UNAVAILABLE"))

    statuses = [(await client.call("GET", "/limits"))[0] for _ in range(4)]

    assert [200, 503, 503, 200] == statuses
    assert 4 == client.org.journal.calls["limits"]


@pytest.mark.parametrize(("cut", "created"), [("before", 0), ("after", 1)])
async def test_a_cut_happens_before_or_after_the_work(client: Client, cut: Any, created: int) -> None:
    client.org.faults.add(Fault("create", cut=cut))

    with pytest.raises(aiohttp.ClientError):
        await client.call("POST", "/sobjects/Account", {"Name": "x"})

    assert created == len(client.org.journal.of("created", "Account"))


async def test_the_journal_is_on_disk_before_the_answer(client: Client, tmp_path: Path) -> None:
    _, made = await client.call("POST", "/sobjects/Account", {"Name": "x"})

    last = json.loads((tmp_path / "journal").read_text().splitlines()[-1])
    assert ("created", "Account", made["id"]) == (last["kind"], last["object"], last["record_id"])


async def test_the_seed_creates_the_demos_records(client: Client) -> None:
    client.org.seed()

    assert ["Ada Lovelace", "Charles Babbage"] == [
        each["Name"] for each in client.org.store.records("Contact")
    ]
    assert "jwt" == client.org.credential()["auth"]
    assert {} == client.org.settings
