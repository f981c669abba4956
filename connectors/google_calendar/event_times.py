"""An event's times: from what a job says to what Google is told, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.slots import Period, seconds_down, seconds_up
from connectors.google_calendar.zones import day_start, instant, zone_named, zone_names
from connectors.sdk.errors import InvalidParams, Unavailable


class Times(Protocol):
    """The parameters that say when."""

    @property
    def time_zone(self) -> ZoneInfo | None:
        """The zone of local times."""

    @property
    def start(self) -> date | datetime | None:
        """A day, a local time or an instant."""

    @property
    def end(self) -> date | datetime | None:
        """The same; of days, the last."""

    @property
    def duration_minutes(self) -> int | None:
        """Instead of the end."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when: instants in UTC, or days with the end exclusive, as Google has it."""

    start: date | datetime
    end: date | datetime
    #: In which the times are written; None: in UTC.
    zone: ZoneInfo | None = None
    #: In which the end is written, if it is another one: a flight lands elsewhere.
    end_zone: ZoneInfo | None = None

    @property
    def is_all_day(self) -> bool:
        """Return whether it lasts whole days."""
        return not isinstance(self.start, datetime)

    def body(self, *, replacing: bool = False) -> dict[str, Any]:
        """Return `start` and `end` for Google.

        Args:
            replacing: in a patch, which merges: clear the other form.
        """
        end_zone = self.end_zone or self.zone
        return {
            "start": self._write(self.start, self.zone, replacing),
            "end": self._write(self.end, end_zone, replacing),
        }

    def _write(self, time: date | datetime, zone: ZoneInfo | None, replacing: bool) -> dict[str, Any]:
        if not isinstance(time, datetime):
            gone = {"dateTime": None, "timeZone": None} if replacing else {}
            return {"date": time.isoformat()} | gone
        written = {"dateTime": time.astimezone(zone or UTC).isoformat()}
        if zone is not None:
            written["timeZone"] = zone.key
        return written | ({"date": None} if replacing else {})

    def is_like(self, other: "Span") -> bool:
        """Return whether it is the same time; a zone that is not named may be any."""
        times = (self.start, self.end) == (other.start, other.end) and self.is_all_day == other.is_all_day
        zones = self.zone in {None, other.zone} and self.end_zone in {None, other.end_zone}
        return times and zones

    def period(self, zone: ZoneInfo) -> Period:
        """Return it as seconds; days are days of the zone."""
        start, end = _as_instant(self.start, zone), _as_instant(self.end, zone)
        return seconds_down(start), seconds_down(end) if end <= start else seconds_up(end)


async def calendar_zone(api: CalendarApi, calendar_id: str) -> ZoneInfo:
    """Return a calendar's own time zone.

    A listing tells it to everybody who may see the calendar, within the scope for events.
    """
    answer = await api.send(events().list(calendarId=calendar_id, maxResults=1, fields="timeZone"))
    return zone_of(answer, None)


def known_zone(listing: Mapping[str, Any], otherwise: ZoneInfo | None) -> ZoneInfo | None:
    """Return the time zone that a listing of events names, or another if that one is not known."""
    name = str(listing.get("timeZone"))
    return zone_named(name) if name in zone_names() else otherwise


def zone_of(listing: Mapping[str, Any], otherwise: ZoneInfo | None) -> ZoneInfo:
    """Return the time zone that a listing of events names.

    Args:
        otherwise: if the tzdata package does not know that one.

    Raises:
        InvalidParams: neither is known; the job has to name one.
    """
    zone = known_zone(listing, otherwise)
    if zone is None:
        raise InvalidParams.field("time_zone", "is required: the calendar's own zone is not a known one")
    return zone


async def span_of(times: Times, api: CalendarApi, calendar_id: str, *, needs_zone: bool = False) -> Span:
    """Return a new event's times; the calendar's zone is fetched only if it decides.

    Args:
        needs_zone: a recurring event says in which zone it recurs.
    """
    start, end = times.start, times.end
    assert start is not None
    if not isinstance(start, datetime):
        return _days(start, end)
    zone = await _zone_for(times, api, calendar_id, needs_zone)
    return _timed(start, end, times.duration_minutes, zone)


