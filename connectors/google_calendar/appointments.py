"""find_appointments: the coming appointments of a caller."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from connectors.google_calendar.client import CalendarApi, Ctx
from connectors.google_calendar.connector import READ_ERRORS, google_calendar
from connectors.google_calendar.cursors import ListingPlace, read_cursor, write_cursor
from connectors.google_calendar.event_times import calendar_zone, event_span
from connectors.google_calendar.listing import pages, utc_now
from connectors.google_calendar.matching import is_about
from connectors.google_calendar.models import Appointment, appointment
from connectors.google_calendar.occupancy import Event, is_hold
from connectors.google_calendar.params import Coming, FindAppointments
from connectors.google_calendar.zones import instant
from connectors.sdk import Effect
from connectors.sdk.errors import InvalidParams

#: How far ahead is looked unless the job says: a series may go on for ever.
REACH: Final = timedelta(days=366)
#: Events of one page, and what is read of each.
SCAN_SIZE: Final = 500
FIELDS: Final = (
    "nextPageToken,items(id,status,summary,description,location,start,end,recurringEventId,eventType,"
    "attendees(email,displayName),extendedProperties/private)"
)


class Appointments(BaseModel):
    """Appointments of a caller, by their start."""

    model_config = ConfigDict(frozen=True)

    appointments: list[Appointment]
    truncated: bool = Field(description="Whether there are more; `cursor` asks for them.")
    cursor: str | None


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def find_appointments(params: FindAppointments, ctx: Ctx) -> Appointments:
    """Find a caller's coming appointments by phone, e-mail address, name or private properties.

    Each is compared with what was asked, phones as numbers. Without range_end, a year ahead.
    """
    api = CalendarApi(ctx)
    place = read_cursor(params, params.cursor)
    since, until = await range_of(params, api, params.calendars[0], place)
    until = until or since + REACH
    first = 0 if place is None else place.skip
    last = first + params.limit
    found = await _earliest(api, params, since, until, last + 1)
    is_cut = len(found) > last
    return Appointments(
        appointments=found[first:last],
        truncated=is_cut,
        cursor=write_cursor(params, ListingPlace(since=since, skip=last)) if is_cut else None,
    )


async def _earliest(
    api: CalendarApi, params: FindAppointments, since: datetime, until: datetime, count: int
) -> list[Appointment]:
    """Return the first matches of all calendars together, by their start."""
    found: list[tuple[str, str, Appointment]] = []
    for calendar_id in params.calendars:
        missing = count
        async for event in _matches(api, calendar_id, params, since, until):
            found.append((_order(event), event["id"], appointment(event, calendar_id)))
            if (missing := missing - 1) == 0:
                break
    return [each for *_, each in sorted(found, key=lambda row: row[:2])][:count]


async def range_of(
    params: Coming, api: CalendarApi, calendar_id: str, place: ListingPlace | None
) -> tuple[datetime, datetime | None]:
    """Return between when events are listed: from now on, unless the job says otherwise.

    Raises:
        InvalidParams: the range is empty.
    """
    zone, bounds = params.time_zone, (params.range_start, params.range_end)
    if zone is None and any(time is not None and time.tzinfo is None for time in bounds):
        zone = await calendar_zone(api, calendar_id)
    since, until = (time if time is None or zone is None else instant(time, zone) for time in bounds)
    since = since if place is None else place.since
    if until is not None and since is None and until <= utc_now():
        raise InvalidParams.field("range_end", "is past, and the range begins now; give range_start")
    since = since or utc_now()
    if until is not None and until <= since:
        raise InvalidParams.field("range_end", "must come after range_start")
    return since, until


async def _matches(
    api: CalendarApi, calendar_id: str, params: FindAppointments, since: datetime, until: datetime
) -> AsyncIterator[Event]:
    async for page in pages(api, **_query(calendar_id, params, since, until)):
        for event in page.get("items") or ():
            if not is_hold(event) and is_about(event, params):
                yield event


def _query(calendar_id: str, params: FindAppointments, since: datetime, until: datetime) -> dict[str, Any]:
    query: dict[str, Any] = {
        "calendarId": calendar_id,
        "singleEvents": True,
        "orderBy": "startTime",
        "timeMin": since.isoformat(),
        "timeMax": until.isoformat(),
        "maxResults": SCAN_SIZE,
        "fields": FIELDS,
        "eventTypes": ["default", "fromGmail"],
    }
    # Google finds words; the many ways to write a phone number it does not find.
    if params.email is not None:
        query["q"] = params.email
    if params.private_properties:
        query["privateExtendedProperty"] = [f"{k}={v}" for k, v in params.private_properties.items()]
    return query


def _order(event: Event) -> str:
    start = event_span(event).start
    return start.isoformat()
