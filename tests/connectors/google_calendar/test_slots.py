"""The slot search, rule by rule, and against a solver that tries every minute."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.google_calendar.event_times import Span
from connectors.google_calendar.rules import Rules, nearest_free
from connectors.google_calendar.slots import (
    Hours,
    Mode,
    OpenSlot,
    Period,
    Search,
    Window,
    find_slots,
    from_seconds,
    merge_periods,
)
from connectors.google_calendar.zones import instant, zone_named

ISTANBUL, NEW_YORK, LORD_HOWE = map(
    zone_named, ("Europe/Istanbul", "America/New_York", "Australia/Lord_Howe")
)
MINUTE = 60
NINE_TO_FIVE: dict[int, list[Window]] = {day: [(540, 1020)] for day in range(5)}


def at(text: str, zone: ZoneInfo = ISTANBUL) -> int:
    """The instant of a wall time, or of a time with offset."""
    return int(instant(datetime.fromisoformat(text), zone).timestamp())


def find(
    start: str,
    end: str,
    *,
    zone: ZoneInfo = ISTANBUL,
    duration: int = 30,
    step: int | None = None,
    weekly: Mapping[int, Sequence[Window]] | None = None,
    overrides: Mapping[date, Sequence[Window]] | None = None,
    closed: Iterable[date] = (),
    busy: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    mode: Mode = "all",
    before: int = 0,
    after: int = 0,
    earliest: str | None = None,
    latest: str | None = None,
) -> list[OpenSlot]:
    search = Search(
        zone,
        (at(start, zone), at(end, zone)),
        duration * MINUTE,
        (step or duration) * MINUTE,
        Hours(weekly, overrides or {}, frozenset(closed)),
        before * MINUTE,
        after * MINUTE,
        None if earliest is None else at(earliest, zone),
        None if latest is None else at(latest, zone),
    )
    periods = {
        name: [(at(a, zone), at(b, zone)) for a, b in taken]
        for name, taken in (busy or {"primary": []}).items()
    }
    return list(find_slots(search, periods, mode))


def starts(slots: Iterable[OpenSlot], zone: ZoneInfo = ISTANBUL) -> list[str]:
    return [datetime.fromtimestamp(slot.start, zone).strftime("%d %H:%M") for slot in slots]


def hours(slots: Iterable[OpenSlot], zone: ZoneInfo = ISTANBUL) -> list[str]:
    return [datetime.fromtimestamp(slot.start, zone).strftime("%H:%M%z") for slot in slots]


# R1: half-open


def test_r1_a_slot_may_touch_a_busy_period_on_either_side() -> None:
    found = find(
        "2026-03-09T09:00", "2026-03-09T11:00", busy={"primary": [("2026-03-09T09:30", "2026-03-09T10:00")]}
    )

    assert ["09 09:00", "09 10:00", "09 10:30"] == starts(found)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 0, ["09:00", "09:30", "10:30", "11:00", "11:30"]),
        (1, 0, ["09:00", "09:30", "11:00", "11:30"]),
        (0, 1, ["09:00", "10:30", "11:00", "11:30"]),
        (30, 30, ["09:00", "11:00", "11:30"]),
        (31, 31, ["11:30"]),
    ],
)
def test_r1_buffers_keep_their_distance_and_no_more(before: int, after: int, expected: list[str]) -> None:
    found = find(
        "2026-03-09T09:00",
        "2026-03-09T12:00",
        before=before,
        after=after,
        busy={"primary": [("2026-03-09T10:00", "2026-03-09T10:30")]},
    )

    assert [f"09 {hour}" for hour in expected] == starts(found)


def test_r1_a_busy_period_outside_of_the_range_counts_within_the_buffer() -> None:
    busy = {"primary": [("2026-03-09T08:30", "2026-03-09T09:00"), ("2026-03-09T10:00", "2026-03-09T10:15")]}

    assert ["09 09:15"] == starts(
        find("2026-03-09T09:00", "2026-03-09T10:00", duration=15, before=15, after=15, busy=busy)
    )[:1]
    assert ["09 09:15", "09 09:30"] == starts(
        find("2026-03-09T09:00", "2026-03-09T10:00", duration=15, before=15, after=15, busy=busy)
    )


def test_r1_a_busy_period_without_length_takes_nothing() -> None:
    busy = {"primary": [("2026-03-09T09:15", "2026-03-09T09:15")]}

    assert ["09 09:00"] == starts(find("2026-03-09T09:00", "2026-03-09T09:30", busy=busy))


def test_r1_overlapping_nested_and_unsorted_busy_periods_are_one() -> None:
    busy = {
        "primary": [
            ("2026-03-09T11:00", "2026-03-09T11:30"),
            ("2026-03-09T09:00", "2026-03-09T10:45"),
            ("2026-03-09T09:15", "2026-03-09T09:30"),
            ("2026-03-09T10:30", "2026-03-09T11:00"),
        ]
    }

    assert ["09 11:30"] == starts(find("2026-03-09T09:00", "2026-03-09T12:00", busy=busy))


# R2: working hours


def test_r2_without_working_hours_every_day_is_open_round_the_clock() -> None:
    found = find("2026-03-07T22:00", "2026-03-08T02:00", duration=60)

    assert ["07 22:00", "07 23:00", "08 00:00", "08 01:00"] == starts(found)


def test_r2_a_weekday_without_windows_is_closed() -> None:
    # Saturday the 7th to Monday the 9th
    assert ["09 09:00"] == starts(
        find("2026-03-07T00:00", "2026-03-09T09:30", duration=30, weekly=NINE_TO_FIVE)
    )


def test_r2_a_window_may_end_at_midnight() -> None:
    found = find("2026-03-09T00:00", "2026-03-11T00:00", duration=60, weekly={0: [(1380, 1440)]})

    assert ["09 23:00"] == starts(found)


def test_r2_a_window_that_passes_midnight_belongs_to_the_day_it_opens() -> None:
    monday_night = {0: [(22 * 60, 26 * 60)]}

    assert ["09 22:00", "09 23:00", "10 00:00", "10 01:00"] == starts(
        find("2026-03-08T00:00", "2026-03-16T00:00", duration=60, weekly=monday_night)
    )
    # Closing the day it opens closes all of it, closing the next day nothing of it.
    assert [] == find(
        "2026-03-08T00:00", "2026-03-16T00:00", duration=60, weekly=monday_night, closed=[date(2026, 3, 9)]
    )
    assert 4 == len(
        find(
            "2026-03-08T00:00",
            "2026-03-16T00:00",
            duration=60,
            weekly=monday_night,
            closed=[date(2026, 3, 10)],
        )
    )


def test_r2_the_range_may_begin_inside_a_window_that_opened_the_day_before() -> None:
    found = find("2026-03-10T00:30", "2026-03-10T12:00", duration=30, weekly={0: [(22 * 60, 26 * 60)]})

    assert ["10 00:30", "10 01:00", "10 01:30"] == starts(found)


def test_r2_an_override_replaces_the_hours_of_its_day_alone() -> None:
    found = find(
        "2026-03-09T00:00",
        "2026-03-11T00:00",
        duration=240,
        weekly=NINE_TO_FIVE,
        overrides={date(2026, 3, 9): [(600, 840)]},
    )

    assert ["09 10:00", "10 09:00", "10 13:00"] == starts(found)


def test_r2_an_override_may_open_a_day_and_an_empty_one_closes_it() -> None:
    found = find(
        "2026-03-07T00:00",
        "2026-03-10T00:00",
        duration=480,
        weekly=NINE_TO_FIVE,
        overrides={date(2026, 3, 8): [(0, 480)], date(2026, 3, 9): []},
    )

    assert ["08 00:00"] == starts(found)


def test_r2_hours_are_wall_clock_on_both_sides_of_a_change_of_clocks() -> None:
    found = find("2026-03-06T00:00", "2026-03-10T00:00", zone=NEW_YORK, duration=480, weekly=NINE_TO_FIVE)

    assert ["09:00-0500", "09:00-0400"] == hours(found, NEW_YORK)


# R3: the grid


def test_r3_the_grid_starts_at_the_opening_and_not_at_the_range() -> None:
    found = find("2026-03-09T09:10", "2026-03-09T11:59", duration=45, weekly=NINE_TO_FIVE)

    assert ["09 09:45", "09 10:30"] == starts(found)


def test_r3_a_busy_period_does_not_move_the_grid() -> None:
    found = find(
        "2026-03-09T09:00",
        "2026-03-09T13:00",
        duration=60,
        weekly=NINE_TO_FIVE,
        busy={"primary": [("2026-03-09T09:30", "2026-03-09T10:20")]},
    )

    assert ["09 11:00", "09 12:00"] == starts(found)


def test_r3_a_step_shorter_than_the_duration_offers_overlapping_slots() -> None:
    found = find("2026-03-09T09:00", "2026-03-09T10:30", duration=60, step=15, weekly=NINE_TO_FIVE)

    assert ["09 09:00", "09 09:15", "09 09:30"] == starts(found)


def test_r3_windows_of_one_day_that_touch_share_one_grid() -> None:
    found = find(
        "2026-03-09T00:00", "2026-03-10T00:00", duration=50, weekly={0: [(540, 600), (600, 700), (680, 720)]}
    )

    assert ["09 09:00", "09 09:50", "09 10:40"] == starts(found)


def test_r3_round_the_clock_the_grid_starts_anew_at_each_midnight() -> None:
    found = find("2026-03-09T22:00", "2026-03-10T02:00", duration=50)

    assert ["09 22:30", "09 23:20", "10 00:00", "10 00:50"] == starts(found)


def test_r3_the_grid_does_not_depend_on_where_the_range_begins() -> None:
    later = find("2026-03-11T10:00", "2026-03-11T20:00", duration=50)

    assert later == find("2026-03-09T03:07", "2026-03-11T20:00", duration=50)[-len(later) :]


# R4: wholly inside


def test_r4_a_slot_does_not_run_over_the_closing() -> None:
    found = find("2026-03-09T00:00", "2026-03-10T00:00", duration=180, weekly=NINE_TO_FIVE)

    assert ["09 09:00", "09 12:00"] == starts(found)


def test_r4_a_slot_does_not_span_a_break() -> None:
    found = find("2026-03-09T00:00", "2026-03-10T00:00", duration=90, weekly={0: [(540, 600), (660, 780)]})

    assert ["09 11:00"] == starts(found)


def test_r4_a_slot_may_span_windows_that_touch_even_across_midnight() -> None:
    found = find(
        "2026-03-09T00:00", "2026-03-11T00:00", duration=120, weekly={0: [(1380, 1440)], 1: [(0, 60)]}
    )

    assert ["09 23:00"] == starts(found)


def test_r4_a_slot_lies_wholly_inside_the_range() -> None:
    assert ["09 10:00"] == starts(find("2026-03-09T09:15", "2026-03-09T11:15", duration=60))
    assert [] == find("2026-03-09T09:00", "2026-03-09T09:59", duration=60)
    assert ["09 09:00"] == starts(find("2026-03-09T09:00", "2026-03-09T10:00", duration=60))


# R5: notice and advance


def test_r5_a_slot_starts_between_the_earliest_and_the_latest_instant() -> None:
    found = find(
        "2026-03-09T09:00",
        "2026-03-09T17:00",
        duration=30,
        earliest="2026-03-09T10:00",
        latest="2026-03-09T11:00",
    )

    assert ["09 10:00", "09 10:30", "09 11:00"] == starts(found)


def test_r5_the_grid_is_kept_when_notice_ends_between_its_lines() -> None:
    found = find("2026-03-09T09:00", "2026-03-09T11:00", duration=30, earliest="2026-03-09T10:01")

    assert ["09 10:30"] == starts(found)


# R7: several calendars

TWO = {
    "a": [("2026-03-09T09:00", "2026-03-09T10:00")],
    "b": [("2026-03-09T09:30", "2026-03-09T10:30")],
}


def test_r7_all_needs_every_calendar_free() -> None:
    found = find("2026-03-09T09:00", "2026-03-09T11:00", busy=TWO)

    assert [("09 10:30", ("a", "b"))] == [(*starts([slot]), slot.calendars) for slot in found]


def test_r7_any_needs_one_and_says_which() -> None:
    found = find("2026-03-09T09:00", "2026-03-09T11:00", busy=TWO, mode="any")

    assert [("09 09:00", ("b",)), ("09 10:00", ("a",)), ("09 10:30", ("a", "b"))] == [
        (*starts([slot]), slot.calendars) for slot in found
    ]


# Changes of clocks


def test_new_york_loses_an_hour_and_a_slot_keeps_its_length() -> None:
    found = find("2026-03-08T00:00", "2026-03-08T05:00", zone=NEW_YORK, duration=60)

    assert ["00:00-0500", "01:00-0500", "03:00-0400", "04:00-0400"] == hours(found, NEW_YORK)
    assert {3600} == {slot.end - slot.start for slot in found}


def test_new_york_gains_an_hour_and_both_are_offered() -> None:
    found = find("2026-11-01T00:00", "2026-11-01T03:00", zone=NEW_YORK, duration=60)

    assert ["00:00-0400", "01:00-0400", "01:00-0500", "02:00-0500"] == hours(found, NEW_YORK)


def test_an_opening_in_the_gap_moves_forward_by_the_gap() -> None:
    found = find("2026-03-08T00:00", "2026-03-08T12:00", zone=NEW_YORK, duration=30, weekly={6: [(150, 270)]})

    # 02:30 does not exist: 03:30; 04:30 stays
    assert ["03:30-0400", "04:00-0400"] == hours(found, NEW_YORK)


def test_a_window_inside_the_gap_is_as_long_as_elsewhere_and_never_longer() -> None:
    inside = find(
        "2026-03-08T00:00", "2026-03-08T12:00", zone=NEW_YORK, duration=15, weekly={6: [(135, 165)]}
    )
    vanished = find(
        "2026-03-08T00:00", "2026-03-08T12:00", zone=NEW_YORK, duration=15, weekly={6: [(150, 180)]}
    )

    assert ["03:15-0400", "03:30-0400"] == hours(inside, NEW_YORK)
    assert [] == vanished


def test_a_doubtful_opening_and_closing_are_the_first() -> None:
    opening = find(
        "2026-11-01T00:00", "2026-11-01T12:00", zone=NEW_YORK, duration=30, weekly={6: [(90, 120)]}
    )
    closing = find("2026-11-01T00:00", "2026-11-01T12:00", zone=NEW_YORK, duration=30, weekly={6: [(30, 90)]})

    assert ["01:30-0400", "01:00-0500", "01:30-0500"] == hours(opening, NEW_YORK)
    assert ["00:30-0400", "01:00-0400"] == hours(closing, NEW_YORK)


def test_lord_howe_moves_its_clocks_by_half_an_hour() -> None:
    gained = find("2026-04-05T00:00", "2026-04-05T04:00", zone=LORD_HOWE, duration=60)
    lost = find("2026-10-04T00:00", "2026-10-04T04:00", zone=LORD_HOWE, duration=60)

    assert ["00:00+1100", "01:00+1100", "01:30+1030", "02:30+1030"] == hours(gained, LORD_HOWE)
    assert ["00:00+1030", "01:00+1030", "02:30+1100"] == hours(lost, LORD_HOWE)


def test_istanbul_keeps_its_clocks() -> None:
    found = find("2026-03-29T00:00", "2026-03-29T05:00", duration=60)

    assert ["00:00+0300", "01:00+0300", "02:00+0300", "03:00+0300", "04:00+0300"] == hours(found)


def test_a_zone_whose_midnight_does_not_exist_opens_an_hour_later() -> None:
    santiago = zone_named("America/Santiago")
    found = find("2026-09-05T23:00", "2026-09-06T03:00", zone=santiago, duration=60)

    assert ["23:00-0400", "01:00-0300", "02:00-0300"] == hours(found, santiago)


# Against a solver that tries every minute

EPOCH = datetime(2026, 3, 7, tzinfo=UTC)
SPAN = 2 * 1440 + 600
windows = st.tuples(st.integers(0, 95), st.integers(1, 95)).map(
    lambda pair: (pair[0] * 15, min(pair[0] + pair[1], 191) * 15)
)
weeks = st.none() | st.dictionaries(st.integers(0, 6), st.lists(windows, max_size=3))
periods = st.lists(
    st.tuples(st.integers(-200, SPAN + 200), st.integers(0, 600)).map(
        lambda pair: (pair[0], pair[0] + pair[1])
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(
    zone=st.sampled_from([ISTANBUL, NEW_YORK, LORD_HOWE]),
    base=st.sampled_from([EPOCH, datetime(2026, 10, 31, tzinfo=UTC), datetime(2026, 4, 4, tzinfo=UTC)]),
    bounds=st.tuples(st.integers(0, SPAN), st.integers(0, SPAN)),
    duration=st.integers(5, 300),
    step=st.integers(5, 120),
    weekly=weeks,
    override=st.lists(windows, max_size=2),
    closed=st.booleans(),
    busy=st.dictionaries(st.sampled_from("abc"), periods, min_size=1),
    mode=st.sampled_from(["all", "any"]),
    before=st.integers(0, 40),
    after=st.integers(0, 40),
    notice=st.none() | st.integers(0, SPAN),
)
def test_the_search_finds_what_trying_every_minute_finds(
    zone: ZoneInfo,
    base: datetime,
    bounds: tuple[int, int],
    duration: int,
    step: int,
    weekly: dict[int, list[Window]] | None,
    override: list[Window],
    closed: bool,
    busy: dict[str, list[tuple[int, int]]],
    mode: Mode,
    before: int,
    after: int,
    notice: int | None,
) -> None:
    zero = int(base.timestamp()) // 60
    first_day = base.astimezone(zone).date()
    plan = Hours(
        weekly,
        {first_day + timedelta(days=1): override},
        frozenset([first_day + timedelta(days=2)] if closed else []),
    )
    taken = {name: [((zero + a) * 60, (zero + b) * 60) for a, b in listed] for name, listed in busy.items()}
    search = Search(
        zone,
        ((zero + min(bounds)) * 60, (zero + max(bounds)) * 60),
        duration * 60,
        step * 60,
        plan,
        before * 60,
        after * 60,
        None if notice is None else (zero + notice) * 60,
    )

    found = list(find_slots(search, taken, mode))

    assert brute_force(search, taken, mode) == found


def brute_force(search: Search, busy: Mapping[str, list[Period]], mode: Mode) -> list[OpenSlot]:
    """Try every minute of the range against the rules as they are written."""
    opened = every_window(search)
    minutes = {minute for a, b in opened for minute in range(a // 60, b // 60)}
    found = []
    for minute in range(search.range[0] // 60, search.range[1] // 60 + 1):
        start = minute * 60
        end = start + search.duration
        if start < search.range[0] or end > search.range[1]:
            continue
        if search.earliest is not None and start < search.earliest:
            continue
        # The grid of the window that opened last, its day's touching windows taken as one.
        opening = max((a for a, b in opened if a <= start < b), default=None)
        if opening is None or (start - opening) % search.step:
            continue
        if not minutes.issuperset(range(minute, end // 60)):
            continue
        free = tuple(
            name
            for name, periods in busy.items()
            if all(b <= start - search.before or a >= end + search.after for a, b in periods if a < b)
        )
        if (mode == "all" and len(free) == len(busy)) or (mode == "any" and free):
            found.append(OpenSlot(start, end, free))
    return found


def every_window(search: Search) -> list[Period]:
    day = datetime.fromtimestamp(search.range[0], UTC).date() - timedelta(days=4)
    opened: list[Period] = []
    for _ in range(12):
        todays: list[list[int]] = []
        for a, b in search.hours.of(day):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001  # a wall time
            edges = [
                int((midnight + timedelta(minutes=edge)).replace(tzinfo=search.zone).timestamp())
                for edge in (a, b)
            ]
            if edges[0] < edges[1]:
                todays.append(edges)
        joined = True
        while joined:
            joined = False
            for one in todays:
                for other in todays:
                    if one is not other and one[0] <= other[0] <= one[1]:
                        one[1] = max(one[1], other[1])
                        todays = [each for each in todays if each is not other]
                        joined = True
                        break
                if joined:
                    break
        opened += [(a, b) for a, b in todays]
        day += timedelta(days=1)
    return opened


# Times near one that is taken


def _near(asked: Period, busy: list[Period], step: int, within: Period) -> list[Period]:
    span = Span(from_seconds(asked[0]), from_seconds(asked[1]))
    return nearest_free(Rules(step=step), span, ISTANBUL, {"primary": busy}, within)


def test_the_nearest_free_times_lie_on_both_sides_and_do_not_overlap() -> None:
    busy = [(at("2026-03-09T10:00"), at("2026-03-09T11:00"))]
    day = at("2026-03-09T00:00"), at("2026-03-10T00:00")

    found = _near((at("2026-03-09T10:00"), at("2026-03-09T10:30")), busy, 1800, day)

    assert ["08:30", "09:00", "09:30", "11:00", "11:30"] == [
        datetime.fromtimestamp(start, ISTANBUL).strftime("%H:%M") for start, _ in found
    ]


@settings(max_examples=100, deadline=None)
@given(
    busy=periods.map(lambda found: merge_periods((a * MINUTE, b * MINUTE) for a, b in found)),
    asked=st.integers(-300, SPAN),
    length=st.integers(5, 240),
    step=st.sampled_from([5, 15, 30]),
    since=st.integers(0, SPAN),
)
def test_alternatives_are_free_in_reach_and_as_near_as_can_be(
    busy: list[Period], asked: int, length: int, step: int, since: int
) -> None:
    within = (since * MINUTE, (SPAN + 2000) * MINUTE)
    period = asked * MINUTE, (asked + length) * MINUTE

    found = _near(period, busy, step * MINUTE, within)

    assert found == sorted(found)
    assert 5 == len(found)
    assert all(end - start == length * MINUTE for start, end in found)
    assert all(within[0] <= start and end <= within[1] for start, end in found)
    assert all(one[1] <= other[0] for one, other in pairwise(found))
    assert not [1 for start, end in found for a, b in busy if a < end and start < b]
    search = Search(ISTANBUL, within, length * MINUTE, step * MINUTE)
    free = [slot.start for slot in find_slots(search, {"primary": busy}, "all")]
    assert {start for start, _ in found} <= set(free)
    assert min(abs(start - period[0]) for start in free) == min(abs(start - period[0]) for start, _ in found)
