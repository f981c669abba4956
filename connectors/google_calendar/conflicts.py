"""Which events are in the way of a time, and what times near it are free."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.event_times import Span, event_span, zone_of
from connectors.google_calendar.freebusy import fetch_busy
from connectors.google_calendar.slots import Period, from_seconds, merge_periods, nearest_free, seconds_up
from connectors.google_calendar.zones import day_start, write_instant
from connectors.sdk.errors import Conflict, ConnectorError, Unavailable

#: Times that a CONFLICT proposes, how far from the asked one they may lie, and from one to the next tried.
ALTERNATIVES: Final = 5
ALTERNATIVE_REACH: Final = timedelta(days=7)
MIN_ALTERNATIVE_STEP_S: Final = 300
MAX_ALTERNATIVE_STEP_S: Final = 1800
PAGE_SIZE: Final = 250
#: Pages of one listing: they may be empty, so their number says nothing about that of the events.
MAX_PAGES: Final = 100


@dataclass(frozen=True, slots=True)
class InTheWay:
    """The events that take up a time, and the calendar's zone."""

    events: tuple[dict[str, Any], ...]
    zone: ZoneInfo


async def pages(api: CalendarApi, **query: Any) -> AsyncIterator[dict[str, Any]]:
    """Yield the pages of a listing of events; one may be empty and not the last.

    Raises:
        Unavailable: they do not end; half a listing would be taken for the whole.
    """
    token: str | None = None
    for _ in range(MAX_PAGES):
        page = await api.send(events().list(**query, **({} if token is None else {"pageToken": token})))
        yield page
        token = page.get("nextPageToken")
        if not token:
            return
    raise Unavailable(f"Google Calendar's listing did not end after {MAX_PAGES} pages")


async def find_in_the_way(api: CalendarApi, calendar_id: str, span: Span) -> InTheWay:
    """List the events that take up a time; of a recurring one, the occurrence.

    Listed rather than asked of freeBusy, which tells when, and not which: an event that is moved must
    not be in its own way.
    """
    since, until = _bounds(span)
    found: list[dict[str, Any]] = []
    zone: ZoneInfo | None = None
    async for page in pages(
        api, calendarId=calendar_id, timeMin=since, timeMax=until, singleEvents=True, maxResults=PAGE_SIZE
    ):
        zone = zone or zone_of(page, span.zone)
        found += page.get("items") or ()
    assert zone is not None
    start, end = span.period(zone)
    taken = []
    for event in found:
        if _takes_time(event):
            other = event_span(event).period(zone)
            if other[0] < end and start < other[1]:
                taken.append(event)
    return InTheWay(tuple(taken), zone)


def _bounds(span: Span) -> tuple[str, str]:
    start, end = span.start, span.end
    if isinstance(start, datetime) and isinstance(end, datetime):
        return start.isoformat(), end.isoformat()
    # Days of a zone that is not known yet: a day more on either side, looked at again afterwards.
    utc = ZoneInfo("UTC")
    day = timedelta(days=1)
    return (day_start(start - day, utc)).isoformat(), (day_start(end + day, utc)).isoformat()


def _takes_time(event: Mapping[str, Any]) -> bool:
    """Return whether an event takes up the calendar's owner: what freeBusy would have left out does not."""
    has_declined = any(
        guest.get("self") and guest.get("responseStatus") == "declined"
        for guest in event.get("attendees") or ()
    )
    return (
        event.get("status") != "cancelled"
        and event.get("transparency") != "transparent"
        and event.get("eventType") not in {"workingLocation", "birthday"}
        and not has_declined
    )


async def taken(
    api: CalendarApi, calendar_id: str, span: Span, found: InTheWay, *, now: datetime | None = None
) -> Conflict:
    """Create the error of a time that is taken, with the nearest times that are free."""
    zone = span.zone or found.zone
    busy = merge_periods(event_span(event).period(found.zone) for event in found.events)
    try:
        alternatives = await _alternatives(api, calendar_id, span, found.zone, now or datetime.now(UTC))
    except ConnectorError:
        alternatives = []  # that the time is taken is the answer, proposals or not
    return Conflict(
        "the time is taken; error.data.alternatives holds the nearest free ones",
        data={
            "reason": "taken",
            "busy": [{"start": _write(start, zone), "end": _write(end, zone)} for start, end in busy],
            "alternatives": [_write_span(each, zone) for each in alternatives],
        },
    )


async def _alternatives(
    api: CalendarApi, calendar_id: str, span: Span, zone: ZoneInfo, now: datetime
) -> list[Span]:
    asked, reach = span.period(zone), int(ALTERNATIVE_REACH.total_seconds())
    earliest = max(asked[0] - reach, seconds_up(now))
    latest = max(asked[1], earliest) + reach
    busy = merge_periods((await fetch_busy(api, [calendar_id], (earliest, latest)))[calendar_id])
    if span.is_all_day:
        return _nearest_days(span, busy, earliest, zone)
    step = min(max(asked[1] - asked[0], MIN_ALTERNATIVE_STEP_S), MAX_ALTERNATIVE_STEP_S)
    found = nearest_free(asked, busy, step, (earliest, latest), ALTERNATIVES)
    return [Span(from_seconds(start), from_seconds(end), span.zone) for start, end in found]


def _nearest_days(span: Span, busy: list[Period], earliest: int, zone: ZoneInfo) -> list[Span]:
    found: list[Span] = []
    for distance in range(1, ALTERNATIVE_REACH.days):
        for shift in (timedelta(days=distance), -timedelta(days=distance)):
            days = Span(span.start + shift, span.end + shift)
            start, end = days.period(zone)
            if start >= earliest and not any(a < end and start < b for a, b in busy):
                found.append(days)
    return sorted(found[:ALTERNATIVES], key=lambda days: days.start)


def _write(instant_s: int, zone: ZoneInfo) -> str:
    return write_instant(from_seconds(instant_s), zone)


def _write_span(span: Span, zone: ZoneInfo) -> dict[str, str]:
    if isinstance(span.start, datetime) and isinstance(span.end, datetime):
        return {"start": write_instant(span.start, zone), "end": write_instant(span.end, zone)}
    return {"start": span.start.isoformat(), "end": (span.end - timedelta(days=1)).isoformat()}
