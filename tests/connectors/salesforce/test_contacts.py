"""Contacts: found as people ask for them, never the first one by chance."""

import time
from typing import Any

import pytest

from connectors.salesforce.describe import DOUBT_S, descriptions
from connectors.sandbox.salesforce.server import KEY_FIELD, Field
from connectors.sdk.errors import InvalidParams, NotFound
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration


def _ada(bench: Bench) -> dict[str, Any]:
    return next(each for each in bench.org.store.records("Contact") if each["FirstName"] == "Ada")


@pytest.mark.parametrize("length", [15, 18])
async def test_a_contact_is_found_by_a_short_or_a_long_id(bench: Bench, length: int) -> None:
    ada = _ada(bench)

    answer = await bench.run("get_contact_details", {"contact_id": ada["Id"][:length]})

    assert (True, 1, []) == (answer["found"], answer["matches"], answer["candidates"])
    assert ada["Id"] == answer["contact"]["Id"]
    assert "Lovelace Clinic" == answer["contact"]["Account"]["Name"]
    assert "Desk" == answer["contact"]["Owner"]["Name"]
    assert "attributes" not in answer["contact"]
    assert "attributes" not in answer["contact"]["Account"]


async def test_an_unknown_or_deleted_id_is_not_found(bench: Bench) -> None:
    ada = _ada(bench)
    bench.org.store.delete("Contact", ada)

    for contact_id in (ada["Id"], "003000000000001AAA"):
        with pytest.raises(NotFound):
            await bench.run("get_contact_details", {"contact_id": contact_id})


@pytest.mark.parametrize(
    "by",
    [
        {"email": "ADA@lovelace.example"},
        {"phone": "0532 111 22 33"},
        {"phone": "+90 532 1112233"},
        {"phone": "0090 (533) 222-33-44"},
        {"name": "ada lovelace"},
        {"name": "Ada"},
    ],
)
async def test_a_contact_is_found_as_people_ask(bench: Bench, by: dict[str, str]) -> None:
    answer = await bench.run("get_contact_details", by)

    assert answer["found"] is True
    assert "ada@lovelace.example" == answer["contact"]["Email"]
    assert "HomePhone" not in answer["contact"]


@pytest.mark.parametrize(
    ("caller", "record"),
    [
        ("+33612345678", "06 12 34 56 78"),
        ("+34612345678", "612 34 56 78"),
        ("+31612345678", "06-12345678"),
        ("+32470123456", "0470 12 34 56"),
        ("+41791234567", "079 123 45 67"),
        ("+48601234567", "601 234 567"),
        ("+46701234567", "070-123 45 67"),
        ("+61412345678", "0412 345 678"),
        ("+971501234567", "050 123 4567"),
        ("+972501234567", "050-123-4567"),
        ("+966501234567", "0501234567"),
        ("+4533123456", "33 12 34 56"),
        ("+4722123456", "22 12 34 56"),
        ("+6591234567", "9123 4567"),
        ("+85223456789", "2345 6789"),
        ("+79123456789", "8 (912) 345-67-89"),
        ("+442079460018", "+44 (0)20 7946 0018"),
        ("+14155552671", "(415) 555-2671 Ext: 99"),
        ("+14155550100", "+1 415 555 0100 #12"),
    ],
)
async def test_a_phone_of_any_country_is_found(bench: Bench, caller: str, record: str) -> None:
    made = bench.org.store.insert("Contact", {"LastName": "Caller", "Phone": record})

    answer = await bench.run("get_contact_details", {"phone": caller})

    assert made["Id"] == (answer["contact"] or {}).get("Id")


@pytest.mark.parametrize(
    "by",
    [
        {"email": "nobody@lovelace.example"},
        {"email": "x'OR''='@lovelace.example"},
        {"phone": "0532 999 99 99"},
        {"name": "Grace Hopper"},
        {"name": "x' OR Name LIKE '%"},
        {"name": 'Ada"} RETURNING User(Id)'},
    ],
)
async def test_an_unknown_person_is_not_found(bench: Bench, by: dict[str, str]) -> None:
    answer = await bench.run("get_contact_details", by)

    assert {"found": False, "contact": None, "matches": 0, "candidates": []} == answer


async def test_several_matches_are_candidates_and_none_is_chosen(bench: Bench) -> None:
    twin = bench.org.store.insert(
        "Contact", {"FirstName": "Ada", "LastName": "Lovelace", "Email": "ada@lovelace.example"}
    )

    for by in ({"email": "ada@lovelace.example"}, {"name": "Ada Lovelace"}):
        answer = await bench.run("get_contact_details", by)

        assert (True, None, 2) == (answer["found"], answer["contact"], answer["matches"])
        assert {_ada(bench)["Id"], twin["Id"]} == {each["Id"] for each in answer["candidates"]}
        assert {"Lovelace Clinic", None} == {
            (each["Account"] or {}).get("Name") for each in answer["candidates"]
        }


