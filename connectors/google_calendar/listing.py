"""Listings of events: their pages, and which of them take up a time."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.event_times import Span, event_span, known_zone, zone_of
from connectors.google_calendar.occupancy import Event, is_given_up, meets, takes_time
from connectors.google_calendar.slots import Period
from connectors.google_calendar.zones import day_start
from connectors.sdk.errors import Unavailable

PAGE_SIZE: Final = 250
#: Pages of one listing: they may be empty, so their number says nothing about that of the events.
MAX_PAGES: Final = 100
#: The role of somebody who sees times alone: not what takes them.
TIMES_ALONE: Final = "freeBusyReader"

_UTC: Final = ZoneInfo("UTC")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Listed:
    """The events of a time, in one calendar."""

    events: tuple[Event, ...]
    #: The calendar's own zone, or the one that the job names; None if neither is known.
    zone: ZoneInfo | None
    role: str

    def occupying(self, period: Period, now: datetime) -> tuple[Event, ...]:
        """Return those that take up a time."""
        return tuple(e for e in self.events if takes_time(e, now) and meets(self.period_of(e), period))

    def given_up(self, period: Period, now: datetime) -> tuple[Event, ...]:
        """Return the holds without a job that stand in a time."""
        return tuple(e for e in self.events if is_given_up(e, now) and meets(self.period_of(e), period))

    def period_of(self, event: Event) -> Period:
        """Return when an event takes place; days are days of the calendar's zone."""
        span = event_span(event)
        return span.period(zone_of({}, self.zone) if span.is_all_day else _UTC)


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


async def list_between(
    api: CalendarApi,
    calendar_id: str,
    bounds: tuple[datetime, datetime],
    zone: ZoneInfo | None = None,
    **query: Any,
) -> Listed:
    """List the events between two instants, each occurrence of a series by itself.

    Args:
        zone: the calendar's, if the listing does not name a known one.
    """
    found: list[Event] = []
    known, role = zone, ""
    async for page in pages(
        api,
        calendarId=calendar_id,
        timeMin=bounds[0].isoformat(),
        timeMax=bounds[1].isoformat(),
        singleEvents=True,
        maxResults=PAGE_SIZE,
        **query,
    ):
        known, role = known_zone(page, zone), str(page.get("accessRole"))
        found += page.get("items") or ()
    return Listed(tuple(found), known, role)


def bounds_of(span: Span, before_s: int = 0, after_s: int = 0) -> tuple[datetime, datetime]:
    """Return the instants between which the events that meet a span take place."""
    start, end = span.start, span.end
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        # Days of a zone that is not known yet: a day more on either side, looked at again afterwards.
        start, end = day_start(start - _DAY, _UTC), day_start(end + _DAY, _UTC)
    return start - timedelta(seconds=before_s), end + timedelta(seconds=after_s)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
