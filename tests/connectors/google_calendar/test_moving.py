"""Moves, and changes of a series: what is checked, what is kept, and which occurrences change."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.sandbox.google import Fault
from connectors.sdk.errors import Conflict, InvalidParams, Unavailable
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

#: A Monday far ahead.
DAY = datetime(2037, 3, 9, tzinfo=UTC).date()
CLASS: dict[str, Any] = {"summary": "Class", "start": f"{DAY}T10:00", "duration_minutes": 60}
ALL: dict[str, Any] = {"range_start": "2037-01-01T00:00Z", "range_end": "2038-01-01T00:00Z"}


def weeks(count: int) -> list[str]:
    return [(DAY + timedelta(weeks=number)).isoformat() for number in range(count)]


async def series(desk: Desk, rule: str = "RRULE:FREQ=WEEKLY;COUNT=4", **more: Any) -> tuple[str, list[str]]:
    """Create a weekly series; return its id and those of its occurrences."""
    created = await desk("create_event", **{**CLASS, **more}, recurrence=[rule])
    listed = await desk("list_events", **ALL, query="Class")
    return created["event_id"], [each["event_id"] for each in listed["events"]]


async def times(desk: Desk, query: str = "Class") -> list[str]:
    listed = await desk("list_events", **ALL, query=query)
    return [each["start"][:16] for each in listed["events"]]


async def test_a_move_checks_for_conflicts_unless_told_not_to(desk: Desk) -> None:
    await desk("create_event", summary="Other", start=f"{DAY}T12:00", duration_minutes=60)
    event_id = (await desk("create_event", **CLASS))["event_id"]

    for action in ("reschedule_event", "update_event"):
        with pytest.raises(Conflict) as caught:
            await desk(action, event_id=event_id, start=f"{DAY}T12:30")
        assert (caught.value.data or {})["alternatives"]
    moved = await desk("reschedule_event", event_id=event_id, start=f"{DAY}T12:30", conflict_check=False)

    assert f"{DAY}T12:30:00+03:00" == moved["start"]


async def test_a_move_into_the_past_is_refused_unless_allowed(desk: Desk) -> None:
    event_id = (await desk("create_event", **CLASS))["event_id"]

    with pytest.raises(InvalidParams, match="start"):
        await desk("reschedule_event", event_id=event_id, start="2024-03-09T10:00")
    moved = await desk("reschedule_event", event_id=event_id, start="2024-03-09T10:00", allow_past=True)

    assert "2024-03-09T10:00:00+03:00" == moved["start"]


async def test_the_end_of_a_running_event_can_be_moved(desk: Desk) -> None:
    start = (datetime.now(UTC) - timedelta(minutes=20)).replace(microsecond=0)
    running = CLASS | {"start": start.isoformat(), "allow_past": True}
    event_id = (await desk("create_event", **running))["event_id"]

    longer = await desk("update_event", event_id=event_id, duration_minutes=90)

    assert datetime.fromisoformat(longer["end"]) == start + timedelta(minutes=90)


async def test_an_event_that_takes_no_time_moves_where_others_are(desk: Desk) -> None:
    await desk("create_event", summary="Other", start=f"{DAY}T12:00", duration_minutes=60)
    event_id = (await desk("create_event", **CLASS, transparency="transparent"))["event_id"]

    assert await desk("reschedule_event", event_id=event_id, start=f"{DAY}T12:30")


async def test_an_event_that_begins_to_take_time_must_find_it_free(desk: Desk) -> None:
    event_id = (await desk("create_event", **CLASS, transparency="transparent"))["event_id"]
    other = await desk("create_event", **CLASS)

    with pytest.raises(Conflict):
        await desk("update_event", event_id=event_id, transparency="opaque")
    await desk("cancel_event", event_id=other["event_id"])

    assert "opaque" == (await desk("update_event", event_id=event_id, transparency="opaque"))["transparency"]


@pytest.mark.parametrize(
    ("action", "change"),
    [
        ("reschedule_event", {"start": f"{DAY}T12:00"}),
        ("update_event", {"summary": "New"}),
        ("cancel_event", {}),
        ("add_attendees", {"attendees": ["ada@example.com"]}),
    ],
)
async def test_a_series_named_as_one_occurrence_is_refused(
    desk: Desk, action: str, change: dict[str, Any]
) -> None:
    series_id, _ = await series(desk)

    with pytest.raises(InvalidParams, match="scope"):
        await desk(action, event_id=series_id, **change)


async def test_moving_one_occurrence_leaves_the_others(desk: Desk) -> None:
    _, ids = await series(desk)

    await desk("reschedule_event", event_id=ids[1], start=f"{weeks(2)[1]}T15:00")

    days = weeks(4)
    assert [f"{days[0]}T10:00", f"{days[1]}T15:00", f"{days[2]}T10:00", f"{days[3]}T10:00"] == await times(
        desk
    )


async def test_a_move_of_all_moves_each_by_the_same_wall_time(desk: Desk) -> None:
    _, ids = await series(desk)

    moved = await desk("reschedule_event", event_id=ids[2], start=f"{weeks(3)[2]}T14:00", scope="all")

    assert [f"{day}T14:00" for day in weeks(4)] == await times(desk)
    assert f"{DAY}T14:00:00+03:00" == moved["start"]
    assert [] == [event for event in desk.events if event["status"] == "tentative"]


async def test_a_move_of_all_checks_every_occurrence(desk: Desk) -> None:
    series_id, _ = await series(desk)
    await desk("create_event", summary="Other", start=f"{weeks(4)[3]}T14:30", duration_minutes=30)

    with pytest.raises(Conflict) as caught:
        await desk("reschedule_event", event_id=series_id, start=f"{DAY}T14:00", scope="all")

    assert "taken" == (caught.value.data or {})["reason"]
    assert [f"{day}T10:00" for day in weeks(4)] == await times(desk)
    assert [] == [event for event in desk.events if event["status"] == "tentative"]


async def test_a_move_of_all_that_would_change_the_past_is_refused(desk: Desk) -> None:
    past = (datetime.now(UTC) - timedelta(days=15)).date()
    series_id, _ = await series(desk, start=f"{past}T10:00", allow_past=True, duration_minutes=30)

    with pytest.raises(InvalidParams, match="past"):
        await desk("reschedule_event", event_id=series_id, start=f"{past}T11:00", scope="all")


async def test_exceptions_of_a_series_move_with_it(desk: Desk) -> None:
    days = weeks(4)
    await desk(
        "create_event",
        **CLASS,
        recurrence=["RRULE:FREQ=WEEKLY;COUNT=4", f"EXDATE:{days[1].replace('-', '')}"],
    )
    (series_id,) = [event["id"] for event in desk.events]

    await desk("reschedule_event", event_id=series_id, start=f"{DAY}T14:00", scope="all")

    assert [f"{day}T14:00" for day in (days[0], days[2], days[3])] == await times(desk)


async def test_another_day_needs_another_rule_if_the_rule_names_days(desk: Desk) -> None:
    series_id, _ = await series(desk, "RRULE:FREQ=WEEKLY;BYDAY=MO;COUNT=4")

    with pytest.raises(InvalidParams, match="rule names days"):
        await desk(
            "reschedule_event", event_id=series_id, start=f"{DAY + timedelta(days=1)}T10:00", scope="all"
        )


@pytest.mark.parametrize("rule", ["RRULE:FREQ=WEEKLY;COUNT=4", "RRULE:FREQ=WEEKLY;UNTIL=20370330"])
async def test_a_move_of_the_following_splits_the_series(desk: Desk, rule: str) -> None:
    series_id, ids = await series(desk, rule, attendees=["ada@example.com"], notify="none")
    days = weeks(4)

    moved = await desk("reschedule_event", event_id=ids[2], start=f"{days[2]}T14:00", scope="following")

    assert [f"{days[0]}T10:00", f"{days[1]}T10:00", f"{days[2]}T14:00", f"{days[3]}T14:00"] == await times(
        desk
    )
    assert series_id != moved["event_id"]
    assert [("ada@example.com", "needsAction")] == [(g["email"], g["response"]) for g in moved["attendees"]]
    assert [] == [event for event in desk.events if event["status"] == "tentative"]


async def test_a_move_of_the_following_checks_their_times(desk: Desk) -> None:
    _, ids = await series(desk)
    days = weeks(4)
    await desk("create_event", summary="Other", start=f"{days[3]}T14:30", duration_minutes=30)

    with pytest.raises(Conflict):
        await desk("reschedule_event", event_id=ids[2], start=f"{days[2]}T14:00", scope="following")

    assert [f"{day}T10:00" for day in days] == await times(desk)


@pytest.mark.parametrize("operation", ["events.insert", "events.patch"])
@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("change", [{"summary": "New"}, {"start": "T14:00"}])
async def test_a_cut_split_is_repeated_with_one_series(
    desk: Desk, operation: str, cut: Any, change: dict[str, Any]
) -> None:
    _, ids = await series(desk)
    days = weeks(4)
    given = {name: days[2] + value if name == "start" else value for name, value in change.items()}
    desk.google.faults.add(Fault(operation, cut=cut))
    with pytest.raises(Unavailable):
        await desk("update_event", key="k", event_id=ids[2], scope="following", **given)

    again = await desk("update_event", key="k", event_id=ids[2], scope="following", attempt=2, **given)

    clock = "14:00" if "start" in change else "10:00"
    listed = await desk("list_events", **ALL)
    assert [f"{days[0]}T10:00", f"{days[1]}T10:00", f"{days[2]}T{clock}", f"{days[3]}T{clock}"] == [
        each["start"][:16] for each in listed["events"]
    ]
    assert change.get("summary", "Class") == again["summary"]


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize(("number", "scope"), [(1, "all"), (0, "following")])
@pytest.mark.parametrize("shift", [timedelta(hours=4), timedelta(weeks=1)], ids=str)
async def test_a_cut_move_of_a_series_is_repeated_with_one_move(
    desk: Desk, cut: Any, number: int, scope: str, shift: timedelta
) -> None:
    _, ids = await series(desk)
    change: dict[str, Any] = {"event_id": ids[number], "scope": scope}
    old = [datetime.fromisoformat(f"{day}T10:00") for day in weeks(4)]
    change["start"] = (old[number] + shift).isoformat()
    desk.google.faults.add(Fault("events.patch", cut=cut))
    with pytest.raises(Unavailable):
        await desk("reschedule_event", key="k", **change)

    await desk("reschedule_event", key="k", attempt=2, **change)

    assert [(each + shift).isoformat()[:16] for each in old] == await times(desk)
    assert 1 == len(desk.events)


async def test_a_change_of_all_and_of_one_touch_what_they_name(desk: Desk) -> None:
    _, ids = await series(desk)

    await desk("update_event", event_id=ids[1], location="Room 2")
    await desk("update_event", event_id=ids[0], scope="all", description="Bring a pen")

    listed = (await desk("list_events", **ALL))["events"]
    assert [None, "Room 2", None, None] == [each["location"] for each in listed]
    assert "Bring a pen" == listed[0]["description"]


async def test_scope_says_which_occurrences_are_cancelled(desk: Desk) -> None:
    _, ids = await series(desk, attendees=["ada@example.com"])
    days = weeks(4)

    await desk("cancel_event", event_id=ids[0])
    one = await times(desk)
    following = await desk("cancel_event", event_id=ids[2], scope="following")
    rest = await times(desk)
    await desk("cancel_event", event_id=ids[1], scope="all")

    assert [f"{day}T10:00" for day in days[1:]] == one
    assert "cancelled" == following["status"]
    assert [f"{days[1]}T10:00"] == rest
    assert [] == await times(desk)


async def test_following_the_first_occurrence_is_all(desk: Desk) -> None:
    series_id, ids = await series(desk)

    moved = await desk("reschedule_event", event_id=ids[0], start=f"{DAY}T14:00", scope="following")

    assert series_id == moved["event_id"]
    assert [f"{day}T14:00" for day in weeks(4)] == await times(desk)


async def test_a_moved_series_keeps_its_wall_time_over_a_change_of_clocks(desk: Desk) -> None:
    desk.google.store.calendars[OWNER].time_zone = "America/New_York"
    series_id, _ = await series(desk, start="2037-10-26T09:00")

    await desk("reschedule_event", event_id=series_id, start="2037-10-26T11:00", scope="all")

    assert {"11:00"} == {each[11:] for each in await times(desk)}
