"""Who is calling: found in contacts, leads and accounts, compared with what was asked, never guessed."""

from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.sdk.errors import InvalidParams, PermissionDenied
from connectors.sdk.testing import Answer, FakeProvider, Kit
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

PHONE = "+90 555 000 11 22"


def _add(bench: Bench, object_name: str, **values: Any) -> str:
    return str(bench.org.store.insert(object_name, values)["Id"])


@pytest.mark.parametrize(
    ("object_name", "values", "by"),
    [
        ("Contact", {"LastName": "Hopper", "HomePhone": "0555 000 11 22"}, {"phone": PHONE}),
        ("Lead", {"LastName": "Hopper", "Company": "Navy", "MobilePhone": "555 000 11 22"}, {"phone": PHONE}),
        ("Account", {"Name": "Navy", "Phone": "(0555) 0001122"}, {"phone": PHONE}),
        ("Contact", {"LastName": "Hopper", "Email": "Grace@navy.example"}, {"email": "grace@NAVY.example"}),
        (
            "Lead",
            {"LastName": "Hopper", "Company": "Navy", "Email": "grace@navy.example"},
            {"email": "grace@navy.example"},
        ),
        ("Lead", {"FirstName": "Grace", "LastName": "Hopper", "Company": "Navy"}, {"name": "grace hopper"}),
        ("Contact", {"FirstName": "José", "LastName": "Núñez"}, {"name": "José Núñez"}),
        ("Account", {"Name": "Navy Ltd"}, {"name": "Navy Ltd"}),
    ],
)
async def test_one_match_is_the_caller(
    bench: Bench, object_name: str, values: dict[str, Any], by: dict[str, str]
) -> None:
    made = _add(bench, object_name, **values)

    answer = await bench.run("find_caller", by)

    assert answer["found"] is True
    assert (object_name, made, []) == (
        answer["caller"]["object"],
        answer["caller"]["Id"],
        answer["candidates"],
    )


@pytest.mark.parametrize("by", [{"phone": PHONE}, {"email": "nobody@navy.example"}, {"name": "Grace Hopper"}])
async def test_an_unknown_caller_is_not_found(bench: Bench, by: dict[str, str]) -> None:
    assert {"found": False, "caller": None, "candidates": []} == await bench.run("find_caller", by)


async def test_several_matches_are_candidates_and_people_come_first(bench: Bench) -> None:
    company = _add(bench, "Account", Name="Navy", Phone=PHONE)
    lead = _add(bench, "Lead", LastName="Hopper", Company="Navy", Phone=PHONE)
    contact = _add(bench, "Contact", LastName="Hopper", Phone=PHONE)

    answer = await bench.run("find_caller", {"phone": PHONE})

    assert (True, None) == (answer["found"], answer["caller"])
    assert [contact, lead, company] == [each["Id"] for each in answer["candidates"]]


async def test_a_person_account_is_one_caller_not_two(bench: Bench) -> None:
    bench.org.store.enable_person_accounts()
    person = _add(bench, "Account", FirstName="Grace", LastName="Hopper", PersonMobilePhone=PHONE)
    _add(bench, "Contact", FirstName="Grace", LastName="Hopper", MobilePhone=PHONE, AccountId=person)

    for by in ({"phone": PHONE}, {"name": "Grace Hopper"}):
        answer = await bench.run("find_caller", by)

        assert ("Account", person) == (answer["caller"]["object"], answer["caller"]["Id"])


async def test_a_converted_lead_is_no_caller(bench: Bench) -> None:
    lead = bench.org.store.insert("Lead", {"LastName": "Hopper", "Company": "Navy", "Phone": PHONE})
    lead["IsConverted"] = True
    contact = _add(bench, "Contact", LastName="Hopper", Phone=PHONE)

    answer = await bench.run("find_caller", {"phone": PHONE})

    assert contact == answer["caller"]["Id"]


