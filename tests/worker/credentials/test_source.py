"""Names, secrets, and the source of a worker without a vault."""

import json
import pickle

import pytest
from pydantic import JsonValue

from connectors.sdk.errors import CredentialNotFound
from worker.credentials.source import (
    CredentialName,
    FetchOutcome,
    NoVault,
    SecretFields,
    SecretStore,
    secret_values,
)

CANARY = "canary-8f2b61c0d7"

#: Names that would leave the path, alias another, or break a header, a log line or a query.
HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../b",
    "../../../../sys/health",
    "/abs",
    "a/b",
    "a//b",
    "a/./b",
    "a/",
    "a\\b",
    "%2e%2e",
    "a%2fb",
    "A",
    "\u0430",
    "a\n",
    "a\r\nX: y",
    "a\x00",
    "a b",
    "a?version=1",
    "a#b",
    "-a",
    "a" * 64,
    "a" * 10_240,
]


def test_a_path_is_made_of_the_three_names() -> None:
    name = CredentialName.checked("acme", "google_calendar", "back-office_2")

    assert name.path == "connectors/acme/google_calendar/back-office_2"


@pytest.mark.parametrize("hostile", HOSTILE_NAMES, ids=ascii)
@pytest.mark.parametrize("place", range(3), ids=["tenant", "connector", "credential"])
def test_a_name_of_another_form_makes_no_path(hostile: str, place: int) -> None:
    names = ["acme", "http", "default"]
    names[place] = hostile

    with pytest.raises(CredentialNotFound) as refusal:
        CredentialName.checked(*names)

    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 400


def test_a_secret_reads_like_a_dict() -> None:
    secret = SecretFields({"token": CANARY, "scopes": ["a", "b"]})

    assert secret["token"] == CANARY
    assert dict(secret) == {"token": CANARY, "scopes": ["a", "b"]}
    assert "token" in secret
    assert len(secret) == 2


def test_a_secret_shows_nothing() -> None:
    secret = SecretFields({"token": CANARY})

    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>80}", repr([secret])]

    assert not any(CANARY in text for text in shown)
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SecretFields({"token": CANARY}))


def test_a_job_cannot_change_what_the_next_one_gets() -> None:
    given: dict[str, JsonValue] = {"scopes": ["a"]}
    secret = SecretFields(given)

    first = secret["scopes"]
    assert isinstance(first, list)
    first.append("b")
    given["scopes"] = []

    assert secret["scopes"] == ["a"]


def test_values_to_mask_are_found_at_any_depth() -> None:
    fields: dict[str, JsonValue] = {"a": "first-secret", "b": {"c": ["second-secret", 12345678]}, "d": None}

    assert set(secret_values(fields)) == {"first-secret", "second-secret"}


def test_a_private_key_is_masked_line_by_line_too() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"
    masked = set(secret_values({"private_key": key}))

    assert masked == {key, "MIIEvQIBADANBgkq", "hkiG9w0BAQEFAASC"}
    assert any(value in json.dumps({"oops": key}) for value in masked)


def test_short_values_and_public_fields_are_not_masked() -> None:
    fields: dict[str, JsonValue] = {
        "pin": "1234567",
        "type": "service_account",
        "auth": "client_credentials",
        "token_uri": "https://oauth2.example/token",
    }

    assert list(secret_values(fields)) == []


async def test_without_a_vault_there_is_no_secret_and_nothing_is_away() -> None:
    outcomes: list[FetchOutcome] = []
    source: SecretStore = NoVault(outcomes.append)
    await source.start()

    with pytest.raises(CredentialNotFound, match="CONNECTORS_VAULT_URL"):
        await source.fetch("acme", "http", "default")

    assert source.available
    assert source.unavailable_reason is None
    assert await source.wait_available(0)
    assert outcomes == [FetchOutcome.NOT_FOUND]
    await source.invalidate("acme", "http", "default")
    await source.close()


def test_secrets_of_equal_fields_are_equal() -> None:
    secret = SecretFields({"token": CANARY})

    assert secret == SecretFields({"token": CANARY})
    assert secret != SecretFields({"token": "another"})