async def moved_span(times: Times, api: CalendarApi, calendar_id: str, old: Span) -> Span:
    """Return the new times of an existing event; fields not given keep their values.

    Raises:
        InvalidParams: the new times make no sense beside the old ones.
    """
    start = old.start if times.start is None else times.start
    if not isinstance(start, datetime):
        if times.duration_minutes is not None:
            raise InvalidParams.field(
                "duration_minutes", "is for timed events; end names the last day of an all-day event"
            )
        if times.end is None and old.is_all_day:
            return Span(start, start + (old.end - old.start))  # type: ignore[operator]  # days both
        return _days(start, times.end)
    read_in = await _zone_for(times, api, calendar_id, False)
    # A zone that the job names is that of both times; else each keeps its own.
    zone, end_zone = times.time_zone or old.zone or read_in, None
    if times.time_zone is None:
        end_zone = old.end_zone
    if times.end is not None or times.duration_minutes is not None:
        span = _timed(start, times.end, times.duration_minutes, read_in)
    elif not isinstance(old.start, datetime) or not isinstance(old.end, datetime):
        raise InvalidParams.field("duration_minutes", "is required, or end: the event was all-day")
    else:
        begin = _as_instant(start, read_in)
        span = Span(begin, begin + (old.end - old.start))
    return replace(span, zone=zone, end_zone=end_zone)


async def _zone_for(times: Times, api: CalendarApi, calendar_id: str, needs_zone: bool) -> ZoneInfo | None:
    if times.time_zone is not None:
        return times.time_zone
    is_local = any(isinstance(time, datetime) and time.tzinfo is None for time in (times.start, times.end))
    return await calendar_zone(api, calendar_id) if is_local or needs_zone else None


def _days(start: date, end: date | datetime | None) -> Span:
    if isinstance(end, datetime):
        raise InvalidParams.field("end", "must be a day, as start is")
    last = start if end is None else end
    if last < start:
        raise InvalidParams.field("end", "comes before start")
    return Span(start, last + timedelta(days=1))


def _timed(
    start: datetime, end: date | datetime | None, duration_minutes: int | None, zone: ZoneInfo | None
) -> Span:
    begin = _as_instant(start, zone)
    if duration_minutes is not None:
        return Span(begin, begin + timedelta(minutes=duration_minutes), zone)
    if not isinstance(end, datetime):
        raise InvalidParams.field("end", "must be a time, as start is")
    until = _as_instant(end, zone)
    if until <= begin:
        raise InvalidParams.field("end", "must come after start")
    return Span(begin, until, zone)


def _as_instant(time: date | datetime, zone: ZoneInfo | None) -> datetime:
    if isinstance(time, datetime) and time.tzinfo is not None:
        return time.astimezone(UTC)
    assert zone is not None
    return instant(time, zone) if isinstance(time, datetime) else day_start(time, zone)


def event_span(event: Mapping[str, Any]) -> Span:
    """Read an event's times as Google gives them.

    Raises:
        Unavailable: they are not there, or not times.
    """
    try:
        start, end = event["start"], event["end"]
        if "date" in start:
            return Span(date.fromisoformat(start["date"]), date.fromisoformat(end["date"]))
        zone, end_zone = _zone_in(start), _zone_in(end)
        return Span(
            datetime.fromisoformat(start["dateTime"]).astimezone(UTC),
            datetime.fromisoformat(end["dateTime"]).astimezone(UTC),
            zone,
            None if end_zone == zone else end_zone,
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Unavailable("Google Calendar returned an event without valid times") from None


def _zone_in(time: Mapping[str, Any]) -> ZoneInfo | None:
    name = time.get("timeZone")
    return zone_named(name) if name in zone_names() else None
