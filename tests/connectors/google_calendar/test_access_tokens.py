"""Access tokens: how they are got, kept and given up."""

import asyncio

import pytest

from connectors.google_calendar import google_calendar
from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    PermissionDenied,
    Sent,
)
from tests.support.calendar_events import VISIT
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration


async def test_a_credential_is_asked_about_at_the_provider(desk: Desk) -> None:
    await google_calendar.call_check(desk.context("check", None, 1))
    desk.document["refresh_token"] = "of nobody"

    with pytest.raises(CredentialInvalid):
        await google_calendar.call_check(desk.context("check", None, 1))


async def test_fifty_on_an_expired_token_make_one_token_call(desk: Desk) -> None:
    await desk("list_calendars")
    desk.google.authority.expire_tokens()
    before = desk.calls("token")
    desk.google.faults.add(Fault("token", delay_s=0.05))

    await asyncio.gather(*(desk("list_calendars") for _ in range(50)))

    assert 1 == desk.calls("token") - before


async def test_a_service_account_speaks_for_its_subject(desk: Desk) -> None:
    desk.document = desk.google.authority.service_account("bot@sandbox.example", subject=OWNER)

    created = await desk("create_event", **VISIT, attendees=["ada@example.com"])

    assert [created["event_id"]] == [event["id"] for event in desk.events]


async def test_a_service_account_without_delegation_is_told_what_is_missing(desk: Desk) -> None:
    document = desk.google.authority.service_account("bot@sandbox.example")
    desk.document = document | {"subject": OWNER}

    with pytest.raises(ConnectorError, match="delegate") as caught:
        await desk("list_calendars")

    assert "CREDENTIAL_INVALID" == caught.value.code


async def test_a_revoked_and_a_half_scoped_credential_are_told_apart(desk: Desk) -> None:
    desk.google.authority.revoke(OWNER)
    with pytest.raises(ConnectorError, match="authorize anew") as revoked:
        await desk("list_calendars")
    scopes = frozenset({"https://www.googleapis.com/auth/calendar.freebusy"})
    desk.document = desk.google.authority.authorized_user(OWNER, scopes=scopes)
    with pytest.raises(PermissionDenied, match="scopes"):
        await desk("create_event", **VISIT, time_zone="UTC")

    assert "CREDENTIAL_INVALID" == revoked.value.code
    free = await desk(
        "check_availability", start="2037-03-09T10:00:00Z", duration_minutes=30, time_zone="UTC"
    )
    assert free["available"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("token", status=503), "UNAVAILABLE"),
        (Fault("token", status=429), "RATE_LIMITED"),
        (Fault("token", status=400), "CREDENTIAL_INVALID"),
        (Fault("token", cut="before"), "UNAVAILABLE"),
        (Fault("token", body=b"<html>"), "UNAVAILABLE"),
        (Fault("token", body=b'{"access_token": ""}'), "UNAVAILABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status or value.cut or value.body),
)
async def test_a_token_endpoint_that_fails_has_sent_nothing_of_the_job(
    desk: Desk, fault: Fault, code: str
) -> None:
    desk.google.faults.add(fault)

    with pytest.raises(ConnectorError) as caught:
        await desk("create_event", **VISIT, time_zone="UTC")

    assert (code, Sent.NO) == (caught.value.code, caught.value.sent)
    assert 0 == desk.calls("events.insert")
    assert (await desk("create_event", **VISIT, time_zone="UTC"))["created"] or code == "RATE_LIMITED"


async def test_no_secret_is_in_an_error_of_the_token_endpoint(desk: Desk) -> None:
    secrets = [desk.document["client_secret"], desk.document["refresh_token"]]
    desk.document = desk.document | {"client_secret": secrets[0] + "x"}

    with pytest.raises(ConnectorError) as caught:
        await desk("list_calendars")

    said = f"{caught.value!r} {caught.value.message} {caught.value.data} {caught.value.__context__!r}"
    assert not [secret for secret in secrets if secret in said]
