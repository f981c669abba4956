"""Booking a time: one of many gets it, whatever is cut, killed or done by others meanwhile."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from connectors.google_calendar.holds import MAX_HOLDS
from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    InvalidParams,
    NotFound,
    PermissionDenied,
    Sent,
    Unavailable,
)
from connectors.sdk.http.client import HttpPool
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

DAY = (datetime.now(UTC) + timedelta(days=30)).date()
TEN, HALF_PAST, ELEVEN = f"{DAY}T10:00", f"{DAY}T10:30", f"{DAY}T11:00"
VISIT: dict[str, Any] = {
    "summary": "Visit",
    "start": TEN,
    "duration_minutes": 30,
    "time_zone": "Europe/Istanbul",
}


def effects(desk: Desk, kind: str) -> int:
    return len(desk.google.journal.of(kind))


async def test_a_free_time_is_booked_and_guests_are_invited_once(desk: Desk) -> None:
    booked = await desk(
        "book_appointment", **VISIT, attendees=["ada@example.com"], notify="all", meet=True, location="Room 1"
    )

    (event,) = desk.events
    assert (True, "confirmed") == (booked["created"], booked["status"])
    assert (f"{TEN}:00+03:00", f"{HALF_PAST}:00+03:00") == (booked["start"], booked["end"])
    assert event["hangoutLink"] == booked["meet_link"]
    assert ("confirmed", "Room 1") == (event["status"], event["location"])
    assert ["ada@example.com"] == [guest["email"] for guest in event["attendees"]]
    assert 1 == effects(desk, "notified")


async def test_a_taken_time_is_a_conflict_with_the_nearest_free_times(desk: Desk) -> None:
    await desk("create_event", **VISIT)

    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", **VISIT)

    data = caught.value.data or {}
    assert [{"start": f"{TEN}:00+03:00", "end": f"{HALF_PAST}:00+03:00"}] == data["busy"]
    assert 5 == len(data["alternatives"])
    assert {"start": f"{HALF_PAST}:00+03:00", "end": f"{ELEVEN}:00+03:00"} in data["alternatives"]
    assert 1 == effects(desk, "created")


async def test_a_time_that_only_touches_is_free(desk: Desk) -> None:
    await desk("book_appointment", **VISIT)

    after = await desk("book_appointment", **VISIT | {"start": HALF_PAST})

    assert after["created"]
    assert 2 == len(desk.events)


async def test_what_is_transparent_declined_or_cancelled_takes_no_time(desk: Desk) -> None:
    await desk("create_event", **VISIT, transparency="transparent")
    gone = await desk("create_event", **VISIT)
    await desk("cancel_event", event_id=gone["event_id"])
    declined = await desk("create_event", **VISIT, attendees=[OWNER])
    guests = desk.google.store.calendars[OWNER].events[declined["event_id"]]["attendees"]
    guests[0] |= {"self": True, "responseStatus": "declined"}

    assert (await desk("book_appointment", **VISIT))["created"]


async def test_an_occurrence_and_an_all_day_event_take_time(desk: Desk) -> None:
    await desk(
        "create_event",
        summary="Round",
        start=f"{DAY - timedelta(days=7)}T10:15",
        duration_minutes=30,
        recurrence=["RRULE:FREQ=WEEKLY;COUNT=3"],
    )
    await desk("create_event", summary="Holiday", start=f"{DAY + timedelta(days=1)}")

    for start in (TEN, f"{DAY + timedelta(days=1)}T15:00"):
        with pytest.raises(Conflict):
            await desk("book_appointment", **VISIT | {"start": start})


async def test_whole_days_are_booked_and_conflict_too(desk: Desk) -> None:
    booked = await desk("book_appointment", summary="Off", start=f"{DAY}", end=f"{DAY + timedelta(days=1)}")

    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", summary="Off", start=f"{DAY + timedelta(days=1)}")

    assert (f"{DAY}", f"{DAY + timedelta(days=1)}") == (booked["start"], booked["end"])
    offered = [each["start"] for each in (caught.value.data or {})["alternatives"]]
    assert f"{DAY + timedelta(days=2)}" in offered
    assert not {f"{DAY}", f"{DAY + timedelta(days=1)}"} & set(offered)


async def test_calendar_in_an_unknown_zone_is_booked_in_the_jobs_zone(desk: Desk) -> None:
    for _ in range(3):
        desk.google.faults.add(Fault("events.list", body=b'{"timeZone": "Mars/Phobos", "items": []}'))

    with pytest.raises(InvalidParams, match="time_zone"):
        await desk("book_appointment", **{name: VISIT[name] for name in VISIT if name != "time_zone"})
    booked = await desk("book_appointment", **VISIT)

    assert booked["created"]


async def test_the_same_key_books_once_and_another_calendar_is_another_booking(desk: Desk) -> None:
    desk.google.store.add_calendar("room@example.com", owner=OWNER)
    first = await desk("book_appointment", key="k", **VISIT)

    again = await desk("book_appointment", key="k", **VISIT)
    other = await desk("book_appointment", key="k", **VISIT, calendar_id="room@example.com")

    assert (first["event_id"], False) == (again["event_id"], again["created"])
    assert first["event_id"] != other["event_id"]
    assert 1 == len(desk.events)


async def test_of_fifty_who_book_at_once_exactly_one_gets_the_time(desk: Desk) -> None:
    found = await desk.at_once(
        *(desk("book_appointment", **VISIT, attendees=["a@example.com"], notify="all") for _ in range(50))
    )

    won = [each for each in found if isinstance(each, dict)]
    lost = [each for each in found if isinstance(each, Conflict)]
    assert (1, 49) == (len(won), len(lost))
    assert [won[0]["event_id"]] == [event["id"] for event in desk.events]
    assert all((each.data or {})["alternatives"] for each in lost)
    assert 1 == effects(desk, "notified")


async def test_of_fifty_who_overlap_none_overlaps_another_afterwards(desk: Desk) -> None:
    times = [f"{DAY}T{10 + number * 10 // 60}:{number * 10 % 60:02}" for number in range(10)]

    found = await desk.at_once(
        *(desk("book_appointment", **VISIT | {"start": times[number % 10]}) for number in range(50))
    )

    won = sorted((each["start"], each["end"]) for each in found if isinstance(each, dict))
    assert won
    assert all(one[1] <= other[0] for one, other in pairwise(won))
    assert len(won) == len(desk.events)
    assert {dict, Conflict} == {type(each) for each in found}


@pytest.mark.parametrize("operation", ["events.insert", "events.patch"])
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_cut_call_is_repeated_with_one_event(desk: Desk, operation: str, cut: Any) -> None:
    desk.google.faults.add(Fault(operation, cut=cut))
    with pytest.raises(ConnectorError) as caught:
        await desk("book_appointment", key="k", **VISIT)

    booked = await desk("book_appointment", key="k", attempt=2, **VISIT)

    assert Sent.UNCERTAIN is caught.value.sent
    assert [booked["event_id"]] == [event["id"] for event in desk.events]
    assert "confirmed" == desk.events[0]["status"]


async def killed_after_hold(desk: Desk, key: str) -> None:
    """Let a job's worker die when its hold is there, and before it looks again."""
    desk.google.faults.add(Fault("events.list", skip=1, until=asyncio.Event()))
    working = asyncio.create_task(desk("book_appointment", key=key, **VISIT))
    while not desk.events:
        await asyncio.sleep(0.005)
    while desk.calls("events.list") < 2:
        await asyncio.sleep(0.005)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_a_hold_whose_worker_was_killed_goes_on_where_it_stood(desk: Desk) -> None:
    await killed_after_hold(desk, "k")

    with pytest.raises(Conflict):
        await desk("book_appointment", key="other", **VISIT)
    booked = await desk("book_appointment", key="k", attempt=2, **VISIT)

    assert "confirmed" == booked["status"]
    assert [booked["event_id"]] == [event["id"] for event in desk.events]


