"""Creating, changing, cancelling and listing events over real HTTP."""

from datetime import UTC, datetime

import pytest

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.models import meet_status
from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    Sent,
)
from tests.support.calendar_events import VISIT, notices, stored
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration


async def test_an_event_is_created_with_all_that_was_asked_for(desk: Desk) -> None:
    created = await desk(
        "create_event",
        **VISIT,
        description="First visit",
        location="Room 1",
        attendees=["ada@example.com", "ada@example.com"],
        notify="all",
        meet=True,
        reminders=[{"method": "popup", "minutes": 10}],
        private_properties={"patient": "17"},
        transparency="opaque",
        visibility="private",
        color_id="5",
    )

    found = await desk("get_event", event_id=created["event_id"])
    assert {
        "status": "confirmed",
        "start": "2037-03-09T10:00:00+03:00",
        "end": "2037-03-09T10:30:00+03:00",
        "calendar_id": "primary",
        "created": True,
    }.items() <= created.items()
    assert created["html_link"] and created["etag"] and created["meet_link"].startswith("https://meet.")
    assert {
        "summary": "Visit",
        "description": "First visit",
        "location": "Room 1",
        "attendees": [{"email": "ada@example.com", "response": "needsAction"}],
        "reminders": [{"method": "popup", "minutes": 10}],
        "private_properties": {"patient": "17"},
        "visibility": "private",
        "color_id": "5",
        "all_day": False,
        "time_zone": "Europe/Istanbul",
        "meet_link": created["meet_link"],
        "created": False,
    }.items() <= found.items()
    assert [("invited", ["ada@example.com"])] == notices(desk)


async def test_external_guests_alone_are_told_where_asked(desk: Desk) -> None:
    desk.google.store.add_account("colleague@clinic.example")
    guests = ["colleague@clinic.example", "ada@example.com"]

    await desk("create_event", **VISIT, attendees=guests, notify="external_only")
    await desk("create_event", **VISIT, attendees=guests, notify="none")

    assert [("invited", ["ada@example.com"])] == notices(desk)


async def test_whole_days_end_exclusively_at_google_and_inclusively_for_us(desk: Desk) -> None:
    one = await desk("create_event", summary="Off", start="2037-03-08")
    three = await desk("create_event", summary="Off", start="2037-03-08", end="2037-03-10")

    assert ("2037-03-08", "2037-03-08") == (one["start"], one["end"])
    assert ("2037-03-08", "2037-03-10") == (three["start"], three["end"])
    assert {"date": "2037-03-11"} == stored(desk, three["event_id"])["end"]


@pytest.mark.parametrize(
    ("start", "zone", "expected"),
    [
        ("2037-03-08T02:30", "America/New_York", "2037-03-08T07:30:00+00:00"),  # the gap: 03:30
        ("2037-11-01T01:30", "America/New_York", "2037-11-01T05:30:00+00:00"),  # the first of two
        ("2037-11-01T01:30:00-05:00", "America/New_York", "2037-11-01T06:30:00+00:00"),
        ("2037-10-04T02:15", "Australia/Lord_Howe", "2037-10-03T15:45:00+00:00"),  # half an hour on
        ("2037-03-08T24:00", "Europe/Istanbul", "2037-03-08T21:00:00+00:00"),
        ("2037-03-09T10:00", None, "2037-03-09T07:00:00+00:00"),
        ("2037-03-09T10:00:00Z", None, "2037-03-09T10:00:00+00:00"),
    ],
)
async def test_wall_times_become_the_instants_they_mean(
    desk: Desk, start: str, zone: str | None, expected: str
) -> None:
    params = VISIT | {"start": start} | ({} if zone is None else {"time_zone": zone})

    created = await desk("create_event", **params)

    assert expected == datetime.fromisoformat(created["start"]).astimezone(UTC).isoformat()


async def test_elapsed_time_counts_across_a_change_of_clocks(desk: Desk) -> None:
    params = VISIT | {"start": "2037-03-08T01:30", "duration_minutes": 60, "time_zone": "America/New_York"}

    created = await desk("create_event", **params)

    end = stored(desk, created["event_id"])["end"]["dateTime"]
    assert "2037-03-08T10:30:00+03:00" == end  # 03:30 in New York


async def test_the_same_key_creates_once_and_tells_the_event_again(desk: Desk) -> None:
    first = await desk("create_event", key="k", **VISIT)

    again = await desk("create_event", key="k", **VISIT)

    assert (True, False) == (first["created"], again["created"])
    assert first["event_id"] == again["event_id"]
    assert 1 == len(desk.events)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("events.insert", cut="before"),
        Fault("events.insert", cut="after"),
        Fault("events.insert", truncate=20),
        Fault("events.insert", status=502, does_work=True),
        Fault("events.insert", body=b"<html>"),
        Fault("events.insert", body=b"[]"),
    ],
    ids=lambda fault: fault.cut or str(fault.truncate or fault.status or fault.body),
)
async def test_an_insert_whose_answer_is_lost_is_repeated_with_one_event(desk: Desk, fault: Fault) -> None:
    desk.google.faults.add(fault)
    with pytest.raises(ConnectorError) as caught:
        await desk("create_event", key="k", **VISIT)

    again = await desk("create_event", key="k", attempt=2, **VISIT)

    assert Sent.UNCERTAIN is caught.value.sent
    assert caught.value.code.facts.retryable
    assert [again["event_id"]] == [event["id"] for event in desk.events]


