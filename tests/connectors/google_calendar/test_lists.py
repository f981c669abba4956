"""list_events and list_calendars."""

import pytest

from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    PermissionDenied,
    Unavailable,
)
from tests.support.calendar_events import VISIT
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration


async def test_events_are_listed_by_start_over_short_and_empty_pages(desk: Desk) -> None:
    desk.google.store.page_limit, desk.google.store.empty_first_page = 2, True
    for hour in (12, 10, 11, 14, 13):
        await desk("create_event", **VISIT | {"start": f"2037-03-09T{hour}:00"})

    all_of_them = await desk("list_events", range_start="2037-03-09T00:00", range_end="2037-03-09T24:00")
    three = await desk("list_events", limit=3)

    assert [10, 11, 12, 13, 14] == [int(each["start"][11:13]) for each in all_of_them["events"]]
    assert not all_of_them["truncated"]
    assert (3, True) == (len(three["events"]), three["truncated"])


async def test_events_are_found_by_words_and_by_private_properties(desk: Desk) -> None:
    await desk("create_event", **VISIT, private_properties={"patient": "17", "kind": "a"})
    await desk("create_event", **VISIT | {"summary": "Surgery"}, private_properties={"patient": "17"})

    by_word = await desk("list_events", query="surgery")
    by_property = await desk("list_events", private_properties={"patient": "17", "kind": "a"})

    assert ["Surgery"] == [each["summary"] for each in by_word["events"]]
    assert ["Visit"] == [each["summary"] for each in by_property["events"]]


async def test_a_listing_that_does_not_end_is_not_taken_for_the_whole(desk: Desk) -> None:
    page = b'{"items": [], "nextPageToken": "more"}'
    desk.google.faults.add(Fault("events.list", times=None, body=page))

    with pytest.raises(Unavailable, match="pages"):
        await desk("list_events")


async def test_calendars_are_listed_over_pages_with_their_roles(desk: Desk) -> None:
    desk.google.store.page_limit = 1
    room = desk.google.store.add_calendar("room@example.com", owner="boss@example.com", name="Room")
    room.acl[OWNER] = "reader"

    listed = await desk("list_calendars")

    assert {
        "calendars": [
            {
                "calendar_id": OWNER,
                "name": OWNER,
                "time_zone": "Europe/Istanbul",
                "access_role": "owner",
            },
            {"calendar_id": "room@example.com", "name": "Room", "time_zone": "UTC", "access_role": "reader"},
        ]
    } == listed


async def test_id_with_slashes_and_question_marks_reaches_its_own_calendar(desk: Desk) -> None:
    strange = "a/../b?alt=media#%2e"
    desk.google.store.add_calendar(strange, owner=OWNER)

    created = await desk("create_event", **VISIT, calendar_id=strange)

    assert created["calendar_id"] == strange
    assert 1 == len(desk.google.store.calendars[strange].events)
    assert [] == desk.events


async def test_who_may_only_read_is_told_so(desk: Desk) -> None:
    room = desk.google.store.add_calendar("room@example.com", owner="boss@example.com")
    room.acl[OWNER] = "reader"

    with pytest.raises(PermissionDenied, match="requiredAccessLevel"):
        await desk("create_event", **VISIT, calendar_id="room@example.com")