async def test_an_exact_name_wins_over_a_part(bench: Bench) -> None:
    bench.org.store.insert("Contact", {"FirstName": "Ada", "LastName": "Lovelace King"})

    answer = await bench.run("get_contact_details", {"name": "Ada  LOVELACE"})

    assert 1 == answer["matches"]


async def test_the_fields_asked_for_are_answered(bench: Bench) -> None:
    answer = await bench.run(
        "get_contact_details",
        {"phone": "0532 111 22 33", "fields": ["Title", "Account.Industry", "Owner.Email"]},
    )

    contact = answer["contact"]
    assert {"Id", "Title", "Account", "Owner"} == set(contact)
    assert ("Healthcare", "desk@clinic.example") == (
        contact["Account"]["Industry"],
        contact["Owner"]["Email"],
    )


@pytest.mark.parametrize("path", ["Nope__c", "Account.Nope", "Nope.Name", "Account.Owner.Nope", "Title.Name"])
async def test_an_unknown_field_is_refused_before_the_query(bench: Bench, path: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        await bench.run("get_contact_details", {"email": "ada@lovelace.example", "fields": [path]})

    assert [path] == [detail.field for detail in caught.value.details]
    assert 0 == bench.org.journal.calls["query"]


async def test_a_field_made_a_moment_ago_is_known(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"email": "ada@lovelace.example", "fields": ["Nickname__c"]}
    with pytest.raises(InvalidParams):
        await bench.run("get_contact_details", asked)
    bench.org.store.add_field("Contact", Field("Nickname__c"))
    monkeypatch.setattr(descriptions, "_clock", lambda: time.monotonic() + DOUBT_S)

    answer = await bench.run("get_contact_details", asked)

    assert answer["contact"]["Nickname__c"] is None


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"email": "a@b.example", "phone": "0532 111 22 33"},
        {"email": "no address"},
        {"phone": "call me"},
        {"name": "A"},
        {"name": "%%"},
        {"name": "*? a"},
        {"name": "x" * 201},
        {"contact_id": "../../query?q="},
        {"contact_id": "https://evil.example"},
        {"email": "a@b.example", "fields": ["Id FROM User--"]},
        {"email": "a@b.example", "fields": []},
        {"mail": "a@b.example"},
    ],
)
async def test_invalid_parameters_are_refused_before_any_request(
    bench: Bench, params: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("get_contact_details", params)

    assert [] == bench.org.requests


async def test_a_contact_is_created_changed_and_undone(bench: Bench) -> None:
    account = next(iter(bench.org.store.records("Account")))
    made = await bench.run(
        "create_contact",
        {
            "last_name": "Hopper",
            "first_name": "Grace",
            "account_id": account["Id"],
            "mobile_phone": "555 1234",
        },
    )
    changed = await bench.run(
        "update_contact",
        {"contact_id": made["contact_id"], "email": "grace@navy.example", "title": "Captain"},
    )
    found = await bench.run("get_contact_details", {"email": "grace@navy.example"})
    again = await bench.run("create_contact", {"last_name": "Hopper"})
    await bench.undo("create_contact", result=made)

    assert ["Email", "Title"] == changed["updated_fields"]
    assert account["Id"] == found["contact"]["AccountId"]
    assert (made["contact_id"], False) == (again["contact_id"], again["created"])
    with pytest.raises(NotFound):
        await bench.run("update_contact", {"contact_id": made["contact_id"], "title": "Admiral"})


async def test_a_contact_without_an_external_id_is_found_again(bench: Bench) -> None:
    document = bench.org.authority.document("password", contact_key_field=KEY_FIELD)
    made = await bench.run("create_contact", {"last_name": "Hopper"}, document=document)

    assert made == await bench.reconcile("create_contact", {"last_name": "Hopper"}, document=document)


@pytest.mark.parametrize(
    "by", [{"email": "ada@lovelace.example"}, {"phone": "0532 111 22 33"}, {"name": "Ada Lovelace"}]
)
async def test_fields_that_the_org_hides_from_this_user_are_left_out(
    bench: Bench, by: dict[str, str]
) -> None:
    fields = bench.org.store.object("Contact").fields
    for hidden in ("department", "assistantphone", "accountid"):
        del fields[hidden]

    answer = await bench.run("get_contact_details", by)

    assert "Ada Lovelace" == answer["contact"]["Name"]
    assert {"Department", "Account"}.isdisjoint(answer["contact"])
