"""A time that a job wants: what is in its way, and what is free near it."""

from asyncio import to_thread
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.client import CalendarApi
from connectors.google_calendar.event_times import Span, zone_of
from connectors.google_calendar.freebusy import busy_times, fetch_busy
from connectors.google_calendar.listing import TIMES_ALONE, Listed, bounds_of, list_between, utc_now
from connectors.google_calendar.occupancy import Event, meets, root_of
from connectors.google_calendar.rules import Rules, nearest_days, nearest_free, reach_of
from connectors.google_calendar.slots import Period, from_seconds, meets_any, merge_periods, seconds_up
from connectors.google_calendar.zones import write_instant
from connectors.sdk.errors import Conflict, ConnectorError, InvalidParams, PermissionDenied

#: How far the occurrences of a series that is moved are compared with other events.
SERIES_REACH: Final = timedelta(days=2 * 366)

_UTC: Final = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Blocker:
    """An event that stands in the way."""

    event: Event
    calendar_id: str
    period: Period


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What is in the way of a time."""

    taken: tuple[Blocker, ...]
    #: Holds without a job: they take nothing, and are removed.
    given_up: tuple[Blocker, ...]
    #: In which days and wall times are read; None if the calendar's is unknown.
    zone: ZoneInfo | None
    #: Whether the listing shows the hold that it was asked about.
    shows_hold: bool = False

    def without(self, is_itself: Callable[[Event], bool]) -> "Obstacles":
        """Return the rest, less the events that may stay."""
        return replace(self, taken=tuple(each for each in self.taken if not is_itself(each.event)))


def nothing(_event: Mapping[str, Any]) -> bool:
    """Return that an event is not the one that wants the time."""
    return False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A time, the calendar it is wanted in, and the rules that it must fit.

    Args:
        is_itself: whether an event is the one that is moved, which is never in its own way.
        is_series: the time is the first of a series; its occurrences are those of the hold.
    """

    api: CalendarApi
    calendar_id: str
    span: Span
    rules: Rules = field(default_factory=Rules)
    allow_past: bool = False
    is_itself: Callable[[Event], bool] = nothing
    is_series: bool = False

    async def look(self, hold: Event | None = None) -> Obstacles:
        """Return what is in the way, in every calendar that must be free."""
        own = await self._list(self.calendar_id)
        zone = own.zone if self.span.zone is None else self.span.zone
        wanted = [self._period(own)] if not self.is_series else self._occurrences(own, hold)
        taken, given_up = self._blockers(own, self.calendar_id, wanted)
        for calendar_id in self.rules.calendars:
            if calendar_id != self.calendar_id:
                more, old = await self._look_beside(calendar_id, wanted)
                taken, given_up = taken + more, given_up + old
        shows_hold = hold is not None and any(root_of(event) == hold["id"] for event in own.events)
        return Obstacles(tuple(taken), tuple(given_up), zone, shows_hold)

    def refuse_past(self) -> None:
        """Raise if the time has begun already.

        Raises:
            InvalidParams: it has, and the job does not allow that.
        """
        if not self.allow_past and is_past(self.span, utc_now()):
            raise InvalidParams.field("start", "is in the past; set allow_past if that is meant")

    def fits(self, zone: ZoneInfo | None) -> bool:
        """Return whether the rules allow the time, if it is free."""
        earliest = None if self.allow_past else seconds_up(utc_now()) + self.rules.notice
        if earliest is not None and not self.rules.notice:
            earliest = None  # a day that has begun is not past
        return self.rules.allows(self.span, self._zone(zone), earliest=earliest)

    async def refusal(self, found: Obstacles, *, reason: str = "taken") -> Conflict:
        """Return the error of a time that cannot be had, with the nearest times that can."""
        message = {
            "taken": "the time is taken; error.data.alternatives holds the nearest free ones",
            "outside_rules": "working hours, notice or step do not allow the time; error.data.alternatives "
            "holds the nearest that they do",
        }[reason]
        others = [each for each in found.taken if not self.is_itself(each.event)]
        zone = self._zone(found.zone, of_output=True)
        busy = merge_periods(each.period for each in others)
        try:
            alternatives = [] if self.is_series else await self._alternatives(self._zone(found.zone))
        except ConnectorError:
            alternatives = []  # that the time is taken is the answer, proposals or not
        return Conflict(
            message,
            data={
                "reason": reason,
                "busy": [{"start": _write(start, zone), "end": _write(end, zone)} for start, end in busy],
                "alternatives": [_write_span(each, zone) for each in alternatives],
            },
        )

    async def _list(self, calendar_id: str) -> Listed:
        bounds = bounds_of(self.span, self.rules.before, self.rules.after)
        if self.is_series:
            bounds = (bounds[0], bounds[0] + SERIES_REACH)
        return await list_between(self.api, calendar_id, bounds, self.span.zone)

    def _period(self, listed: Listed) -> Period:
        return self.span.period(zone_of({}, listed.zone) if self.span.is_all_day else _UTC)

    def _occurrences(self, listed: Listed, hold: Event | None) -> list[Period]:
        of_hold = [] if hold is None else [e for e in listed.events if root_of(e) == hold["id"]]
        periods = [listed.period_of(event) for event in of_hold]
        now = seconds_up(utc_now())
        return [period for period in periods if period[1] > now]  # what is past is in no one's way

    def _blockers(
        self, listed: Listed, calendar_id: str, wanted: Sequence[Period]
    ) -> tuple[list[Blocker], list[Blocker]]:
        if not wanted:
            return [], []
        now, all_of = utc_now(), merge_periods(self.rules.widened(period) for period in wanted)
        whole = all_of[0][0], all_of[-1][1]
        found = []
        for events in (listed.occupying(whole, now), listed.given_up(whole, now)):
            blockers = [Blocker(event, calendar_id, listed.period_of(event)) for event in events]
            found.append([each for each in blockers if meets_any(each.period, all_of)])
        taken = [each for each in found[0] if not self.is_itself(each.event)]
        return taken, found[1]

    async def _look_beside(
        self, calendar_id: str, wanted: Sequence[Period]
    ) -> tuple[list[Blocker], list[Blocker]]:
        """Look into another calendar; if this account sees times alone there, free/busy has to do."""
        try:
            listed = await self._list(calendar_id)
        except PermissionDenied:
            listed = None
        if listed is not None and listed.role != TIMES_ALONE:
            return self._blockers(listed, calendar_id, wanted)
        widened = [self.rules.widened(period) for period in wanted]
        whole = min(start for start, _ in widened), max(end for _, end in widened)
        busy = (await fetch_busy(self.api, [calendar_id], whole))[calendar_id]
        met = [period for period in merge_periods(busy) if any(meets(period, each) for each in widened)]
        return [Blocker({"id": ""}, calendar_id, period) for period in met], []

    async def _alternatives(self, zone: ZoneInfo) -> list[Span]:
        now, span = utc_now(), self.span
        within = reach_of(self.rules, span.period(zone), now)
        calendars = list(dict.fromkeys([self.calendar_id, *self.rules.calendars]))
        busy = await busy_times(self.api, calendars, self.rules.widened(within), now, sweeps=True)
        if span.is_all_day:
            return nearest_days(self.rules, span, zone, busy, within)
        found = await to_thread(nearest_free, self.rules, span, zone, busy, within)
        return [replace(span, start=from_seconds(start), end=from_seconds(end)) for start, end in found]

    def _zone(self, zone: ZoneInfo | None, *, of_output: bool = False) -> ZoneInfo:
        needs_zone = self.span.is_all_day or self.rules.hours.names_wall_times or self.rules.step is not None
        if zone is None and needs_zone and not of_output:
            return zone_of({}, None)  # says that the job has to name one
        return zone or _UTC


def is_past(span: Span, now: datetime) -> bool:
    """Return whether a time has begun; a day, whether it is over everywhere."""
    if isinstance(span.start, datetime):
        return span.start < now
    return span.start < (now - timedelta(hours=12)).date()


def _write(instant_s: int, zone: ZoneInfo) -> str:
    return write_instant(from_seconds(instant_s), zone)


def _write_span(span: Span, zone: ZoneInfo) -> dict[str, str]:
    if isinstance(span.start, datetime) and isinstance(span.end, datetime):
        return {"start": write_instant(span.start, zone), "end": write_instant(span.end, zone)}
    return {"start": span.start.isoformat(), "end": (span.end - timedelta(days=1)).isoformat()}