async def test_another_tenant_calendar_or_key_is_another_event(desk: Desk) -> None:
    desk.google.store.add_calendar("room@example.com", owner=OWNER)
    ids = {(await desk("create_event", key="k", **VISIT))["event_id"]}
    ids.add((await desk("create_event", key="other", **VISIT))["event_id"])
    ids.add((await desk("create_event", key="k", **VISIT, calendar_id="room@example.com"))["event_id"])
    desk.tenant = "beta"
    ids.add((await desk("create_event", key="k", **VISIT))["event_id"])

    assert 4 == len(ids)


async def test_foreign_event_under_our_id_and_our_cancelled_one_differ(desk: Desk) -> None:
    made = await desk("create_event", key="a", **VISIT)
    stored(desk, made["event_id"])["extendedProperties"]["private"]["connectors_key"] = "someone else's"
    gone = await desk("create_event", key="b", **VISIT)
    await desk("cancel_event", event_id=gone["event_id"])

    told = await desk.at_once(desk("create_event", key="a", **VISIT), desk("create_event", key="b", **VISIT))

    assert [Conflict, Conflict] == [type(each) for each in told]
    assert ["foreign", "cancelled"] == [each.data["reason"] for each in told]


async def test_a_conflict_check_refuses_a_taken_time_and_allows_a_repeat(desk: Desk) -> None:
    await desk("create_event", key="a", **VISIT, conflict_check=True)

    with pytest.raises(Conflict) as caught:
        await desk("create_event", key="b", **VISIT, conflict_check=True)
    again = await desk("create_event", key="a", **VISIT, conflict_check=True)
    unchecked = await desk("create_event", key="b", **VISIT)

    assert (caught.value.data or {})["alternatives"]
    assert not again["created"]
    assert unchecked["created"]


async def test_a_series_keeps_its_wall_time_and_ends_in_utc(desk: Desk) -> None:
    created = await desk(
        "create_event",
        summary="Class",
        start="2037-03-06T09:00",
        duration_minutes=60,
        time_zone="America/New_York",
        recurrence=["RRULE:FREQ=DAILY;UNTIL=20370309", "EXDATE;TZID=America/New_York:20370307T090000"],
    )

    listed = await desk(
        "list_events",
        range_start="2037-03-01T00:00:00Z",
        range_end="2037-04-01T00:00:00Z",
        time_zone="America/New_York",
    )
    assert "RRULE:FREQ=DAILY;UNTIL=20370310T035959Z" in stored(desk, created["event_id"])["recurrence"]
    assert ["2037-03-06T09:00:00-05:00", "2037-03-08T09:00:00-04:00", "2037-03-09T09:00:00-04:00"] == [
        each["start"] for each in listed["events"]
    ]


async def test_a_series_of_whole_days_ends_on_a_date(desk: Desk) -> None:
    created = await desk(
        "create_event", summary="Fair", start="2037-03-06", recurrence=["RRULE:FREQ=DAILY;UNTIL=20370308"]
    )

    assert ["RRULE:FREQ=DAILY;UNTIL=20370308"] == stored(desk, created["event_id"])["recurrence"]


async def test_a_meet_that_is_pending_at_first_is_waited_for(desk: Desk) -> None:
    desk.google.store.meet_pending_reads = 1

    created = await desk("create_event", **VISIT, meet=True)

    assert created["meet_link"]


async def test_a_meet_that_stays_pending_is_not_waited_for_longer(desk: Desk) -> None:
    desk.google.store.meet_pending_reads = 50
    api = CalendarApi(desk.context("create_event", None, 1))
    made = await desk("create_event", **VISIT)
    meet = {"conferenceData": {"createRequest": {"requestId": "r"}}}
    event = await api.send(
        events().patch(calendarId=OWNER, eventId=made["event_id"], conferenceDataVersion=1, body=meet)
    )

    waited = await with_conference(api, OWNER, event, looks_s=(0.001, 0.001))

    assert "pending" == meet_status(waited)
    assert 2 == desk.calls("events.get")


async def test_a_meet_that_failed_is_said_and_can_be_asked_for_again(desk: Desk) -> None:
    desk.google.store.meet_fails = True
    made = await desk("create_event", **VISIT, meet=True)
    desk.google.store.meet_fails = False

    again = await desk("update_event", event_id=made["event_id"], meet=True)

    assert (None, "failure") == (made["meet_link"], made["meet_status"])
    assert (True, "success") == (again["meet_link"] is not None, again["meet_status"])


async def test_undo_cancels_the_event_by_its_key_alone_and_twice(desk: Desk) -> None:
    await desk("create_event", key="k", **VISIT)

    await desk.undo("create_event", key="k")
    await desk.undo("create_event", key="k")
    await desk.undo("create_event", key="never")

    assert [] == desk.events