async def test_a_hold_left_behind_for_long_is_removed_by_who_books_the_time(desk: Desk) -> None:
    await killed_after_hold(desk, "k")
    (left,) = desk.events
    left["created"] = "2026-01-01T00:00:00.000Z"

    booked = await desk("book_appointment", key="other", **VISIT)
    with pytest.raises(Conflict):
        await desk("book_appointment", key="k", attempt=2, **VISIT)

    assert [booked["event_id"]] == [event["id"] for event in desk.events]


async def test_a_better_ranked_hold_seen_late_leaves_one_winner(desk: Desk) -> None:
    """Two have both created, and each has looked before the other decides; only one is confirmed."""
    together = asyncio.Event()
    desk.google.faults.add(Fault("events.patch", until=together, times=2))
    first = asyncio.create_task(desk("book_appointment", key="a", **VISIT))
    while desk.calls("events.patch") == 0:
        await asyncio.sleep(0.005)
    # The first stands right before its confirmation. The second holds the time behind its back.
    rival = desk.events[0]["id"]
    desk.google.store.calendars[OWNER].events[rival]["created"] = "2999-01-01T00:00:00.000Z"
    desk.google.faults.add(Fault("events.list", body=b'{"timeZone": "Europe/Istanbul", "items": []}'))
    second = asyncio.create_task(desk("book_appointment", key="b", **VISIT))
    while desk.calls("events.patch") == 1 and not second.done():
        await asyncio.sleep(0.005)
    together.set()
    found = await asyncio.gather(first, second, return_exceptions=True)

    assert 1 == len([each for each in found if isinstance(each, dict)])
    assert 1 == len([each for each in found if isinstance(each, Conflict)])
    assert 1 == len(desk.events)


