"""Looking for time over real HTTP: what the slot search is fed with, and what is answered."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import InvalidParams, NotFound, Rejected, Sent, Unavailable
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

#: So that nothing depends on today.
AS_OF = "2037-01-01T00:00:00Z"
ASK: dict[str, Any] = {
    "range_start": "2037-03-09T09:00",
    "range_end": "2037-03-09T12:00",
    "duration_minutes": 60,
    "as_of": AS_OF,
}


def starts(found: dict[str, Any]) -> list[str]:
    return [slot["start"] for slot in found["slots"]]


async def test_free_times_carry_the_calendars_own_zone(desk: Desk) -> None:
    await desk("create_event", summary="x", start="2037-03-09T10:00", duration_minutes=30)

    found = await desk("find_available_slots", **ASK)

    nine, eleven = (
        {
            "start": f"2037-03-09T{start}:00:00+03:00",
            "end": f"2037-03-09T{end}:00:00+03:00",
            "calendars": ["primary"],
        }
        for start, end in (("09", "10"), ("11", "12"))
    )
    assert {"slots": [nine, eleven], "time_zone": "Europe/Istanbul", "truncated": False} == found


async def test_one_calendar_and_one_day_in_a_named_zone_take_one_call(desk: Desk) -> None:
    found = await desk("find_available_slots", **ASK, time_zone="America/New_York")

    assert "2037-03-09T09:00:00-04:00" == starts(found)[0]
    assert {"token": 1, "freebusy.query": 1} == dict(desk.google.journal.calls)


async def test_times_are_asked_for_as_wide_as_the_buffers(desk: Desk) -> None:
    await desk("create_event", summary="x", start="2037-03-09T08:00", end="2037-03-09T08:45")
    await desk("create_event", summary="x", start="2037-03-09T12:15", duration_minutes=30)

    found = await desk("find_available_slots", **ASK, buffer_before_minutes=30, buffer_after_minutes=30)

    assert ["2037-03-09T10:00:00+03:00"] == starts(found)


async def test_working_hours_overrides_and_closed_dates_shape_the_days(desk: Desk) -> None:
    found = await desk(
        "find_available_slots",
        range_start="2037-12-21T00:00",
        range_end="2037-12-28T00:00",
        duration_minutes=180,
        as_of=AS_OF,
        working_hours={day: [["09:00", "12:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
        overrides={"2037-12-24": [["08:00", "11:00"]], "2037-12-26": [["22:00", "01:00"]]},
        closed_dates=["2037-12-25"],
    )

    assert ["21T09", "22T09", "23T09", "24T08", "26T22"] == [start[8:13] for start in starts(found)]


async def test_notice_and_advance_count_from_as_of_and_the_past_is_not_offered(desk: Desk) -> None:
    within = await desk(
        "find_available_slots",
        **ASK | {"as_of": "2037-03-09T08:30", "duration_minutes": 30},
        min_notice_minutes=60,
        max_advance_minutes=120,
    )
    past = await desk(
        "find_available_slots",
        range_start="2020-01-01T00:00",
        range_end="2020-02-01T00:00",
        duration_minutes=30,
    )
    now = datetime.now(UTC)
    today = await desk(
        "find_available_slots",
        range_start=(now - timedelta(hours=3)).isoformat(),
        range_end=(now + timedelta(hours=3)).isoformat(),
        duration_minutes=5,
    )

    assert ["09:30", "10:00", "10:30"] == [start[11:16] for start in starts(within)]
    assert [] == past["slots"]
    assert datetime.fromisoformat(starts(today)[0]) >= now


async def test_the_earliest_are_given_and_the_rest_is_said_to_be_cut(desk: Desk) -> None:
    two = await desk("find_available_slots", **ASK, limit=2)
    three = await desk("find_available_slots", **ASK, limit=3)

    assert (["09", "10"], True) == ([start[11:13] for start in starts(two)], two["truncated"])
    assert (3, False) == (len(starts(three)), three["truncated"])


async def test_any_of_sixty_calendars_is_asked_for_in_two_calls(desk: Desk) -> None:
    rooms = [f"room{number}@example.com" for number in range(60)]
    for room in rooms:
        desk.google.store.add_calendar(room, owner=OWNER)
        if room != rooms[59]:
            await desk(
                "create_event", summary="x", start="2037-03-09T09:00Z", duration_minutes=60, calendar_id=room
            )
    ask = ASK | {"calendars": rooms, "time_zone": "UTC", "range_end": "2037-03-09T11:00"}

    any_of_them = await desk("find_available_slots", **ask, mode="any")
    all_of_them = await desk("find_available_slots", **ask)

    assert [[rooms[59]], rooms] == [slot["calendars"] for slot in any_of_them["slots"]]
    assert [rooms] == [slot["calendars"] for slot in all_of_them["slots"]]
    assert 4 == desk.calls("freebusy.query")


async def test_a_hundred_and_twenty_days_are_asked_for_in_two_calls_and_merged(desk: Desk) -> None:
    await desk(  # over the seam between the two calls
        "create_event", summary="x", start="2037-03-31T00:00Z", end="2037-04-03T00:00Z"
    )

    found = await desk(
        "find_available_slots",
        range_start="2037-01-01T00:00",
        range_end="2037-05-01T00:00",
        duration_minutes=1440,
        time_zone="UTC",
        limit=1000,
        as_of="2025-12-01T00:00:00Z",
    )

    assert 120 - 3 == len(found["slots"])
    assert 2 == desk.calls("freebusy.query")


@pytest.mark.parametrize("merges_busy", [True, False])
async def test_busy_periods_may_come_merged_and_cut_or_not(desk: Desk, merges_busy: bool) -> None:
    desk.google.store.merges_busy = merges_busy
    for start, minutes in (("08:00", 90), ("09:15", 30), ("11:45", 60)):
        await desk("create_event", summary="x", start=f"2037-03-09T{start}", duration_minutes=minutes)

    found = await desk("find_available_slots", **ASK | {"duration_minutes": 45})

    assert ["09:45", "10:30"] == [start[11:16] for start in starts(found)]


async def test_an_all_day_event_covers_the_day_of_its_calendars_zone(desk: Desk) -> None:
    desk.google.store.add_calendar("ny@example.com", owner=OWNER, time_zone="America/New_York")
    await desk("create_event", summary="Off", start="2037-03-09", calendar_id="ny@example.com")

    found = await desk(
        "find_available_slots",
        calendars=["ny@example.com"],
        range_start="2037-03-09T00:00",
        range_end="2037-03-10T12:00",
        duration_minutes=60,
        time_zone="Europe/Istanbul",
        as_of=AS_OF,
    )

    hours = [start[8:16] for start in starts(found)]
    assert ["09T00:00", "09T06:00"] == [hours[0], hours[6]]  # until 07:00, midnight in New York
    assert "10T07:00" == hours[7]


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("America/New_York", "2037-03-08", ["00:00:00-05:00", "01:00:00-05:00", "03:00:00-04:00"]),
        ("America/New_York", "2037-11-01", ["00:00:00-04:00", "01:00:00-04:00", "01:00:00-05:00"]),
        ("Europe/Istanbul", "2037-03-29", ["00:00:00+03:00", "01:00:00+03:00", "02:00:00+03:00"]),
        ("Australia/Lord_Howe", "2037-04-05", ["00:00:00+11:00", "01:00:00+11:00", "01:30:00+10:30"]),
        ("Australia/Lord_Howe", "2037-10-04", ["00:00:00+10:30", "01:00:00+10:30", "02:30:00+11:00"]),
    ],
)
async def test_slots_across_a_change_of_clocks_last_as_long_as_ever(
    desk: Desk, zone: str, day: str, expected: list[str]
) -> None:
    found = await desk(
        "find_available_slots",
        range_start=f"{day}T00:00",
        range_end=f"{day}T12:00",
        duration_minutes=60,
        time_zone=zone,
        limit=3,
        as_of=AS_OF,
    )

    assert [f"{day}T{time}" for time in expected] == starts(found)


async def test_an_unreadable_calendar_fails_the_whole_search(desk: Desk) -> None:
    with pytest.raises(NotFound, match=r"nobody@example\.com"):
        await desk("find_available_slots", **ASK, calendars=["primary", "nobody@example.com"], mode="any")


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ('{"errors": [{"reason": "internalError"}], "busy": []}', Unavailable),
        ('{"errors": [{"reason": "groupTooBig"}]}', Rejected),
        ('{"errors": [{"reason": "notFound"}]}', NotFound),
        ('{"errors": [{"reason": "<b>never heard of</b>"}]}', Unavailable),
        ('{"busy": [{"start": "soon", "end": "later"}]}', Unavailable),
        ('{"busy": [{"start": "2037-03-09T10:00:00Z"}]}', Unavailable),
        ("null", Unavailable),
    ],
)
async def test_whatever_keeps_a_calendar_from_being_known_fails_closed(
    desk: Desk, told: str, kind: type[Exception]
) -> None:
    body = '{"calendars": {"primary": ' + told + "}}"
    desk.google.faults.add(Fault("freebusy.query", body=body.encode()))

    with pytest.raises(kind) as caught:
        await desk("find_available_slots", **ASK, time_zone="UTC")

    assert "never heard of" not in str(caught.value)


async def test_a_range_that_is_empty_once_the_zone_is_known_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidParams, match="range_end"):
        await desk(
            "find_available_slots",
            **ASK | {"range_start": "2037-03-09T09:00:00Z", "range_end": "2037-03-09T11:00"},
        )


# check_availability


async def test_a_free_and_a_taken_time_are_told_apart(desk: Desk) -> None:
    await desk("create_event", summary="x", start="2037-03-09T10:00", duration_minutes=30)
    await desk("create_event", summary="x", start="2037-03-09T10:20", duration_minutes=20)

    taken = await desk("check_availability", start="2037-03-09T10:15", end="2037-03-09T11:00")
    free = await desk("check_availability", start="2037-03-09T10:40", duration_minutes=30)
    before = await desk("check_availability", start="2037-03-09T09:30", duration_minutes=30)

    assert not taken["available"]
    assert "2037-03-09T10:40:00+03:00" == taken["busy"][-1]["end"]
    assert [{"available": True, "busy": []}] * 2 == [free, before]


async def test_every_calendar_has_to_be_free(desk: Desk) -> None:
    desk.google.store.add_calendar("room@example.com", owner=OWNER)
    await desk(
        "create_event",
        summary="x",
        start="2037-03-09T10:00:00Z",
        duration_minutes=30,
        calendar_id="room@example.com",
    )
    at: dict[str, Any] = {"start": "2037-03-09T10:00:00Z", "duration_minutes": 30, "time_zone": "UTC"}

    mine = await desk("check_availability", **at)
    both = await desk("check_availability", **at, calendars=["primary", "room@example.com"])

    assert (True, False) == (mine["available"], both["available"])
    assert [{"start": "2037-03-09T10:00:00+00:00", "end": "2037-03-09T10:30:00+00:00"}] == both["busy"]


async def test_a_question_that_fails_leaves_no_write_open(desk: Desk) -> None:
    desk.google.faults.add(Fault("freebusy.query", status=503))

    with pytest.raises(Unavailable) as failure:
        await desk("find_available_slots", **ASK)

    assert Sent.NO is failure.value.sent
