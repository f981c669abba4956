"""A series: which event a change is about, and the series that goes on with it.

this        the event that is named; naming a whole series so is refused
all         the series; what is past would change too, so a move of it needs `allow_past` then
following   the series ends before the named occurrence, and a new one goes on from there
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.event_times import Span, event_span
from connectors.google_calendar.fields import OWN_PREFIX
from connectors.google_calendar.listing import MAX_PAGES
from connectors.google_calendar.occupancy import Event, private_of, root_of
from connectors.google_calendar.params import ChangeRef
from connectors.google_calendar.rrule import count_before, names_days, shift_lines, with_count, with_until
from connectors.google_calendar.zones import instant
from connectors.sdk.errors import Conflict, InvalidParams, Unavailable

#: Fields of a series that the one which goes on keeps; its guests and its Meet are its own.
_KEPT: Final = (
    "summary",
    "description",
    "location",
    "transparency",
    "visibility",
    "colorId",
    "reminders",
    "guestsCanInviteOthers",
    "guestsCanModify",
    "guestsCanSeeOtherGuests",
    "conferenceData",
)
INSTANCES_PAGE: Final = 2500


@dataclass(frozen=True, slots=True)
class SeriesTarget:
    """What a change is about.

    Args:
        named: the event that the job names.
        event: the one that is changed: the same, or its series.
        is_split: the series ends before `named`, and a new one goes on.
    """

    named: Event
    event: Event
    is_split: bool = False

    @property
    def is_series(self) -> bool:
        """Return whether more than one occurrence is changed."""
        return bool(self.event.get("recurrence"))


async def read_event(api: CalendarApi, calendar_id: str, event_id: str) -> Event:
    """Return an event that is not cancelled.

    Raises:
        Conflict: it is cancelled.
    """
    event = await api.send(events().get(calendarId=calendar_id, eventId=event_id))
    if event.get("status") == "cancelled":
        raise Conflict("the event is cancelled", data={"reason": "cancelled", "event_id": event["id"]})
    return event


async def target_of(api: CalendarApi, ref: ChangeRef) -> SeriesTarget:
    """Return what a change is about.

    Raises:
        InvalidParams: a whole series is named, and the scope is one occurrence.
    """
    return await target_from(api, ref, await read_event(api, ref.calendar_id, ref.event_id))


async def target_from(api: CalendarApi, ref: ChangeRef, named: Event) -> SeriesTarget:
    """Return what a change is about, its event having been read."""
    if ref.scope == "this":
        if named.get("recurrence"):
            raise InvalidParams.field(
                "scope", "is required: event_id names a whole series; name an occurrence, or all of it"
            )
        return SeriesTarget(named, named)
    if "recurringEventId" not in named:
        return SeriesTarget(named, named)  # a single event, or all of a series from its first occurrence on
    series = await read_event(api, ref.calendar_id, root_of(named))
    is_first = original_start(named) == event_span(series).start
    return SeriesTarget(named, series, is_split=ref.scope == "following" and not is_first)


def original_start(occurrence: Event) -> date | datetime:
    """Return when an occurrence takes place by its series' rule."""
    original = occurrence.get("originalStartTime") or occurrence["start"]
    return event_span({"start": original, "end": original}).start


def shifted(target: SeriesTarget, span: Span) -> tuple[Span, list[str]]:
    """Return the times and the lines of a series whose named occurrence is moved to a time.

    Raises:
        InvalidParams: the rule names days, and the day is another.
    """
    old, series = event_span(target.named), event_span(target.event)
    lines = list(target.event.get("recurrence") or ())
    shift = _wall(span, span.start) - _wall(old, old.start)
    if shift.days and names_days(lines) and abs(shift) >= timedelta(days=1):
        raise InvalidParams.field(
            "start", "is another day, but the series' rule names days: give its recurrence, too"
        )
    zone = span.zone or series.zone
    start = _moved(series, series.start, shift)
    if target.is_split:
        start = span.start
    return Span(start, start + _length(span), zone, span.end_zone), shift_lines(lines, shift, zone)


async def rest_of_series(
    api: CalendarApi, calendar_id: str, target: SeriesTarget, lines: list[str]
) -> list[str]:
    """Return the lines of the series that goes on from the named occurrence: a COUNT is what is left of it."""
    count = count_of(lines)
    if count is None:
        return lines
    start = original_start(target.named)
    past = count_before(target.event.get("recurrence") or (), start)
    token: str | None = None
    for _ in range(MAX_PAGES):
        more = {} if token is None else {"pageToken": token}
        page = await api.send(
            events().instances(
                calendarId=calendar_id,
                eventId=target.event["id"],
                showDeleted=True,
                maxResults=INSTANCES_PAGE,
                **more,
            )
        )
        past += sum(_is_before(each, start) for each in page.get("items") or ())
        token = page.get("nextPageToken")
        if not token:
            return [with_count(line, count - past) for line in lines]
    raise Unavailable(f"Google Calendar's listing did not end after {MAX_PAGES} pages")


def count_of(lines: list[str]) -> int | None:
    """Return the COUNT of a rule, if it has one."""
    for line in lines:
        for part in line.removeprefix("RRULE:").split(";"):
            if part.startswith("COUNT="):
                return int(part[6:])
    return None


def ending_before(target: SeriesTarget) -> list[str]:
    """Return the lines of the series that ends before the named occurrence."""
    start = original_start(target.named)
    return [with_until(line, start) for line in target.event.get("recurrence") or ()]


def new_series_body(series: Event) -> dict[str, Any]:
    """Return what the series that goes on takes over, less its times."""
    body: dict[str, Any] = {name: series[name] for name in _KEPT if name in series}
    private = {name: value for name, value in private_of(series).items() if not name.startswith(OWN_PREFIX)}
    if private:
        body["extendedProperties"] = {"private": private}
    if series.get("attendees"):
        body["attendees"] = [_invited(guest) for guest in series["attendees"]]
    return body


def _invited(guest: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("email", "displayName", "optional", "resource", "comment", "additionalGuests")
    return {name: guest[name] for name in kept if name in guest}


def _length(span: Span) -> timedelta:
    if isinstance(span.start, datetime) and isinstance(span.end, datetime):
        return span.end - span.start
    return _wall(span, span.end) - _wall(span, span.start)


def _is_before(occurrence: Event, start: date | datetime) -> bool:
    return _as_text(original_start(occurrence)) < _as_text(start)


def _as_text(time: date | datetime) -> str:
    return time.astimezone(UTC).isoformat() if isinstance(time, datetime) else time.isoformat()


def _wall(span: Span, time: date | datetime) -> datetime:
    if not isinstance(time, datetime):
        return datetime(time.year, time.month, time.day)  # noqa: DTZ001  # a wall time
    return time.astimezone(span.zone).replace(tzinfo=None) if span.zone else time.replace(tzinfo=None)


def _moved(span: Span, time: date | datetime, shift: timedelta) -> date | datetime:
    if not isinstance(time, datetime) or span.zone is None:
        return time + shift
    return instant(_wall(span, time) + shift, span.zone)
