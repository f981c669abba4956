"""Guests who come and go, who is told, and an invitation's answer."""

from typing import Any

import pytest

from connectors.sandbox.google import Fault
from connectors.sdk.errors import Rejected, Unavailable
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

VISIT: dict[str, Any] = {"summary": "Visit", "start": "2037-03-09T10:00", "duration_minutes": 30}


def told(desk: Desk) -> list[tuple[str, list[str]]]:
    return [(each.detail["what"], each.detail["to"]) for each in desk.google.journal.of("notified")]


async def visit(desk: Desk, *guests: str) -> str:
    created = await desk("create_event", **VISIT, attendees=list(guests), notify="none")
    return str(created["event_id"])


def responses(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [(guest["email"], guest["response"]) for guest in event["attendees"]]


async def test_added_guests_are_told_and_those_there_keep_their_answer(desk: Desk) -> None:
    event_id = await visit(desk, "ada@example.com")
    desk.google.store.calendars[OWNER].events[event_id]["attendees"][0]["responseStatus"] = "accepted"

    changed = await desk("add_attendees", event_id=event_id, attendees=["Ada@example.com", "bob@example.com"])

    assert [("ada@example.com", "accepted"), ("bob@example.com", "needsAction")] == responses(changed)
    assert [("updated", ["ada@example.com", "bob@example.com"])] == told(desk)


async def test_removed_guests_hear_of_it_by_default(desk: Desk) -> None:
    event_id = await visit(desk, "ada@example.com")

    await desk("remove_attendees", event_id=event_id, attendees=["ada@example.com"])

    assert [("uninvited", ["ada@example.com"])] == told(desk)


async def test_removed_guests_are_gone_and_unknown_ones_are_no_error(desk: Desk) -> None:
    event_id = await visit(desk, "ada@example.com", "bob@example.com")

    changed = await desk(
        "remove_attendees", event_id=event_id, attendees=["BOB@example.com", "eve@example.com"], notify="none"
    )

    assert [("ada@example.com", "needsAction")] == responses(changed)
    assert [] == told(desk)


@pytest.mark.parametrize("action", ["add_attendees", "remove_attendees"])
async def test_a_repeated_change_of_guests_tells_nobody_again(desk: Desk, action: str) -> None:
    event_id = await visit(desk, "ada@example.com", "bob@example.com")
    given: dict[str, Any] = {
        "attendees": ["eve@example.com" if action == "add_attendees" else "bob@example.com"]
    }
    desk.google.faults.add(Fault("events.patch", cut="after"))
    with pytest.raises(Unavailable):
        await desk(action, key="k", event_id=event_id, **given)

    await desk(action, key="k", attempt=2, event_id=event_id, **given)

    assert 1 == [what for what, _ in told(desk)].count("updated") == desk.calls("events.patch")


@pytest.mark.parametrize("response", ["accepted", "declined", "tentative"])
async def test_an_invitation_is_answered_for_this_account_alone(desk: Desk, response: str) -> None:
    event_id = await visit(desk, OWNER, "ada@example.com")

    changed = await desk("respond_to_invitation", event_id=event_id, response=response)

    assert [(OWNER, response), ("ada@example.com", "needsAction")] == responses(changed)


async def test_who_is_not_invited_cannot_answer(desk: Desk) -> None:
    event_id = await visit(desk, "ada@example.com")

    with pytest.raises(Rejected, match="not a guest"):
        await desk("respond_to_invitation", event_id=event_id, response="accepted")


async def test_a_declined_invitation_takes_no_time(desk: Desk) -> None:
    event_id = await visit(desk, OWNER)
    await desk("respond_to_invitation", event_id=event_id, response="declined")

    assert (await desk("book_appointment", **VISIT))["created"]


async def test_guests_are_told_by_default_of_all_that_changes(desk: Desk) -> None:
    booked = await desk("book_appointment", **VISIT, attendees=["ada@example.com"])
    event_id = booked["event_id"]
    await desk("reschedule_event", event_id=event_id, start="2037-03-09T15:00")
    await desk("update_event", event_id=event_id, location="Room 2")
    await desk("cancel_event", event_id=event_id)

    assert ["updated", "updated", "updated", "cancelled"] == [what for what, _ in told(desk)]


async def test_undo_tells_the_guests_who_were_invited(desk: Desk) -> None:
    result = await desk("create_event", key="k", **VISIT, attendees=["ada@example.com"])

    await desk.undo("create_event", key="k", result=result)

    assert ["invited", "cancelled"] == [what for what, _ in told(desk)]


async def test_guests_of_one_occurrence_or_of_all(desk: Desk) -> None:
    await desk("create_event", **VISIT, recurrence=["RRULE:FREQ=DAILY;COUNT=2"])
    first, second = (await desk("list_events"))["events"]

    await desk("add_attendees", event_id=second["event_id"], attendees=["bob@example.com"])
    await desk("add_attendees", event_id=first["event_id"], attendees=["ada@example.com"], scope="all")

    listed = (await desk("list_events"))["events"]
    assert [["ada@example.com"], ["bob@example.com"]] == [
        [guest["email"] for guest in each["attendees"]] for each in listed
    ]
