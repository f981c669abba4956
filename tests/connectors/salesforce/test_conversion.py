"""A lead is converted once; the SOAP API does it, because the REST API cannot."""

import asyncio
from typing import Any

import pytest

from connectors.salesforce import salesforce
from connectors.salesforce.soap import read
from connectors.sandbox.salesforce.server import Fault
from connectors.sdk.errors import Conflict, InvalidParams, NotFound, Rejected, Unavailable
from connectors.sdk.testing import Kit
from schemas.error import Code
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration


def _lead(bench: Bench, **values: Any) -> str:
    lead = {"FirstName": "Grace", "LastName": "Hopper", "Company": "Navy & Sons <Ltd>", **values}
    return str(bench.org.store.insert("Lead", lead)["Id"])


async def test_a_lead_becomes_a_contact_an_account_and_an_opportunity(bench: Bench) -> None:
    lead_id = _lead(bench)

    made = await bench.run("convert_lead", {"lead_id": lead_id, "opportunity_name": "A & B"})

    store = bench.org.store
    assert "Navy & Sons <Ltd>" == store.find("Account", made["account_id"])["Name"]
    assert "Grace Hopper" == store.find("Contact", made["contact_id"])["Name"]
    assert "A & B" == store.find("Opportunity", made["opportunity_id"])["Name"]
    assert "Closed - Converted" == store.find("Lead", lead_id)["Status"]


async def test_a_lead_is_merged_into_the_contact_that_is_named(bench: Bench) -> None:
    ada = next(iter(bench.org.store.records("Contact")))
    params = {"lead_id": _lead(bench), "account_id": ada["AccountId"], "contact_id": ada["Id"]}

    made = await bench.run("convert_lead", {**params, "create_opportunity": False})

    assert (ada["AccountId"], ada["Id"], None) == (
        made["account_id"],
        made["contact_id"],
        made["opportunity_id"],
    )
    assert [] == list(bench.org.store.records("Opportunity"))


async def test_a_lead_that_is_converted_already_is_a_conflict_with_its_ids(bench: Bench) -> None:
    lead_id = _lead(bench)
    made = await bench.run("convert_lead", {"lead_id": lead_id})

    with pytest.raises(Conflict) as caught:
        await bench.run("convert_lead", {"lead_id": lead_id}, key="other")

    assert made == caught.value.data
    assert made == await bench.reconcile("convert_lead", {"lead_id": lead_id})


async def test_a_session_that_ends_before_the_conversion_is_renewed(bench: Bench) -> None:
    held = Fault("soap", until=asyncio.Event())
    bench.org.faults.add(held)
    running = asyncio.create_task(bench.run("convert_lead", {"lead_id": _lead(bench)}))
    await held.met.wait()

    bench.org.authority.expire_sessions()
    assert held.until is not None
    held.until.set()

    assert (await running)["contact_id"]
    assert (2, 2) == (bench.org.journal.calls["soap"], bench.org.journal.calls["token"])


async def test_an_unknown_lead_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.run("convert_lead", {"lead_id": "00Q000000000001AAA"})


async def test_a_refused_conversion_is_definite_and_changes_nothing(bench: Bench) -> None:
    lead_id = _lead(bench)
    before = len(bench.org.journal.effects)

    async with Kit(salesforce, credential=bench.document) as kit:
        ran = await kit.run("convert_lead", {"lead_id": lead_id, "account_id": "001000000000001AAA"})
        wrong = await kit.run("convert_lead", {"lead_id": lead_id, "converted_status": "Nonsense"})

    assert (Code.NOT_FOUND, Code.REJECTED) == (ran.code, wrong.code)
    assert ["login"] == [effect.kind for effect in bench.org.journal.effects[before:]]


async def test_duplicates_of_a_conversion_are_refused_unless_allowed(bench: Bench) -> None:
    bench.org.store.duplicate_rules.add("Contact")
    lead_id = _lead(bench, Email="ada@lovelace.example")

    with pytest.raises(Conflict):
        await bench.run("convert_lead", {"lead_id": lead_id})
    made = await bench.run("convert_lead", {"lead_id": lead_id, "allow_duplicates": True})

    assert made["contact_id"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("soap", cut="after"),
        Fault("soap", status=502, does_work=True),
        Fault("soap", body=b"<html>"),
        Fault("soap", truncate=20),
    ],
)
async def test_a_conversion_whose_answer_is_lost_is_looked_up(bench: Bench, fault: Fault) -> None:
    lead_id = _lead(bench)
    bench.org.faults.add(fault)

    async with Kit(salesforce, credential=bench.document) as kit:
        ran = await kit.run("convert_lead", {"lead_id": lead_id})

    assert ran.code is None
    assert 1 == len(bench.org.journal.of("converted", "Lead"))


@pytest.mark.parametrize(
    "params", [{"contact_id": "003000000000001AAA"}, {"create_opportunity": False, "opportunity_name": "x"}]
)
async def test_a_conversion_that_contradicts_itself_is_refused(bench: Bench, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams):
        await bench.run("convert_lead", {"lead_id": "00Q000000000001AAA", **params})

    assert [] == bench.org.requests


@pytest.mark.parametrize(
    "content", [b"", b"<a/>", b"<a><Body/></a>", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"{}"]
)
def test_an_answer_that_is_not_soap_leaves_the_outcome_open(content: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        read(content)

    assert "uncertain" == caught.value.sent


async def test_an_org_without_a_converted_status_is_rejected(bench: Bench) -> None:
    for status in bench.org.store.records("LeadStatus"):
        status["IsConverted"] = False

    with pytest.raises(Rejected, match="converted_status"):
        await bench.run("convert_lead", {"lead_id": _lead(bench)})


async def test_a_refused_case_with_a_comment_is_definite(bench: Bench) -> None:
    params = {"case_number": "00001001", "status": "Nonsense", "comment": "Called back"}

    async with Kit(salesforce, credential=bench.document) as kit:
        ran = await kit.run("update_case", params)

    assert Code.REJECTED is ran.code
