"""The search for free slots: pure arithmetic, no clock, no I/O.

    R1  all intervals are half-open: [s, e) is free when [s - before, e + after) meets no busy period
    R2  working hours are wall-clock windows per weekday; one may end at 24:00 or pass midnight, and
        belongs to the day on which it opens
    R3  starts lie on a fixed grid: from the opening of the window, every `step`; busy periods do not
        move it. Where windows overlap, the one of them that opened last sets the grid, so that hours
        round the clock start anew at each midnight, wherever the asked range begins
    R4  a slot lies wholly inside one working window (windows that overlap or touch are one) and
        wholly inside the asked range
    R5  it starts at `earliest` or later, and at `latest` or before
    R7  of several calendars `all` must be free, or `any` one, and the slot says which
    R8  slots ascend without duplicates; the first `limit` are given

Instants are whole seconds since the epoch, so that a change of clocks is no special case: a window
is turned into instants once, and from there on elapsed time counts.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from connectors.google_calendar.zones import day_start, instant

Mode = Literal["all", "any"]
#: Seconds since the epoch: from, to.
Period = tuple[int, int]
#: Minutes since the midnight of the day it opens: from, to; over 1440 it passes midnight.
Window = tuple[int, int]

#: Before and after every instant.
_FIRST, _LAST = -(2**62), 2**62
_WHOLE_DAY: Sequence[Window] = ((0, 1440),)


class OpenSlot(NamedTuple):
    """A free time, and the calendars that are free then."""

    start: int
    end: int
    calendars: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hours:
    """When work is done, in wall-clock time."""

    #: By weekday, Monday 0; a weekday that is missing is free. None: every day, round the clock.
    weekly: Mapping[int, Sequence[Window]] | None = None
    #: The hours of single days, instead of the weekday's.
    overrides: Mapping[date, Sequence[Window]] = field(default_factory=dict)
    closed: frozenset[date] = frozenset()

    @property
    def names_wall_times(self) -> bool:
        """Return whether anything in it depends on a zone."""
        return self.weekly is not None or bool(self.overrides) or bool(self.closed)

    def of(self, day: date) -> Sequence[Window]:
        """Return the windows that open on a day."""
        if day in self.closed:
            return ()
        if (windows := self.overrides.get(day)) is not None:
            return windows
        return _WHOLE_DAY if self.weekly is None else self.weekly.get(day.weekday(), ())


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for. Instants in seconds since the epoch, lengths in seconds."""

    zone: ZoneInfo
    range: Period
    duration: int
    step: int
    hours: Hours = field(default_factory=Hours)
    before: int = 0
    after: int = 0
    earliest: int | None = None
    latest: int | None = None


def find_slots(search: Search, busy: Mapping[str, Iterable[Period]], mode: Mode) -> Iterator[OpenSlot]:
    """Yield the free slots in ascending order.

    Args:
        busy: what each calendar is taken up with, in any order, overlaps allowed.
    """
    stretches = _stretches(search, busy, mode)
    since, until, free = next(stretches)
    for opening, first, last in _grids(search):
        while until <= first:
            since, until, free = next(stretches)
        while True:
            if free:
                start = _on_grid(max(since, first), opening, search.step)
                for each in range(start, min(until - 1, last) + 1, search.step):
                    yield OpenSlot(each, each + search.duration, free)
            if until > last:
                break
            since, until, free = next(stretches)


