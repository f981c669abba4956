"""get_event, update_event, reschedule_event, cancel_event."""

from typing import Any

import pytest

from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    Conflict,
    InvalidParams,
    NotFound,
    Unavailable,
)
from tests.support.calendar_events import CHANGE, VISIT, notices, stored
from tests.support.desk import Desk

pytestmark = pytest.mark.integration


async def test_an_unknown_event_and_calendar_are_not_found(desk: Desk) -> None:
    told = await desk.at_once(
        desk("get_event", event_id="unknown"),
        desk("get_event", event_id="unknown", calendar_id="nobody@example.com"),
        desk("cancel_event", event_id="unknown"),
        desk("reschedule_event", event_id="unknown", start="2037-03-09T11:00"),
    )

    assert [NotFound] * 4 == [type(each) for each in told]


async def test_an_update_changes_what_is_given_and_nothing_else(desk: Desk) -> None:
    event_id = (
        await desk(
            "create_event",
            **VISIT,
            description="old",
            attendees=["ada@example.com", "bob@example.com"],
            private_properties={"a": "1"},
            meet=True,
        )
    )["event_id"]
    stored(desk, event_id)["attendees"][0]["responseStatus"] = "accepted"
    before = await desk("get_event", event_id=event_id)

    after = await desk(
        "update_event",
        event_id=event_id,
        summary="New",
        description=None,
        attendees=["ada@example.com", "eve@example.com"],
        private_properties={"b": "2"},
    )

    assert ("New", None) == (after["summary"], after["description"])
    assert [("ada@example.com", "accepted"), ("eve@example.com", "needsAction")] == [
        (guest["email"], guest["response"]) for guest in after["attendees"]
    ]
    assert {"a": "1", "b": "2"} == after["private_properties"]
    assert before["meet_link"] == after["meet_link"]
    assert before["start"] == after["start"]
    assert before["etag"] != after["etag"]


async def test_a_meet_is_added_and_taken_away_by_an_update(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]

    added = await desk("update_event", event_id=event_id, meet=True)
    gone = await desk("update_event", event_id=event_id, meet=False)

    assert added["meet_link"]
    assert gone["meet_link"] is None


async def test_a_rescheduled_event_keeps_its_length_guests_and_meet(desk: Desk) -> None:
    event_id = (
        await desk(
            "create_event", **VISIT, attendees=["ada@example.com"], notify="none", meet=True, description="d"
        )
    )["event_id"]
    before = await desk("get_event", event_id=event_id)

    moved = await desk("reschedule_event", event_id=event_id, start="2037-03-10T15:00", notify="all")

    kept = ("attendees", "meet_link", "description", "summary")
    assert ("2037-03-10T15:00:00+03:00", "2037-03-10T15:30:00+03:00") == (moved["start"], moved["end"])
    assert [before[name] for name in kept] == [moved[name] for name in kept]
    assert [("updated", ["ada@example.com"])] == notices(desk)


async def test_a_timed_event_becomes_all_day_and_timed_again(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]

    days = await desk("reschedule_event", event_id=event_id, start="2037-03-10", end="2037-03-11")
    with pytest.raises(InvalidParams, match="duration_minutes"):
        await desk("reschedule_event", event_id=event_id, start="2037-03-10T09:00")
    timed = await desk(
        "reschedule_event", event_id=event_id, start="2037-03-10T09:00", end="2037-03-10T10:00"
    )

    assert (True, "2037-03-11") == (days["all_day"], days["end"])
    assert (False, "2037-03-10T10:00:00+03:00") == (timed["all_day"], timed["end"])


@pytest.mark.parametrize(
    "event",
    [
        VISIT,
        {"summary": "Off", "start": "2037-03-09", "end": "2037-03-11"},
        {**VISIT, "recurrence": ["RRULE:FREQ=DAILY;UNTIL=20370320", "EXDATE:20370310", "RDATE:20370401"]},
        {"summary": "Fair", "start": "2037-03-09", "recurrence": ["RRULE:FREQ=DAILY;COUNT=3"]},
    ],
    ids=lambda event: f"{event['start']} {len(event.get('recurrence', ()))}",
)
async def test_what_is_answered_is_accepted_and_changes_nothing(desk: Desk, event: dict[str, Any]) -> None:
    more: dict[str, Any] = {
        "attendees": ["ada@example.com"],
        "reminders": [{"method": "popup", "minutes": 10}],
        "private_properties": {"patient": "17"},
        "color_id": "5",
        "visibility": "private",
    }
    made = await desk("create_event", **event, **more, notify="none")
    told = await desk("get_event", event_id=made["event_id"])
    same = {name: told[name] for name in ("start", "end", "summary", "reminders", "private_properties")}
    same |= {"attendees": [guest["email"] for guest in told["attendees"]], "color_id": told["color_id"]}
    if told["recurrence"]:
        same |= {"recurrence": told["recurrence"], "scope": "all"}

    again = await desk("update_event", event_id=made["event_id"], **same)

    assert told == again
    assert 0 == desk.calls("events.patch")


