"""The rules by which a time may be booked: those of the search, for one time and for what is near it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.event_times import Span
from connectors.google_calendar.params import RuleParams
from connectors.google_calendar.slots import (
    Hours,
    Period,
    Search,
    find_slots,
    meets_any,
    merge_periods,
    seconds_up,
)

#: Times that a CONFLICT proposes, how far from the asked one they may lie, and from one to the next tried.
ALTERNATIVES: Final = 5
ALTERNATIVE_REACH: Final = timedelta(days=7)
MIN_ALTERNATIVE_STEP_S: Final = 300
MAX_ALTERNATIVE_STEP_S: Final = 1800

_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTE_S: Final = 60


@dataclass(frozen=True, slots=True)
class Rules:
    """What a time must fit beside being free; lengths in seconds."""

    #: Calendars that must be free, too.
    calendars: tuple[str, ...] = ()
    hours: Hours = field(default_factory=Hours)
    before: int = 0
    after: int = 0
    notice: int = 0
    #: None: any second may be a start.
    step: int | None = None

    def search(self, zone: ZoneInfo, within: Period, duration: int, *, earliest: int | None) -> Search:
        """Return the search for free times of a length; any second may be a start if no step is given."""
        return Search(
            zone,
            within,
            duration,
            self.step or 1,
            self.hours,
            self.before,
            self.after,
            earliest=earliest,
        )

    def allows(self, span: Span, zone: ZoneInfo, *, earliest: int | None) -> bool:
        """Return whether the search would offer a time if all calendars were free."""
        start, end = span.period(zone)
        search = self.search(zone, (start, end), end - start, earliest=earliest)
        return next(find_slots(search, {"": ()}, "all"), None) is not None

    def widened(self, period: Period) -> Period:
        """Return a time with the buffers around it."""
        return period[0] - self.before, period[1] + self.after


def read_rules(params: RuleParams, calendars: Sequence[str] = ()) -> Rules:
    """Return the rules that a job gives."""
    weekly = None
    if params.working_hours is not None:
        weekly = {_WEEKDAYS.index(day): windows for day, windows in params.working_hours.items()}
    return Rules(
        tuple(calendars),
        Hours(weekly, params.overrides, frozenset(params.closed_dates)),
        params.buffer_before_minutes * _MINUTE_S,
        params.buffer_after_minutes * _MINUTE_S,
        params.min_notice_minutes * _MINUTE_S,
        None if params.step_minutes is None else params.step_minutes * _MINUTE_S,
    )


def reach_of(rules: Rules, asked: Period, now: datetime) -> Period:
    """Return between when alternatives are looked for."""
    reach = int(ALTERNATIVE_REACH.total_seconds())
    earliest = max(asked[0] - reach, seconds_up(now) + rules.notice)
    return earliest, max(asked[1], earliest) + reach


def nearest_free(
    rules: Rules, span: Span, zone: ZoneInfo, busy: Mapping[str, Sequence[Period]], within: Period
) -> list[Period]:
    """Return the times nearest to one that is taken, ascending: of its length, by the same rules.

    They do not overlap each other: a choice of times is a choice only if they differ.
    """
    asked = span.period(zone)
    length = asked[1] - asked[0]
    step = rules.step or min(max(length, MIN_ALTERNATIVE_STEP_S), MAX_ALTERNATIVE_STEP_S)
    search = Search(zone, within, length, step, rules.hours, rules.before, rules.after)
    starts = [slot.start for slot in find_slots(search, busy, "all")]
    chosen: list[Period] = []
    for start in sorted(starts, key=lambda start: (abs(start - asked[0]), -start)):
        if not meets_any((start, start + length), chosen):
            chosen = sorted([*chosen, (start, start + length)])
            if len(chosen) == ALTERNATIVES:
                break
    return chosen


def nearest_days(
    rules: Rules, span: Span, zone: ZoneInfo, busy: Mapping[str, Sequence[Period]], within: Period
) -> list[Span]:
    """Return the runs of days nearest to one that is taken, ascending, by the same rules."""
    taken = merge_periods(period for periods in busy.values() for period in periods)
    found: list[Span] = []
    for distance in range(1, ALTERNATIVE_REACH.days):
        for shift in (timedelta(days=distance), -timedelta(days=distance)):
            days = Span(span.start + shift, span.end + shift)
            is_free = not meets_any(rules.widened(days.period(zone)), taken)
            if is_free and rules.allows(days, zone, earliest=within[0]):
                found.append(days)
    return sorted(found[:ALTERNATIVES], key=lambda days: days.start)