async def test_who_creates_an_event_by_hand_at_the_same_time_goes_before(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.google.faults.add(Fault("events.list", skip=1, until=gate))
    working = asyncio.create_task(desk("book_appointment", **VISIT))
    while not desk.events:
        await asyncio.sleep(0.005)
    by_hand = await desk("create_event", **VISIT)
    gate.set()

    with pytest.raises(Conflict):
        await working
    assert [by_hand["event_id"]] == [event["id"] for event in desk.events]


async def test_a_booking_lost_before_may_be_tried_again_under_its_key(desk: Desk) -> None:
    gate = asyncio.Event()
    desk.google.faults.add(Fault("events.list", skip=1, until=gate))
    working = asyncio.create_task(desk("book_appointment", key="k", **VISIT))
    while not desk.events:
        await asyncio.sleep(0.005)
    by_hand = await desk("create_event", **VISIT)
    gate.set()
    await asyncio.gather(working, return_exceptions=True)
    await desk("cancel_event", event_id=by_hand["event_id"])

    booked = await desk("book_appointment", key="k", **VISIT)
    again = await desk("book_appointment", key="k", **VISIT)

    assert (True, False) == (booked["created"], again["created"])
    assert [booked["event_id"]] == [event["id"] for event in desk.events]


async def test_a_failure_after_the_hold_leaves_nothing_behind(desk: Desk) -> None:
    desk.google.faults.add(Fault("events.list", skip=1, status=503))

    with pytest.raises(Unavailable):
        await desk("book_appointment", **VISIT)

    assert [] == desk.events


async def test_a_service_account_that_may_not_invite_leaves_nothing_behind(desk: Desk) -> None:
    desk.google.store.calendars[OWNER].acl["bot@sandbox.example"] = "writer"
    desk.document = desk.google.authority.service_account("bot@sandbox.example")

    with pytest.raises(PermissionDenied, match="subject"):
        await desk("book_appointment", **VISIT, calendar_id=OWNER, attendees=["a@example.com"])

    assert [] == desk.events


async def test_a_booking_that_was_cancelled_is_not_made_again_under_its_key(desk: Desk) -> None:
    booked = await desk("book_appointment", key="k", **VISIT)
    await desk("cancel_event", event_id=booked["event_id"])

    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", key="k", **VISIT)

    assert "cancelled" == (caught.value.data or {})["reason"]


async def test_undo_cancels_what_was_booked_with_and_without_its_result(desk: Desk) -> None:
    result = await desk("book_appointment", key="a", **VISIT)
    await desk("book_appointment", key="b", **VISIT | {"start": HALF_PAST})

    await desk.undo("book_appointment", key="a", result=result)
    await desk.undo("book_appointment", key="b", **VISIT)
    await desk.undo("book_appointment", key="b")
    await desk.undo("book_appointment", key="never")

    assert [] == desk.events
    assert 2 == effects(desk, "cancelled")


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_goes_wrong_meanwhile_no_two_appointments_overlap(
    desk: Desk, patient_pool: HttpPool, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Calls are cut, refused, delayed and abandoned at random; each job is tried until it is answered."""
    chance = Random(seed)

    def spoil(operation: str) -> Fault | None:
        luck = chance.random() if operation.startswith("events.") else 1.0
        if luck < 0.04:
            return Fault(cut="before")
        if luck < 0.08:
            return Fault(cut="after")
        if luck < 0.12:
            return Fault(status=503, does_work=luck < 0.1)
        return Fault(delay_s=chance.random() * 0.01, does_work=luck < 0.5)

    monkeypatch.setattr(desk.google.faults, "take", spoil)
    desk = replace(desk, pool=patient_pool)

    async def book(number: int) -> Any:
        start, failures = f"{DAY}T10:{number % 4 * 10:02}", []
        for attempt in range(1, 500):
            trying = asyncio.create_task(
                desk("book_appointment", key=str(number), attempt=attempt, **VISIT | {"start": start})
            )
            if chance.random() < 0.2:  # its worker dies
                await asyncio.sleep(chance.random() * 0.05)
                trying.cancel()
            try:
                return await trying
            except Conflict:
                return None
            except (ConnectorError, asyncio.CancelledError) as failure:
                failures.append(repr(failure))
        raise AssertionError(f"never answered: {failures[-5:]}")

    answers = await asyncio.gather(*(book(number) for number in range(24)))

    told = sorted(answer["event_id"] for answer in answers if answer is not None)
    booked = sorted(event["id"] for event in desk.events if event["status"] == "confirmed")
    times = sorted((event["start"]["dateTime"], event["end"]["dateTime"]) for event in desk.events)
    assert told == booked
    assert told
    assert all(one[1] <= other[0] for one, other in pairwise(times))


async def test_more_holds_than_a_key_may_lay_are_refused(desk: Desk) -> None:
    for _ in range(MAX_HOLDS):
        desk.google.faults.add(Fault("events.list", skip=1, status=503))
        with pytest.raises(Unavailable):
            await desk("book_appointment", key="k", **VISIT)

    with pytest.raises(Conflict, match="new key"):
        await desk("book_appointment", key="k", **VISIT)


async def test_an_event_of_no_length_is_in_nobodys_way(desk: Desk) -> None:
    made = await desk("create_event", **VISIT | {"start": f"{DAY}T10:15"})
    event = desk.google.store.calendars[OWNER].events[made["event_id"]]
    event["start"]["dateTime"] = event["start"]["dateTime"].replace(":00+", ":00.500+")
    event["end"] = event["start"]

    checked = await desk("check_availability", start=TEN, duration_minutes=30, time_zone="Europe/Istanbul")
    booked = await desk("book_appointment", **VISIT)

    assert checked["available"]
    assert booked["created"]


@pytest.mark.parametrize("action", ["book_appointment", "create_event"])
async def test_the_past_is_refused_unless_allowed(desk: Desk, action: str) -> None:
    past = VISIT | {"start": "2024-08-16T10:00"}

    with pytest.raises(InvalidParams, match="start"):
        await desk(action, **past)
    made = await desk(action, **past, allow_past=True)

    assert made["created"]


async def test_an_attempt_that_is_repeated_after_its_start_finds_its_event(desk: Desk) -> None:
    past = VISIT | {"start": "2024-08-16T10:00"}
    made = await desk("create_event", key="k", **past, allow_past=True)

    again = await desk("create_event", key="k", attempt=2, **past)

    assert (made["event_id"], False) == (again["event_id"], again["created"])


async def test_a_day_that_has_begun_may_be_booked_and_yesterday_not(desk: Desk) -> None:
    today = datetime.now(UTC).date()

    booked = await desk("book_appointment", summary="Off", start=f"{today}")
    with pytest.raises(InvalidParams, match="start"):
        await desk("book_appointment", summary="Off", start=f"{today - timedelta(days=2)}")

    assert booked["created"]


@pytest.mark.parametrize(
    "rules",
    [
        {
            "working_hours": {
                day: [["12:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
            }
        },
        {"closed_dates": [f"{DAY}"]},
        {"overrides": {f"{DAY}": [["10:05", "12:00"]]}},
        {"step_minutes": 45},
        {"min_notice_minutes": 60 * 24 * 40},
    ],
    ids=lambda rules: next(iter(rules)),
)
async def test_a_time_outside_of_the_rules_is_refused_with_others(desk: Desk, rules: dict[str, Any]) -> None:
    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", **VISIT, **rules)

    data = caught.value.data or {}
    assert ("outside_rules", []) == (data["reason"], data["busy"])
    assert data["alternatives"]
    assert 0 == effects(desk, "created")


@pytest.mark.parametrize(
    ("buffer", "starts"), [("buffer_before_minutes", "09:15"), ("buffer_after_minutes", "10:45")]
)
async def test_buffers_keep_neighbours_apart(desk: Desk, buffer: str, starts: str) -> None:
    await desk("create_event", **VISIT | {"start": f"{DAY}T{starts}"})

    near: dict[str, Any] = {**VISIT, buffer: 30}
    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", **near)

    assert "taken" == (caught.value.data or {})["reason"]
    assert (await desk("book_appointment", **near | {buffer: 15}))["created"]


async def test_every_calendar_that_is_named_must_be_free(desk: Desk) -> None:
    for room in ("room@example.com", "times@example.com"):
        desk.google.store.add_calendar(room, owner="boss@example.com", time_zone="UTC")
        desk.google.store.calendars[room].acl[OWNER] = "freeBusyReader" if "times" in room else "writer"
        await desk("create_event", **VISIT, calendar_id="primary")
        (event_id,) = [event["id"] for event in desk.events]
        event = desk.google.store.calendars[OWNER].events.pop(event_id)
        desk.google.store.calendars[room].events[event_id] = event

        with pytest.raises(Conflict) as caught:
            await desk("book_appointment", **VISIT, calendars=[room])
        assert (caught.value.data or {})["busy"]
    booked = await desk("book_appointment", **VISIT)

    assert booked["created"]


async def test_bookings_of_two_calendars_that_need_each_other_have_one_winner(desk: Desk) -> None:
    desk.google.store.add_calendar("room@example.com", owner=OWNER, time_zone="UTC")
    both: dict[str, Any] = {"calendars": [OWNER, "room@example.com"]}

    found = await desk.at_once(
        *(
            desk("book_appointment", **VISIT, **both, calendar_id=("room@example.com", OWNER)[number % 2])
            for number in range(6)
        )
    )

    assert 1 == len([each for each in found if isinstance(each, dict)])
    assert 5 == len([each for each in found if isinstance(each, Conflict)])


async def test_no_zone_is_asked_for_if_all_times_have_offsets(desk: Desk) -> None:
    desk.google.store.calendars[OWNER].time_zone = "UTC"
    desk.google.faults.add(Fault("events.list", times=1, body=b'{"timeZone": "Mars/Phobos", "items": []}'))

    created = await desk("book_appointment", summary="Visit", start=f"{DAY}T10:00Z", duration_minutes=30)

    assert created["created"]


async def test_undo_takes_an_unproven_404_for_no_proof(desk: Desk) -> None:
    result = await desk("book_appointment", key="k", **VISIT)
    desk.google.store.calendars[OWNER].acl.clear()

    with pytest.raises(NotFound):
        await desk.undo("book_appointment", key="k", result=result)

    desk.google.store.calendars[OWNER].acl[OWNER] = "owner"
    await desk.undo("book_appointment", key="k", result=result | {"event_id": "neverwas"})
    assert 1 == len(desk.events)
