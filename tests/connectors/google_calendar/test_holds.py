"""One of many gets a time, and no hold stays behind: bookings and moves, under faults and lagging listings."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from connectors.google_calendar import google_calendar
from connectors.google_calendar.occupancy import HOLD_LIFETIME
from connectors.sandbox.google import Fault, GoogleSandbox
from connectors.sdk.errors import Conflict, ConnectorError, PermissionDenied, RateLimited, Unavailable
from connectors.sdk.http.client import HttpPool
from connectors.sdk.testing import Kit
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

DAY = (datetime.now(UTC) + timedelta(days=30)).date()
TEN, HALF_PAST = f"{DAY}T10:00", f"{DAY}T10:30"
VISIT: dict[str, Any] = {"summary": "Visit", "start": TEN, "duration_minutes": 30}
#: What Google says of a quota, each in its own way.
REFUSALS = [
    Fault("events.patch", times=None, status=429, reason="rateLimitExceeded", headers={"Retry-After": "30"}),
    Fault("events.patch", times=None, status=403, reason="quotaExceeded"),
    Fault("events.patch", times=None, status=503),
]


def tentative(desk: Desk) -> list[str]:
    return [event["id"] for event in desk.events if event["status"] == "tentative"]


def at_ten(desk: Desk) -> list[str]:
    return [event["id"] for event in desk.events if event["start"].get("dateTime", "").startswith(TEN)]


async def appointments(desk: Desk, count: int) -> list[str]:
    made = [
        await desk(
            "create_event", summary=f"Visit {number}", start=f"{DAY}T{12 + number}:00", duration_minutes=30
        )
        for number in range(count)
    ]
    return [each["event_id"] for each in made]


@pytest.mark.parametrize("fault", REFUSALS, ids=lambda fault: str(fault.status))
async def test_hold_is_removed_if_its_confirmation_is_refused(desk: Desk, fault: Fault) -> None:
    desk.google.faults.add(fault)

    with pytest.raises((RateLimited, Unavailable)) as caught:
        await desk("book_appointment", **VISIT)

    assert [] == desk.events
    assert "hold_left_behind" not in (caught.value.data or {})


async def test_hold_that_cannot_be_removed_is_named_in_the_error(desk: Desk) -> None:
    desk.google.faults.add(REFUSALS[2])
    desk.google.faults.add(Fault("events.delete", times=None, status=503))

    with pytest.raises(Unavailable) as caught:
        await desk("book_appointment", **VISIT)

    left = (caught.value.data or {})["hold_left_behind"]
    assert tentative(desk) == [left["event_id"]]
    assert "primary" == left["calendar_id"]


async def test_a_404_is_no_proof_that_a_hold_is_gone(desk: Desk) -> None:
    desk.google.faults.add(REFUSALS[2])
    desk.google.faults.add(Fault("events.delete", times=None, status=404, reason="notFound"))

    with pytest.raises(Unavailable) as caught:
        await desk("book_appointment", **VISIT)

    assert tentative(desk) == [(caught.value.data or {})["hold_left_behind"]["event_id"]]


async def test_hold_left_behind_is_finished_by_the_next_attempt(desk: Desk) -> None:
    desk.google.faults.add(Fault("events.patch", status=503, times=2))
    desk.google.faults.add(Fault("events.delete", status=503))
    with pytest.raises(Unavailable):
        await desk("book_appointment", key="k", **VISIT)

    booked = await desk("book_appointment", key="k", attempt=2, **VISIT)

    assert [booked["event_id"]] == [event["id"] for event in desk.events]
    assert [] == tentative(desk)


@pytest.mark.parametrize("deadline_s", [0.05, 0.12, 0.2, 0.28])
async def test_deadline_in_the_middle_of_a_booking_leaves_no_hold(deadline_s: float) -> None:
    async with GoogleSandbox(delay_s=0.05) as google:
        google.store.add_account(OWNER)
        credential = google.authority.authorized_user(OWNER)
        async with Kit(google_calendar, credential=credential, settings={"api_url": google.url}) as kit:
            deadline = kit.clock.now() + timedelta(seconds=deadline_s)

            await kit.run("book_appointment", VISIT, key="k", deadline=deadline)
            again = await kit.run("book_appointment", VISIT, key="k")

        events = google.store.calendars[OWNER].events.values()
    assert again.code is None
    assert ["confirmed"] == [each["status"] for each in events if each["status"] != "cancelled"]


@pytest.mark.parametrize("count", [2, 5])
async def test_of_many_moves_to_one_time_exactly_one_wins(desk: Desk, count: int) -> None:
    ids = await appointments(desk, count)

    found = await desk.at_once(*(desk("reschedule_event", event_id=each, start=TEN) for each in ids))

    stored = desk.google.store.calendars[OWNER].events.values()
    assert 1 == len([event for event in stored if event["start"]["dateTime"].startswith(TEN)])
    assert 1 == len([each for each in found if isinstance(each, dict)])
    assert count - 1 == len([each for each in found if isinstance(each, Conflict)])
    assert 1 == len(at_ten(desk))
    assert [] == tentative(desk)


async def test_of_bookings_and_moves_to_one_time_exactly_one_wins(desk: Desk) -> None:
    ids = await appointments(desk, 4)
    moves = [desk("reschedule_event", event_id=each, start=TEN) for each in ids[:2]]
    updates = [desk("update_event", event_id=each, start=TEN, duration_minutes=30) for each in ids[2:]]
    bookings = [desk("book_appointment", **VISIT) for _ in range(4)]

    found = await desk.at_once(*moves, *updates, *bookings)

    assert 1 == len([each for each in found if isinstance(each, dict)])
    assert 7 == len([each for each in found if isinstance(each, Conflict)])
    assert 1 == len(at_ten(desk))
    assert [] == tentative(desk)


async def test_exactly_one_wins_though_listings_lag_behind(desk: Desk) -> None:
    ids = await appointments(desk, 2)
    desk.google.store.listing_lag = timedelta(seconds=0.3)
    moves = [desk("reschedule_event", event_id=each, start=TEN) for each in ids]

    found = await desk.at_once(*(desk("book_appointment", **VISIT) for _ in range(5)), *moves)

    assert 1 == len([each for each in found if isinstance(each, dict)])
    assert 1 == len(at_ten(desk))
    assert [] == tentative(desk)


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_cut_move_is_repeated_with_one_event_and_no_hold(desk: Desk, cut: Any) -> None:
    (event_id,) = await appointments(desk, 1)
    desk.google.faults.add(Fault("events.patch", cut=cut))
    with pytest.raises(Unavailable) as caught:
        await desk("reschedule_event", event_id=event_id, key="k", start=TEN)

    moved = await desk("reschedule_event", event_id=event_id, key="k", attempt=2, start=TEN)

    assert "hold_left_behind" in (caught.value.data or {})
    assert moved["start"].startswith(TEN)
    assert [event_id] == [event["id"] for event in desk.events]


async def test_hold_of_a_killed_move_is_finished_by_the_next_attempt(desk: Desk) -> None:
    (event_id,) = await appointments(desk, 1)
    held = asyncio.Event()
    fault = Fault("events.patch", until=held)
    desk.google.faults.add(fault)
    working = asyncio.create_task(desk("reschedule_event", event_id=event_id, key="k", start=TEN))
    await fault.met.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    with pytest.raises(Conflict):
        await desk("book_appointment", **VISIT)

    await desk("reschedule_event", event_id=event_id, key="k", attempt=2, start=TEN)

    assert [event_id] == [event["id"] for event in desk.events]


async def test_a_move_that_lands_late_finds_its_event_changed(desk: Desk) -> None:
    """The worker dies with the move on its way; the next attempt gives the time up, and another gets it."""
    (event_id,) = await appointments(desk, 1)
    gate = asyncio.Event()
    on_its_way = Fault("events.patch", until=gate)
    desk.google.faults.add(on_its_way)
    working = asyncio.create_task(desk("reschedule_event", event_id=event_id, key="k", start=TEN))
    await on_its_way.met.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    desk.google.faults.add(Fault("events.patch", skip=1, status=429, reason="rateLimitExceeded"))
    with pytest.raises(RateLimited):
        await desk("reschedule_event", event_id=event_id, key="k", attempt=2, start=TEN)
    other = Desk(desk.google, desk.pool, desk.document, tenant="beta")
    booked = await other("book_appointment", **VISIT)

    gate.set()
    await other("list_events")

    assert [booked["event_id"]] == at_ten(desk)


async def test_booking_takes_the_lease_of_its_calendar(desk: Desk) -> None:
    await desk("book_appointment", **VISIT)
    (event_id,) = [event["id"] for event in desk.events]
    await desk("reschedule_event", event_id=event_id, start=f"{DAY}T14:00")

    assert ["calendar:primary"] * 2 == desk.leases


async def test_a_hold_without_a_job_counts_nowhere_and_is_swept(desk: Desk) -> None:
    await _leave_old_hold(desk, TEN)
    asked: dict[str, Any] = {"start": TEN, "duration_minutes": 30}

    found = await desk("find_available_slots", range_start=TEN, range_end=HALF_PAST, duration_minutes=30)
    checked = await desk("check_availability", **asked)
    listed = await desk("list_events", range_start=f"{DAY}T00:00")
    booked = await desk("book_appointment", **VISIT)

    assert [f"{TEN}:00+03:00"] == [slot["start"] for slot in found["slots"]]
    assert {"available": True, "busy": []} == checked
    assert [] == listed["events"]
    assert [booked["event_id"]] == [event["id"] for event in desk.events]


async def test_a_hold_without_a_job_is_swept_where_times_are_proposed(desk: Desk) -> None:
    await _leave_old_hold(desk, f"{DAY}T15:00")
    booked = await desk("book_appointment", **VISIT)

    with pytest.raises(Conflict) as caught:
        await desk("book_appointment", **VISIT)

    assert (caught.value.data or {})["alternatives"]
    assert [booked["event_id"]] == [event["id"] for event in desk.events]


async def test_what_stands_beside_a_hold_without_a_job_is_still_busy(desk: Desk) -> None:
    await _leave_old_hold(desk, TEN)
    await desk("create_event", summary="Real", start=f"{DAY}T10:20", duration_minutes=30)

    checked = await desk("check_availability", start=TEN, duration_minutes=60)

    assert [{"start": f"{DAY}T10:20:00+03:00", "end": f"{DAY}T10:50:00+03:00"}] == checked["busy"]


async def test_free_busy_alone_counts_where_events_may_not_be_read(desk: Desk) -> None:
    scopes = frozenset({"https://www.googleapis.com/auth/calendar.freebusy"})
    await desk("create_event", **VISIT)
    desk.document = desk.google.authority.authorized_user(OWNER, scopes=scopes)

    checked = await desk("check_availability", start=f"{DAY}T07:00Z", duration_minutes=30, time_zone="UTC")

    assert not checked["available"]


async def _leave_old_hold(desk: Desk, start: str) -> None:
    """Leave what a booking leaves whose worker died and whose job never came again."""
    desk.google.faults.add(Fault("events.patch", status=503, times=2))
    desk.google.faults.add(Fault("events.delete", status=503))
    with pytest.raises(Unavailable):
        await desk("book_appointment", key="old", summary="Old", start=start, duration_minutes=30)
    (held,) = tentative(desk)
    old = datetime.now(UTC) - HOLD_LIFETIME - timedelta(minutes=1)
    desk.google.store.calendars[OWNER].events[held]["created"] = old.strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def test_rival_hold_in_a_calendar_that_may_not_be_changed_wins(desk: Desk) -> None:
    """A hold behind ours stands where we may look and not write: we give way rather than double book."""
    room = desk.google.store.add_calendar("room@example.com", owner="boss@example.com")
    room.acl[OWNER] = "reader"
    desk.google.faults.add(
        Fault("events.list", body=b'{"timeZone": "Europe/Istanbul", "items": []}', times=2)
    )
    rival = {
        "id": "rival",
        "status": "tentative",
        "created": "2999-01-01T00:00:00.000Z",
        "start": {"dateTime": f"{TEN}:00+03:00"},
        "end": {"dateTime": f"{HALF_PAST}:00+03:00"},
        "extendedProperties": {"private": {"connectors_claim": "open"}},
        "eventType": "default",
        "iCalUID": "rival",
    }
    desk.google.store.stamp(rival)
    room.events["rival"] = rival

    with pytest.raises((Conflict, PermissionDenied)):
        await desk("book_appointment", **VISIT, calendars=["room@example.com"])

    assert [] == desk.events


@pytest.mark.parametrize("seed", range(3))
async def test_bookings_and_moves_never_overlap_whatever_fails(
    desk: Desk, patient_pool: HttpPool, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Calls are cut, refused, delayed and abandoned at random; each job is tried until it is answered."""
    ids = await appointments(desk, 8)
    chance = Random(seed)
    desk.google.store.listing_lag = timedelta(milliseconds=20 * (seed % 3))

    def spoil(operation: str) -> Fault | None:
        luck = chance.random() if operation.startswith("events.") else 1.0
        if luck < 0.08:
            return Fault(cut="before" if luck < 0.04 else "after")
        if luck < 0.12:
            return Fault(status=503, does_work=luck < 0.1)
        return Fault(delay_s=chance.random() * 0.01, does_work=luck < 0.5)

    monkeypatch.setattr(desk.google.faults, "take", spoil)
    desk = replace(desk, pool=patient_pool)

    async def run(number: int) -> Any:
        start, failures = f"{DAY}T10:{number % 4 * 10:02}", []
        what: dict[str, Any] = (
            {"action": "reschedule_event", "event_id": ids[number], "start": start}
            if number < len(ids)
            else {"action": "book_appointment", **VISIT, "start": start}
        )
        for attempt in range(1, 500):
            trying = asyncio.create_task(desk(key=str(number), attempt=attempt, **what))
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

    answers = await asyncio.gather(*(run(number) for number in range(20)))

    morning = [e for e in desk.events if e["status"] == "confirmed" and e["start"]["dateTime"] < f"{DAY}T12"]
    times = sorted((event["start"]["dateTime"], event["end"]["dateTime"]) for event in morning)
    assert sorted(answer["event_id"] for answer in answers if answer is not None) == sorted(
        event["id"] for event in morning
    )
    assert times
    assert all(one[1] <= other[0] for one, other in pairwise(times))
