"""Leads on the wire: created once, found again, taken back."""

import pytest

from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

LEAD = {"last_name": "Hopper", "company": "Navy", "email": "grace@navy.example"}


async def test_lead_is_created(bench: Bench) -> None:
    answer = await bench.run("create_lead", LEAD)

    assert answer["created"] is True
    (lead,) = bench.org.store.records("Lead")
    assert answer["lead_id"] == lead["Id"]
    assert ("Hopper", "Navy") == (lead["LastName"], lead["Company"])


async def test_contact_is_found_by_email(bench: Bench) -> None:
    answer = await bench.run("get_contact_details", {"email": "ada@lovelace.example"})

    assert answer["found"] is True
    assert answer["contact"]["Account"]["Name"] == "Lovelace Clinic"
