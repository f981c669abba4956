"""An org that moves: one new login, the new address, and the first job succeeds."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.salesforce.instance import Confirmations
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit
from schemas.error import Code

pytestmark = pytest.mark.integration

API = "/services/data/v62.0"
QUERY = {"soql": "SELECT Id FROM Contact"}
NOTHING = {"totalSize": 0, "done": True, "records": []}
UNKNOWN_RECORD = Answer(
    [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}], status=404
)


@dataclass
class Org:
    """An org that answers at `old` until it moves to `new`."""

    old: FakeProvider
    new: FakeProvider
    #: What the old address answers after the move; None: it does not answer.
    after: Answer | None = None
    has_moved: bool = False
    tokens: list[str] = field(default_factory=list)

    @property
    def credential(self) -> Mapping[str, Any]:
        return {
            "auth": "client_credentials",
            "client_id": "c",
            "client_secret": "s3cret-app",
            "login_url": self.new.url,
        }

    def serve(self, method: str, path: str, answer: Any) -> None:
        self.old.on(method, path, lambda asked: self.after if self.has_moved and self.after else answer)
        self.new.on(method, path, lambda asked: answer)

    def log_in(self, asked: Asked) -> dict[str, str]:
        self.tokens.append(f"token-{len(self.tokens)}-abcdefgh")
        return {
            "access_token": self.tokens[-1],
            "instance_url": (self.new if self.has_moved else self.old).url,
        }


@pytest.fixture
async def org() -> AsyncIterator[Org]:
    async with FakeProvider() as old, FakeProvider() as new:
        org = Org(old, new)
        new.on("POST", "/services/oauth2/token", org.log_in)
        org.serve("GET", f"{API}/query/", NOTHING)
        org.serve("GET", f"{API}/", {})
        org.serve("PATCH", f"{API}/sobjects/Lead/{{id}}", Answer(status=204, body=b""))
        yield org


MOVES = {
    "url_not_reset": Answer(
        [{"errorCode": "URL_NOT_RESET", "message": "Destination URL not reset."}], status=400
    ),
    "301": Answer(status=301, headers={"Location": "https://new.example/"}),
    "302": Answer(status=302, headers={"Location": "https://new.example/"}),
    "307": Answer(status=307, headers={"Location": "https://new.example/"}),
    "308": Answer(status=308, headers={"Location": "https://new.example/"}),
    "404 page": Answer(status=404, body=b"<html>URL No Longer Exists</html>"),
    "404 code": UNKNOWN_RECORD,
    "401": Answer([{"errorCode": "INVALID_SESSION_ID", "message": "x"}], status=401),
}


@pytest.mark.parametrize("how", sorted(MOVES))
@pytest.mark.parametrize(
    ("action", "params"),
    [("query", QUERY), ("update_lead", {"lead_id": "00Q000000000001AAA", "title": "Dr"})],
)
async def test_the_first_job_after_a_move_succeeds(
    org: Org, how: str, action: str, params: dict[str, Any]
) -> None:
    async with Kit(salesforce, credential=org.credential) as kit:
        await kit.run("query", QUERY)
        org.has_moved, org.after = True, MOVES[how]

        ran = [await kit.run(action, params, key=f"key-{number}") for number in range(3)]

    assert [None, None, None] == [each.code for each in ran]
    assert 2 == len(org.tokens)


@pytest.mark.parametrize(
    ("action", "params"),
    [("query", QUERY), ("update_lead", {"lead_id": "00Q000000000001AAA", "title": "Dr"})],
)
async def test_an_old_address_that_is_gone_is_left(org: Org, action: str, params: dict[str, Any]) -> None:
    async with Kit(salesforce, credential=org.credential) as kit:
        await kit.run("query", QUERY)
        org.has_moved = True
        await org.old.stop()

        ran = await kit.run(action, params)

    assert ran.code is None
    assert 2 == len(org.tokens)


async def test_many_jobs_at_a_move_log_in_once(org: Org) -> None:
    async with Kit(salesforce, credential=org.credential) as kit:
        await kit.run("query", QUERY)
        org.has_moved, org.after = True, MOVES["url_not_reset"]

        ran = await asyncio.gather(*(kit.run("query", QUERY) for _ in range(10)))

    assert {None} == {each.code for each in ran}
    assert 2 == len(org.tokens)


async def test_an_org_that_fails_at_its_address_causes_no_storm_of_logins(org: Org) -> None:
    org.old.on("GET", f"{API}/query/", MOVES["301"])

    async with Kit(salesforce, credential=org.credential) as kit:
        ran = [await kit.run("query", QUERY) for _ in range(5)]

    assert {Code.REJECTED} == {each.code for each in ran}
    assert 2 == len(org.tokens)


async def test_a_record_that_is_unknown_causes_no_login(org: Org) -> None:
    org.old.on("PATCH", f"{API}/sobjects/Lead/{{id}}", UNKNOWN_RECORD)
    org.old.on("GET", f"{API}/sobjects/Lead/describe", Answer({"name": "Lead", "fields": []}))

    async with Kit(salesforce, credential=org.credential) as kit:
        ran = await kit.run("update_lead", {"lead_id": "00Q000000000001AAA", "title": "Dr"})

    assert Code.NOT_FOUND is ran.code
    assert 1 == len(org.tokens)


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ("99.0", UNKNOWN_RECORD),
        ("30.0", Answer([{"errorCode": "UNSUPPORTED_API_VERSION", "message": "x"}], status=410)),
    ],
)
@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("get_contact_details", {"email": "a@b.example"}),
        ("update_lead", {"lead_id": "00Q000000000001AAA", "title": "Dr"}),
        ("search_records", {"text": "Ada"}),
        ("get_limits", {}),
    ],
)
async def test_an_unknown_version_is_the_credentials_fault(
    org: Org, version: str, answer: Answer, action: str, params: dict[str, Any]
) -> None:
    for method, path in (
        ("GET", "query/"),
        ("GET", "limits/"),
        ("GET", "sobjects/{name}/describe"),
        ("PATCH", "sobjects/Lead/{id}"),
        ("GET", ""),
    ):
        org.old.on(method, f"/services/data/v{version}/{path}", answer)

    async with Kit(salesforce, credential={**org.credential, "api_version": version}) as kit:
        ran = await kit.run(action, params)

    assert Code.CREDENTIAL_INVALID is ran.code
    assert ran.result.error is not None
    assert ["api_version"] == [detail.field for detail in ran.result.error.details]


def test_a_confirmed_address_is_questioned_again_later() -> None:
    now = [0.0]
    confirmations = Confirmations(clock=lambda: now[0], max_kept=2)
    confirmations.add("acme", "https://a.example")
    assert confirmations.has("acme", "https://a.example")
    assert not confirmations.has("globex", "https://a.example")

    now[0] = 61.0
    assert not confirmations.has("acme", "https://a.example")
    for origin in ("https://b.example", "https://c.example"):
        confirmations.add("acme", origin)

    assert confirmations.has("acme", "https://b.example")