async def test_only_the_objects_asked_for_are_searched(bench: Bench) -> None:
    _add(bench, "Contact", LastName="Hopper", Phone=PHONE)

    answer = await bench.run("find_caller", {"phone": PHONE, "objects": ["Lead"]})

    assert answer["found"] is False


@pytest.mark.parametrize("action", ["find_caller", "get_contact_details"])
async def test_a_name_of_the_account_or_assistant_is_no_match(bench: Bench, action: str) -> None:
    account = _add(bench, "Account", Name="John Smith Ltd")
    _add(bench, "Contact", FirstName="Mary", LastName="Doe", AccountId=account)
    _add(bench, "Contact", FirstName="Jane", LastName="Roe", AssistantName="John Smith")
    params = {"name": "John Smith", **({"objects": ["Contact"]} if action == "find_caller" else {})}

    assert (await bench.run(action, params))["found"] is False


@pytest.mark.parametrize("action", ["find_caller", "get_contact_details"])
async def test_an_assistants_phone_is_not_the_contacts(bench: Bench, action: str) -> None:
    _add(bench, "Contact", LastName="Hopper", AssistantPhone=PHONE)

    assert (await bench.run(action, {"phone": PHONE}))["found"] is False


@pytest.mark.parametrize("hidden", ["mobilephone", "title", "accountid"])
async def test_fields_that_are_hidden_do_not_hinder(bench: Bench, hidden: str) -> None:
    made = _add(bench, "Contact", LastName="Hopper", Phone=PHONE)
    del bench.org.store.object("Contact").fields[hidden]

    answer = await bench.run("find_caller", {"phone": PHONE})

    assert made == answer["caller"]["Id"]


@pytest.mark.parametrize("action", ["find_caller", "search_records"])
async def test_default_objects_that_are_hidden_are_left_out(bench: Bench, action: str) -> None:
    _add(bench, "Contact", LastName="Hopper")
    del bench.org.store.objects["lead"]
    params = {"name": "Hopper"} if action == "find_caller" else {"text": "Hopper"}

    answer = await bench.run(action, params)

    assert answer.get("found", answer.get("total")) == 1
    with pytest.raises((PermissionDenied, InvalidParams)):
        await bench.run(action, {**params, "objects": ["Lead"]})


async def test_a_caller_is_found_without_descriptions() -> None:
    async with FakeProvider() as org:
        org.on(
            "POST",
            "/services/oauth2/token",
            Answer({"access_token": "token-1-abcdefgh", "instance_url": org.url}),
        )
        rows = [
            {
                "attributes": {"type": kind},
                "Id": f"{prefix}000000000001AAA",
                "Name": "Mary Doe",
                "Phone": phone,
            }
            for kind, prefix, phone in (
                ("Contact", "003", "06 12 34 56 78"),
                ("Lead", "00Q", "06 12 34 56 79"),
            )
        ]
        org.on("GET", "/services/data/v62.0/search/", Answer({"searchRecords": rows}))
        credential = {
            "auth": "client_credentials",
            "client_id": "c",
            "client_secret": "s3cret-app",
            "login_url": org.url,
        }
        async with Kit(salesforce, credential=credential) as kit:
            ran = await kit.run("find_caller", {"phone": "+33612345678"})

    assert ran.data is not None
    assert "003000000000001AAA" == ran.data["caller"]["Id"]


async def test_a_caller_is_not_looked_for_if_every_object_is_hidden(bench: Bench) -> None:
    for name in ("lead", "contact", "account"):
        del bench.org.store.objects[name]

    with pytest.raises(PermissionDenied):
        await bench.run("find_caller", {"phone": PHONE})


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"phone": PHONE, "name": "Ada"},
        {"phone": PHONE, "objects": []},
        {"name": "Ada", "objects": ["User"]},
    ],
)
async def test_a_caller_must_be_named_in_one_way(bench: Bench, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("find_caller", params)

    assert [] == bench.org.requests