def _stretches(
    search: Search, busy: Mapping[str, Iterable[Period]], mode: Mode
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Divide all starts into stretches during which the same calendars are free, ascending.

    Of `all` calendars, those are all or none.
    """
    calendars = tuple(busy)
    forbidden = [_forbidden(search, periods) for periods in busy.values()]
    if mode == "all":
        forbidden = [_merged(period for periods in forbidden for period in periods)]
    changes = [(at, index) for index, periods in enumerate(forbidden) for period in periods for at in period]
    changes.sort()
    is_free = [True] * len(forbidden)
    since, free = _FIRST, calendars
    for at, index in changes:
        if at > since:
            yield since, at, free
            since = at
        is_free[index] = not is_free[index]
        if mode == "all":
            free = calendars if is_free[0] else ()
        else:
            free = tuple(name for name, is_it in zip(calendars, is_free, strict=True) if is_it)
    yield since, _LAST, free


def _forbidden(search: Search, periods: Iterable[Period]) -> list[Period]:
    """List the starts that a calendar's busy periods forbid."""
    # [s - before, s + duration + after) meets [a, b) where a - after - duration < s < b + before.
    return _merged(
        (start - search.after - search.duration + 1, end + search.before)
        for start, end in periods
        if start < end
    )


def _grids(search: Search) -> Iterator[tuple[int, int, int]]:
    """Yield, ascending: a grid's opening, its first start and its last."""
    daily = sorted(_windows(search))
    whole = _merged(daily)
    lowest = max(search.range[0], search.earliest if search.earliest is not None else search.range[0])
    highest = search.range[1] - search.duration
    if search.latest is not None:
        highest = min(highest, search.latest)
    at = 0
    for opening, since, until in _openings(daily):
        while whole[at][1] <= since:
            at += 1
        last = min(highest, whole[at][1] - search.duration, until - 1)
        first = _on_grid(max(since, lowest), opening, search.step)
        if first <= last:
            yield opening, first, last


def _openings(daily: Sequence[Period]) -> Iterator[tuple[int, int, int]]:
    """Yield, ascending, which opening counts from when until when: the last one still open."""
    edges = sorted({edge for window in daily for edge in window})
    current: list[Period] = []
    at = 0
    for since, until in pairwise(edges):
        current = [window for window in current if window[1] > since]
        while at < len(daily) and daily[at][0] <= since:
            current.append(daily[at])
            at += 1
        if current:
            yield current[-1][0], since, until


def _windows(search: Search) -> Iterator[Period]:
    """Yield the working windows around the asked range, merged within each day."""
    zone = search.zone
    # A day earlier: its last window may pass midnight. Clocks shift days by hours at most.
    day = datetime.fromtimestamp(search.range[0], zone).date() - timedelta(days=2)
    last = datetime.fromtimestamp(search.range[1], zone).date()
    while day <= last:
        yield from _merged(
            period
            for opens, closes in search.hours.of(day)
            if (period := (_wall(day, opens, zone), _wall(day, closes, zone)))[0] < period[1]
        )
        day += timedelta(days=1)


def _wall(day: date, minutes: int, zone: ZoneInfo) -> int:
    days, minutes = divmod(minutes, 1440)
    day += timedelta(days=days)
    if minutes == 0:
        return int(day_start(day, zone).timestamp())
    time = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60)  # noqa: DTZ001  # a wall time
    return int(instant(time, zone).timestamp())


def _on_grid(start: int, opening: int, step: int) -> int:
    """Return the first line of the grid at or after an instant."""
    return opening + -(-(start - opening) // step) * step


def _merged(periods: Iterable[Period]) -> list[Period]:
    """Sort periods, and join those that overlap or touch."""
    merged: list[Period] = []
    for start, end in sorted(periods):
        if merged and start <= merged[-1][1]:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def merge_periods(periods: Iterable[Period]) -> list[Period]:
    """Sort busy periods, and join those that overlap or touch; empty ones vanish."""
    return _merged(period for period in periods if period[0] < period[1])


def meets_any(period: Period, others: Sequence[Period]) -> bool:
    """Return whether a period overlaps one of those that are sorted and do not overlap each other."""
    at = bisect_left(others, (period[1], period[1]))
    return at > 0 and others[at - 1][1] > period[0]


def seconds_down(time: datetime) -> int:
    """Return an instant as the whole second before it."""
    return int(time.timestamp() // 1)


def seconds_up(time: datetime) -> int:
    """Return an instant as the whole second after it."""
    return -int(-time.timestamp() // 1)


def from_seconds(instant_s: int) -> datetime:
    """Return whole seconds as an instant."""
    return datetime.fromtimestamp(instant_s, UTC)
