"""The credential as Google hands it out, and the tokens it gets."""

from typing import Any

import pytest

from connectors.google_calendar import google_calendar
from connectors.sdk.errors import CredentialInvalid
from tests.support.desk import OWNER, Desk

#: What Google's own library writes after a login.
TOKEN_FILE = {
    "token": "ya29.old",
    "refresh_token": "hunter2",
    "token_uri": "https://oauth2.googleapis.com/token",
    "client_id": "x",
    "client_secret": "hunter2",
    "scopes": ["https://www.googleapis.com/auth/calendar"],
    "universe_domain": "googleapis.com",
    "account": "",
    "expiry": "2026-03-09T10:00:00Z",
}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({}, "type"),
        ({"installed": {"client_id": "x", "client_secret": "hunter2"}}, "connectors connect google_calendar"),
        ({"web": {"client_id": "x", "client_secret": "hunter2"}}, "connectors connect google_calendar"),
        ({**TOKEN_FILE, "token_uri": "oauth2.googleapis.com"}, "token_uri"),
        ({"type": "external_account"}, "type"),
        ({"type": "service_account", "client_email": "a@b.example"}, "private_key"),
        ({"type": "service_account", "client_email": "a@b.example", "private_key": "hunter2"}, "PEM"),
        ({"type": "authorized_user", "client_id": "x", "client_secret": "hunter2"}, "refresh_token"),
        (
            {
                "type": "authorized_user",
                "client_id": "x",
                "client_secret": "hunter2",
                "refresh_token": "hunter2",
                "subject": "a@b.example",
            },
            "subject",
        ),
    ],
)
def test_a_credential_that_cannot_work_is_refused_without_its_secrets(
    document: dict[str, Any], named: str
) -> None:
    with pytest.raises(CredentialInvalid, match=named) as caught:
        google_calendar.read_credential(document)

    assert "hunter2" not in caught.value.message


def test_googles_own_token_file_is_an_authorized_user() -> None:
    assert "authorized_user" == google_calendar.read_credential(TOKEN_FILE).type


@pytest.mark.integration
async def test_a_token_file_works_at_its_own_token_uri(desk: Desk) -> None:
    del desk.document["type"]

    await desk("list_calendars")

    assert 1 == desk.calls("token")


@pytest.mark.integration
async def test_a_key_with_literal_line_breaks_works(desk: Desk) -> None:
    document = desk.google.authority.service_account("bot@sandbox.example", subject=OWNER)
    desk.document = document | {"private_key": document["private_key"].replace("\n", "\\n")}

    assert (await desk("list_calendars"))["calendars"]


@pytest.mark.integration
@pytest.mark.parametrize("key", ["-----BEGIN PRIVATE KEY-----\nhunter2", "-----BEGIN nothing"])
async def test_a_key_that_is_not_one_is_named_and_not_quoted(desk: Desk, key: str) -> None:
    document = desk.google.authority.service_account("bot@sandbox.example", subject=OWNER)
    desk.document = document | {"private_key": key}

    with pytest.raises(CredentialInvalid, match="private_key") as caught:
        await desk("list_calendars")

    assert "hunter2" not in caught.value.message


@pytest.mark.integration
async def test_a_refresh_token_that_google_exchanges_is_used_from_then_on(desk: Desk) -> None:
    desk.google.authority.rotates = True
    await desk("list_calendars")
    desk.google.authority.expire_tokens()

    await desk("list_calendars")

    assert 2 == desk.calls("token")
