"""The Google sandbox: as strict as its discovery document, and as Google where Google is documented."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

from connectors.sandbox.google.api import OPERATIONS
from connectors.sandbox.google.discovery import methods
from connectors.sandbox.google.server import Fault, GoogleSandbox

pytestmark = pytest.mark.integration

OWNER = "desk@clinic.example"
TIMED = {"start": {"dateTime": "2026-03-09T10:00:00+03:00"}, "end": {"dateTime": "2026-03-09T10:30:00+03:00"}}


class Client:
    """A plain client with a bearer token."""

    def __init__(self, google: GoogleSandbox) -> None:
        self.google = google
        self.http = httpx.AsyncClient(trust_env=False, timeout=5)
        self.calendar = f"/calendars/{OWNER}"

    async def login(self, document: dict[str, Any]) -> httpx.Response:
        names = ("client_id", "client_secret", "refresh_token")
        form = {"grant_type": "refresh_token", **{name: document[name] for name in names}}
        response = await self.http.post(self.google.token_url, data=form)
        if response.status_code == 200:
            self.http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        return response

    async def __call__(
        self, method: str, path: str, body: Any = None, *, etag: str | None = None, **query: Any
    ) -> tuple[int, Any]:
        headers = {} if etag is None else {"If-Match": etag}
        response = await self.http.request(
            method, self.google.url + path, json=body, params=query, headers=headers
        )
        return response.status_code, response.json() if response.content else None

    async def insert(self, **body: Any) -> dict[str, Any]:
        status, event = await self("POST", f"{self.calendar}/events", {**TIMED, **body})
        assert 200 == status, event
        return dict(event)

    async def busy(self, since: str = "2026-03-09T00:00:00Z", until: str = "2026-03-10T00:00:00Z") -> Any:
        body = {"timeMin": since, "timeMax": until, "items": [{"id": OWNER}]}
        status, answer = await self("POST", "/freeBusy", body)
        assert 200 == status, answer
        return [(each["start"], each["end"]) for each in answer["calendars"][OWNER]["busy"]]


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[GoogleSandbox]:
    async with GoogleSandbox(journal_file=tmp_path / "journal") as sandbox:
        sandbox.store.add_account(OWNER, time_zone="Europe/Istanbul")
        yield sandbox


@pytest.fixture
async def client(google: GoogleSandbox) -> AsyncIterator[Client]:
    client = Client(google)
    await client.login(google.authority.authorized_user(OWNER))
    yield client
    await client.http.aclose()


def reason(answer: tuple[int, Any]) -> tuple[int, str]:
    status, body = answer
    return status, body["error"]["errors"][0]["reason"]


def test_what_it_answers_is_in_the_discovery_document() -> None:
    assert OPERATIONS.keys() <= {method.name for method in methods()}


@pytest.mark.parametrize(
    ("path", "query", "body", "expected"),
    [
        ("/events", {}, {**TIMED, "sumary": "x"}, (400, "invalid")),
        ("/events", {}, {**TIMED, "summary": 1}, (400, "invalid")),
        ("/events", {}, {"start": TIMED["start"]}, (400, "required")),
        ("/events", {}, {**TIMED, "id": "UPPER-case"}, (400, "invalid")),
        ("/events", {}, {**TIMED, "start": {"dateTime": "2026-03-09T10:00:00"}}, (400, "required")),
        ("/events", {}, {**TIMED, "start": {"dateTime": "soon"}}, (400, "badRequest")),
        ("/events", {}, {"start": TIMED["end"], "end": TIMED["start"]}, (400, "timeRangeEmpty")),
        ("/events", {}, {**TIMED, "recurrence": ["RRULE:FREQ=DAILY"]}, (400, "required")),
        ("/events", {}, {**TIMED, "attendees": [{"email": "nobody"}]}, (400, "invalid")),
        ("/events", {"sendUpdates": "some"}, TIMED, (400, "invalidParameter")),
        ("/events", {"conferenceDataVersion": 2}, TIMED, (400, "invalidParameter")),
        ("/events", {"notify": "all"}, TIMED, (400, "badRequest")),
        ("/events", {}, [], (400, "parseError")),
        ("/event", {}, TIMED, (404, "notFound")),
    ],
)
async def test_what_the_document_does_not_allow_is_refused(
    client: Client, path: str, query: dict[str, Any], body: Any, expected: tuple[int, str]
) -> None:
    assert expected == reason(await client("POST", client.calendar + path, body, **query))
    assert {} == client.google.store.calendars[OWNER].events


async def test_an_id_stays_taken_even_after_its_event_was_deleted(client: Client) -> None:
    await client.insert(id="abcde")
    twice = await client("POST", f"{client.calendar}/events", {**TIMED, "id": "abcde"})
    deleted = await client("DELETE", f"{client.calendar}/events/abcde")
    again = await client("POST", f"{client.calendar}/events", {**TIMED, "id": "abcde"})
    gone = await client("DELETE", f"{client.calendar}/events/abcde")
    changed = await client("PATCH", f"{client.calendar}/events/abcde", {"summary": "x"})
    shown = await client("GET", f"{client.calendar}/events/abcde")

    assert (204, None) == deleted
    assert [(409, "duplicate")] * 2 == [reason(twice), reason(again)]
    assert [(410, "deleted"), (403, "forbidden")] == [reason(gone), reason(changed)]
    assert "cancelled" == shown[1]["status"]


async def test_an_etag_guards_a_change_and_a_deletion(client: Client) -> None:
    event = await client.insert(id="abcde")
    path = f"{client.calendar}/events/abcde"

    first = await client("PATCH", path, {"summary": "x"}, etag=event["etag"])
    stale = await client("PATCH", path, {"summary": "y"}, etag=event["etag"])
    deleted = await client("DELETE", path, etag=event["etag"])

    assert (200, "x") == (first[0], first[1]["summary"])
    assert [(412, "conditionNotMet")] * 2 == [reason(stale), reason(deleted)]


async def test_a_patch_merges_objects_and_removes_what_is_null(client: Client) -> None:
    private = {"extendedProperties": {"private": {"a": "1"}}, "description": "d"}
    await client.insert(id="abcde", **private)

    _, event = await client(
        "PATCH",
        f"{client.calendar}/events/abcde",
        {"extendedProperties": {"private": {"b": "2"}}, "description": None},
    )

    assert {"a": "1", "b": "2"} == event["extendedProperties"]["private"]
    assert "description" not in event


async def test_busy_is_what_takes_up_the_owner(client: Client) -> None:
    await client.insert()
    await client.insert(transparency="transparent")
    await client.insert(attendees=[{"email": OWNER, "responseStatus": "declined"}])
    await client.insert(id="abcde")
    await client("DELETE", f"{client.calendar}/events/abcde")
    await client.insert(
        start={"dateTime": "2026-03-02T23:30:00", "timeZone": "Europe/Istanbul"},
        end={"dateTime": "2026-03-03T00:30:00", "timeZone": "Europe/Istanbul"},
        recurrence=["RRULE:FREQ=WEEKLY;COUNT=2"],
    )
    await client.insert(start={"date": "2026-03-11"}, end={"date": "2026-03-12"})

    assert [
        ("2026-03-09T07:00:00Z", "2026-03-09T07:30:00Z"),
        ("2026-03-09T20:30:00Z", "2026-03-09T21:30:00Z"),
    ] == await client.busy()
    assert [("2026-03-10T21:00:00Z", "2026-03-11T21:00:00Z")] == await client.busy(
        "2026-03-10T12:00:00Z", "2026-03-12T12:00:00Z"
    )


async def test_a_series_keeps_its_wall_time_over_a_change_of_clocks(client: Client) -> None:
    await client.insert(
        start={"dateTime": "2026-03-07T09:00:00", "timeZone": "America/New_York"},
        end={"dateTime": "2026-03-07T10:00:00", "timeZone": "America/New_York"},
        recurrence=["RRULE:FREQ=DAILY;COUNT=2"],
    )

    found = await client.busy("2026-03-07T00:00:00Z", "2026-03-09T00:00:00Z")

    assert ["2026-03-07T14:00:00Z", "2026-03-08T13:00:00Z"] == [start for start, _ in found]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("FREQ=WEEKLY;BYDAY=MO,WE;COUNT=4", ["03-09", "03-11", "03-16", "03-18"]),
        ("FREQ=MONTHLY;BYDAY=-1FR;COUNT=3", ["03-09", "03-27", "04-24"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1;COUNT=3", ["03-09", "03-31", "04-30"]),
        ("FREQ=DAILY;INTERVAL=10;UNTIL=20260401T000000Z", ["03-09", "03-19", "03-29"]),
        ("FREQ=YEARLY;COUNT=1", ["03-09"]),
    ],
)
async def test_rules_of_recurrence(client: Client, rule: str, expected: list[str]) -> None:
    times = {
        name: {"dateTime": f"2026-03-09T{hour}:00:00", "timeZone": "UTC"}
        for name, hour in (("start", 10), ("end", 11))
    }
    await client.insert(**times, recurrence=[f"RRULE:{rule}"])

    found = await client.busy("2026-03-01T00:00:00Z", "2026-05-20T00:00:00Z")

    assert expected == [start[5:10] for start, _ in found]


async def test_freebusy_has_its_limits(client: Client) -> None:
    body = {"timeMin": "2026-01-01T00:00:00Z", "timeMax": "2026-04-30T00:00:00Z", "items": [{"id": OWNER}]}
    many = {"timeMax": "2026-01-02T00:00:00Z", "items": [{"id": f"room{number}"} for number in range(51)]}

    too_long = await client("POST", "/freeBusy", body)
    _, too_many = await client("POST", "/freeBusy", body | many)

    assert (400, "timeRangeTooLong") == reason(too_long)
    assert {"notFound": 50, "tooManyCalendarsRequested": 1} == {
        name: sum(each["errors"][0]["reason"] == name for each in too_many["calendars"].values())
        for name in ("notFound", "tooManyCalendarsRequested")
    }


async def test_pages_may_be_short_and_the_first_one_empty(client: Client) -> None:
    client.google.store.page_limit, client.google.store.empty_first_page = 2, True
    for _ in range(5):
        await client.insert()

    sizes, query = [], dict[str, Any]()
    while True:
        _, page = await client("GET", f"{client.calendar}/events", **query)
        sizes.append(len(page["items"]))
        if "nextPageToken" not in page:
            break
        query["pageToken"] = page["nextPageToken"]
    other = await client("GET", f"{client.calendar}/events", pageToken=query["pageToken"], q="x")

    assert [0, 2, 2, 1] == sizes
    assert (400, "invalid") == reason(other)


async def test_order_by_start_needs_single_events_and_free_busy_shows_times(
    client: Client,
) -> None:
    await client.insert(summary="Secret", description="Secret")
    client.google.store.calendars[OWNER].acl["guest@example.com"] = "freeBusyReader"
    unordered = await client("GET", f"{client.calendar}/events", orderBy="startTime")
    await client.login(client.google.authority.authorized_user("guest@example.com"))

    _, listed = await client("GET", f"{client.calendar}/events")

    assert (400, "badRequest") == reason(unordered)
    assert "Secret" not in json.dumps(listed)
    assert 1 == len(listed["items"])


async def test_a_meet_needs_its_version_and_may_be_pending(client: Client) -> None:
    request = {"createRequest": {"requestId": "r1", "conferenceSolutionKey": {"type": "hangoutsMeet"}}}
    ignored = await client.insert(conferenceData=request)
    client.google.store.meet_pending_reads = 1
    _, pending = await client(
        "POST", f"{client.calendar}/events", {**TIMED, "conferenceData": request}, conferenceDataVersion=1
    )
    path = f"{client.calendar}/events/{pending['id']}"
    _, still = await client("GET", path)
    _, there = await client("GET", path)

    assert "conferenceData" not in ignored
    assert ["pending"] * 2 == [
        each["conferenceData"]["createRequest"]["status"]["statusCode"] for each in (pending, still)
    ]
    assert there["hangoutLink"].startswith("https://meet.google.com/")


# The way in


async def test_without_a_token_or_with_an_expired_one_nothing_is_told(client: Client) -> None:
    client.google.authority.expire_tokens()

    assert (401, "authError") == reason(await client("GET", "/users/me/calendarList"))


async def test_a_wrong_client_secret_and_a_revoked_token_are_refused(client: Client) -> None:
    document = client.google.authority.authorized_user(OWNER)
    wrong = await client.login(document | {"client_secret": "x"})
    client.google.authority.revoke(OWNER)
    revoked = await client.login(document)

    assert (401, "invalid_client") == (wrong.status_code, wrong.json()["error"])
    assert (400, "invalid_grant") == (revoked.status_code, revoked.json()["error"])


@pytest.mark.parametrize(
    ("claims", "key", "expected"),
    [
        ({}, None, 200),
        ({"sub": OWNER}, None, 200),
        ({"sub": "boss@clinic.example"}, None, "unauthorized_client"),
        ({"iss": "stranger@sandbox.example"}, None, "invalid_grant"),
        ({"aud": "https://evil.example/token"}, None, "invalid_grant"),
        ({"scope": ""}, None, "invalid_scope"),
        ({"exp": 7300}, None, "invalid_grant"),
        ({}, "another", "invalid_grant"),
    ],
)
async def test_an_assertion_is_verified(
    client: Client, claims: dict[str, Any], key: str | None, expected: Any
) -> None:
    document = client.google.authority.service_account("bot@sandbox.example", subject=OWNER)
    pem = document["private_key"]
    if key is not None:
        pem = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            .private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            .decode()
        )
    now = int(time.time())
    payload = {
        "iss": "bot@sandbox.example",
        "scope": "https://www.googleapis.com/auth/calendar",
        "aud": client.google.token_url,
        "iat": now,
        "exp": 3600,
        **claims,
    }
    payload["exp"] += now
    assertion = jwt.encode(crypt.RSASigner.from_string(pem), payload).decode()  # type: ignore[no-untyped-call]
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}

    response = await client.http.post(client.google.token_url, data=form)

    assert expected == (200 if response.status_code == 200 else response.json()["error"])


# Faults and the journal


async def test_faults_are_met_in_order_and_used_up(client: Client) -> None:
    faults = client.google.faults
    faults.add(Fault("calendarList.list", status=503, skip=1))
    faults.add(Fault("*", status=403, reason="rateLimitExceeded", headers={"Retry-After": "3"}, skip=1))

    statuses = [(await client("GET", "/users/me/calendarList"))[0] for _ in range(4)]

    assert [200, 503, 403, 200] == statuses


@pytest.mark.parametrize(("cut", "events"), [("before", 0), ("after", 1)])
async def test_a_cut_comes_before_or_after_the_work(client: Client, cut: Any, events: int) -> None:
    client.google.faults.add(Fault("events.insert", cut=cut))

    with pytest.raises(httpx.TransportError):
        await client.insert()

    assert events == len(client.google.journal.of("created"))


@pytest.mark.parametrize(("does_work", "events"), [(True, 1), (False, 0)])
async def test_a_call_is_held_with_its_work_done_or_undone(
    client: Client, does_work: bool, events: int
) -> None:
    fault = Fault("events.insert", until=asyncio.Event(), does_work=does_work)
    client.google.faults.add(fault)
    holding = asyncio.create_task(client.insert())
    await fault.met.wait()

    assert events == len(client.google.journal.of("created"))
    assert fault.until is not None
    fault.until.set()
    assert "id" in await holding
    assert 1 == len(client.google.journal.of("created"))


async def test_effects_are_on_disk_before_they_are_answered(client: Client, tmp_path: Path) -> None:
    await client.insert(id="abcde")

    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]

    assert [("token", ""), ("created", "abcde")] == [(each["kind"], each["event_id"]) for each in lines]
    assert 1 == client.google.journal.calls["events.insert"]
