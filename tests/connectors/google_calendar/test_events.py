"""Creating, changing, cancelling and listing events over real HTTP."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.google_calendar import google_calendar
from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.models import meet_status
from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    InvalidParams,
    NotFound,
    PermissionDenied,
    Sent,
    Unavailable,
)
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

VISIT: dict[str, Any] = {"summary": "Visit", "start": "2037-03-09T10:00", "duration_minutes": 30}


CHANGE: dict[str, Any] = {"summary": "New"}


def stored(desk: Desk, event_id: str) -> dict[str, Any]:
    return desk.google.store.calendars[OWNER].events[event_id]


def notices(desk: Desk) -> list[tuple[str, list[str]]]:
    return [(each.detail["what"], each.detail["to"]) for each in desk.google.journal.of("notified")]


# create_event


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


# get, update, reschedule, cancel


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


# list_events, list_calendars


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


# Tokens


async def test_a_credential_is_asked_about_at_the_provider(desk: Desk) -> None:
    await google_calendar.call_check(desk.context("check", None, 1))
    desk.document["refresh_token"] = "of nobody"

    with pytest.raises(CredentialInvalid):
        await google_calendar.call_check(desk.context("check", None, 1))


async def test_fifty_on_an_expired_token_make_one_token_call(desk: Desk) -> None:
    await desk("list_calendars")
    desk.google.authority.expire_tokens()
    before = desk.calls("token")
    desk.google.faults.add(Fault("token", delay_s=0.05))

    await asyncio.gather(*(desk("list_calendars") for _ in range(50)))

    assert 1 == desk.calls("token") - before


async def test_a_service_account_speaks_for_its_subject(desk: Desk) -> None:
    desk.document = desk.google.authority.service_account("bot@sandbox.example", subject=OWNER)

    created = await desk("create_event", **VISIT, attendees=["ada@example.com"])

    assert [created["event_id"]] == [event["id"] for event in desk.events]


async def test_a_service_account_without_delegation_is_told_what_is_missing(desk: Desk) -> None:
    document = desk.google.authority.service_account("bot@sandbox.example")
    desk.document = document | {"subject": OWNER}

    with pytest.raises(ConnectorError, match="delegate") as caught:
        await desk("list_calendars")

    assert "CREDENTIAL_INVALID" == caught.value.code


async def test_a_revoked_and_a_half_scoped_credential_are_told_apart(desk: Desk) -> None:
    desk.google.authority.revoke(OWNER)
    with pytest.raises(ConnectorError, match="authorize anew") as revoked:
        await desk("list_calendars")
    scopes = frozenset({"https://www.googleapis.com/auth/calendar.freebusy"})
    desk.document = desk.google.authority.authorized_user(OWNER, scopes=scopes)
    with pytest.raises(PermissionDenied, match="scopes"):
        await desk("create_event", **VISIT, time_zone="UTC")

    assert "CREDENTIAL_INVALID" == revoked.value.code
    free = await desk(
        "check_availability", start="2037-03-09T10:00:00Z", duration_minutes=30, time_zone="UTC"
    )
    assert free["available"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("token", status=503), "UNAVAILABLE"),
        (Fault("token", status=429), "RATE_LIMITED"),
        (Fault("token", status=400), "CREDENTIAL_INVALID"),
        (Fault("token", cut="before"), "UNAVAILABLE"),
        (Fault("token", body=b"<html>"), "UNAVAILABLE"),
        (Fault("token", body=b'{"access_token": ""}'), "UNAVAILABLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status or value.cut or value.body),
)
async def test_a_token_endpoint_that_fails_has_sent_nothing_of_the_job(
    desk: Desk, fault: Fault, code: str
) -> None:
    desk.google.faults.add(fault)

    with pytest.raises(ConnectorError) as caught:
        await desk("create_event", **VISIT, time_zone="UTC")

    assert (code, Sent.NO) == (caught.value.code, caught.value.sent)
    assert 0 == desk.calls("events.insert")
    assert (await desk("create_event", **VISIT, time_zone="UTC"))["created"] or code == "RATE_LIMITED"


async def test_no_secret_is_in_an_error_of_the_token_endpoint(desk: Desk) -> None:
    secrets = [desk.document["client_secret"], desk.document["refresh_token"]]
    desk.document = desk.document | {"client_secret": secrets[0] + "x"}

    with pytest.raises(ConnectorError) as caught:
        await desk("list_calendars")

    said = f"{caught.value!r} {caught.value.message} {caught.value.data} {caught.value.__context__!r}"
    assert not [secret for secret in secrets if secret in said]