async def test_moved_event_keeps_the_zone_of_its_end(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]
    stored(desk, event_id)["end"]["timeZone"] = "America/New_York"

    await desk("reschedule_event", event_id=event_id, start="2037-03-10T15:00")

    event = stored(desk, event_id)
    assert ("Europe/Istanbul", "America/New_York") == (event["start"]["timeZone"], event["end"]["timeZone"])


@pytest.mark.parametrize("line", ["EXDATE:20370310", "EXDATE;VALUE=DATE:20370310"])
async def test_a_bare_day_excludes_its_occurrence_of_a_timed_series(desk: Desk, line: str) -> None:
    await desk("create_event", **VISIT, recurrence=["RRULE:FREQ=DAILY;COUNT=3", line])

    listed = await desk("list_events", range_start="2037-03-01T00:00Z")

    assert ["2037-03-09", "2037-03-11"] == [each["start"][:10] for each in listed["events"]]


async def test_an_event_is_not_in_its_own_way_and_others_are(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]
    await desk("create_event", **VISIT | {"start": "2037-03-09T11:00"})

    moved = await desk("reschedule_event", event_id=event_id, start="2037-03-09T10:15", conflict_check=True)
    with pytest.raises(Conflict) as caught:
        await desk("reschedule_event", event_id=event_id, start="2037-03-09T10:45", conflict_check=True)

    assert "2037-03-09T10:15:00+03:00" == moved["start"]
    assert "taken" == (caught.value.data or {})["reason"]


async def test_a_stale_etag_is_read_again_once_and_then_a_conflict(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]
    desk.google.faults.add(Fault("events.patch", status=412, reason="conditionNotMet"))
    moved = await desk("reschedule_event", event_id=event_id, start="2037-03-10T15:00")
    desk.google.faults.add(Fault("events.patch", status=412, reason="conditionNotMet", times=3))

    with pytest.raises(Conflict):
        await desk("reschedule_event", event_id=event_id, start="2037-03-11T15:00")

    assert "2037-03-10T15:00:00+03:00" == moved["start"]
    assert 2 + 3 == desk.calls("events.patch") - 2  # less those that take the holds back


async def test_cancelled_event_cannot_change_and_cancels_twice_with_success(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT, attendees=["ada@example.com"], notify="none"))["event_id"]

    first = await desk("cancel_event", event_id=event_id, notify="all")
    second = await desk("cancel_event", event_id=event_id, notify="all")
    with pytest.raises(Conflict, match="cancelled"):
        await desk("update_event", event_id=event_id, summary="New")

    assert {"cancelled"} == {first["status"], second["status"]}
    assert "cancelled" == (await desk("get_event", event_id=event_id))["status"]
    assert [("cancelled", ["ada@example.com"])] == notices(desk)


async def test_a_cut_cancel_and_a_cut_change_are_repeated_with_one_effect(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT))["event_id"]
    for action, operation, params in (
        ("update_event", "events.patch", CHANGE),
        ("cancel_event", "events.delete", {}),
    ):
        desk.google.faults.add(Fault(operation, cut="after"))
        with pytest.raises(Unavailable):
            await desk(action, event_id=event_id, **params)

        await desk(action, event_id=event_id, attempt=2, **params)

    assert [] == desk.events
    assert 1 == len(desk.google.journal.of("cancelled"))


async def test_a_change_that_was_made_before_tells_nobody_again(desk: Desk) -> None:
    event_id = (await desk("create_event", **VISIT, attendees=["ada@example.com"], notify="none"))["event_id"]
    changes: list[tuple[str, dict[str, Any]]] = [
        ("reschedule_event", {"start": "2037-03-10T15:00"}),
        ("update_event", {**CHANGE, "private_properties": {"a": "1"}, "attendees": ["ada@example.com"]}),
    ]
    for action, params in changes:
        desk.google.faults.add(Fault("events.patch", cut="after"))
        with pytest.raises(Unavailable):
            await desk(action, event_id=event_id, notify="all", **params)

        await desk(action, event_id=event_id, notify="all", attempt=2, **params)

    found = await desk("get_event", event_id=event_id)
    assert ("New", {"a": "1"}) == (found["summary"], found["private_properties"])
    assert 2 == len(notices(desk)) == desk.calls("events.patch")


async def test_one_occurrence_is_cancelled_and_the_series_goes_on(desk: Desk) -> None:
    await desk("create_event", **VISIT, recurrence=["RRULE:FREQ=DAILY;COUNT=3"])
    bounds: dict[str, Any] = {"range_start": "2037-03-01T00:00:00Z", "range_end": "2037-04-01T00:00:00Z"}
    middle = (await desk("list_events", **bounds))["events"][1]

    await desk("cancel_event", event_id=middle["event_id"])

    left = (await desk("list_events", **bounds))["events"]
    assert ["2037-03-09T10:00:00+03:00", "2037-03-11T10:00:00+03:00"] == [each["start"] for each in left]
