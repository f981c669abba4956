"""The actions on events: create, get and list; and the list of calendars."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from connectors.google_calendar.appointments import range_of
from connectors.google_calendar.cancelling import calendar_of, undo_event
from connectors.google_calendar.client import CalendarApi, Ctx, calendar_list, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.connector import READ_ERRORS, WRITE_ERRORS, google_calendar
from connectors.google_calendar.cursors import ListingPlace, read_cursor, write_cursor
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import (
    conference_request,
    event_id_of,
    guests_of,
    is_ours,
    key_mark,
    new_body,
    recognised,
    send_updates,
)
from connectors.google_calendar.event_times import Span, span_of
from connectors.google_calendar.listing import MAX_PAGES, PAGE_SIZE, utc_now
from connectors.google_calendar.models import (
    EventAnswer,
    EventDetails,
    EventEntry,
    full_answer,
    list_entry,
    short_answer,
)
from connectors.google_calendar.occupancy import Event, is_given_up
from connectors.google_calendar.params import CreateEvent, EventRef, ListEvents
from connectors.google_calendar.rrule import write_lines
from connectors.google_calendar.wanted import Wanted
from connectors.sdk import Effect
from connectors.sdk.errors import Conflict, Unavailable


class Events(BaseModel):
    """Events, by their start."""

    model_config = ConfigDict(frozen=True)

    events: list[EventDetails | EventEntry] = Field(description="In full or in short, as `fields` says.")
    truncated: bool = Field(description="Whether there are more; `cursor` asks for them.")
    cursor: str | None


class CalendarEntry(BaseModel):
    """A calendar of the account."""

    model_config = ConfigDict(frozen=True)

    calendar_id: str
    name: str
    time_zone: str | None
    access_role: str | None


class Calendars(BaseModel):
    """The calendars of the account."""

    model_config = ConfigDict(frozen=True)

    calendars: list[CalendarEntry]


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def create_event(params: CreateEvent, ctx: Ctx) -> EventAnswer:
    """Create an event, once per idempotency key.

    A date as `start` makes it all-day, `end` then being its last day. Two events may overlap unless
    `conflict_check` is set; to be sure of a time, use book_appointment.
    """
    api = CalendarApi(ctx)
    span = await span_of(params, api, params.calendar_id, needs_zone=params.recurrence is not None)
    wanted = Wanted(api, params.calendar_id, span, allow_past=params.allow_past)
    if not ctx.is_repeat:
        wanted.refuse_past()
    if params.conflict_check:
        await _refuse_taken(ctx, wanted)
    event, created = await _insert(ctx, api, params, _body(params, ctx, span))
    event = await with_conference(api, params.calendar_id, event)
    return short_answer(event, params.calendar_id, created=created)


def _body(params: CreateEvent, ctx: Ctx, span: Span) -> dict[str, Any]:
    event_id = event_id_of(ctx, params.calendar_id)
    body = {"id": event_id, **new_body(params, key_mark(ctx)), **span.body()}
    if params.attendees:
        body["attendees"] = guests_of(params.attendees)
    if params.recurrence is not None:
        body["recurrence"] = write_lines(params.recurrence, span.start, span.zone)
    if params.meet:
        body["conferenceData"] = conference_request(event_id)
    return body


async def _insert(
    ctx: Ctx, api: CalendarApi, params: CreateEvent, body: dict[str, Any]
) -> tuple[Event, bool]:
    """Insert the event, or return the one that an earlier run has made, and whether it is new."""
    request = events().insert(
        calendarId=params.calendar_id,
        body=body,
        conferenceDataVersion=int(params.meet),
        sendUpdates=send_updates(params.notify, bool(params.attendees)),
    )
    try:
        return await api.send(request), True
    except Conflict as conflict:
        if reason_of(conflict) != "duplicate":
            raise
    event = await api.send(events().get(calendarId=params.calendar_id, eventId=body["id"]))
    return recognised(event, ctx), False


@create_event.undo
async def undo_create(ctx: Ctx, params: CreateEvent | None, result: dict[str, Any] | None) -> None:
    """Cancel the event that was created."""
    calendar_id = calendar_of(params, result)
    event_id = result["event_id"] if result else event_id_of(ctx, calendar_id)
    notify = None if params is None else params.notify
    await undo_event(CalendarApi(ctx), calendar_id, event_id, notify=notify)


async def _refuse_taken(ctx: Ctx, wanted: Wanted) -> None:
    found = (await wanted.look()).without(lambda event: is_ours(event, ctx))
    if found.taken:
        raise await wanted.refusal(found)


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_event(params: EventRef, ctx: Ctx) -> EventDetails:
    """Return one event; a cancelled one has the status `cancelled`."""
    event = await CalendarApi(ctx).send(events().get(calendarId=params.calendar_id, eventId=params.event_id))
    return full_answer(event, params.calendar_id)


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def list_events(params: ListEvents, ctx: Ctx) -> Events:
    """List events by their start, from now on, each occurrence of a series by itself."""
    api = CalendarApi(ctx)
    place = read_cursor(params, params.cursor)
    since, until = await range_of(params, api, params.calendar_id, place)
    place = place or ListingPlace(since=since, size=min(params.limit + 1, PAGE_SIZE))
    found, rest = await _read_rows(api, _query(params, since, until, place.size), place, params.limit)
    as_answer = full_answer if params.fields == "full" else list_entry
    return Events(
        events=[as_answer(event, params.calendar_id) for event in found],
        truncated=rest is not None,
        cursor=None if rest is None else write_cursor(params, rest),
    )


async def _read_rows(
    api: CalendarApi, query: dict[str, Any], place: ListingPlace, limit: int
) -> tuple[list[Event], ListingPlace | None]:
    """Return the next events of a listing, and where it goes on if there are more."""
    found: list[Event] = []
    for _ in range(MAX_PAGES):
        more = {} if place.page is None else {"pageToken": place.page}
        page = await api.send(events().list(**query, **more))
        for at, event in enumerate(page.get("items") or ()):
            if at < place.skip or is_given_up(event, utc_now()):
                continue
            if len(found) == limit:
                return found, place.model_copy(update={"skip": at})
            found.append(event)
        if not page.get("nextPageToken"):
            return found, None
        place = place.model_copy(update={"page": page["nextPageToken"], "skip": 0})
    raise Unavailable(f"Google Calendar's listing did not end after {MAX_PAGES} pages")


def _query(params: ListEvents, since: datetime, until: datetime | None, size: int | None) -> dict[str, Any]:
    query: dict[str, Any] = {
        "calendarId": params.calendar_id,
        "singleEvents": True,
        "orderBy": "startTime",
        "timeMin": since.isoformat(),
        "timeMax": None if until is None else until.isoformat(),
        "timeZone": None if params.time_zone is None else params.time_zone.key,
        "q": params.query,
        "eventTypes": params.event_types,
        "maxResults": size,
    }
    if params.private_properties:
        query["privateExtendedProperty"] = [
            f"{name}={value}" for name, value in params.private_properties.items()
        ]
    return {name: value for name, value in query.items() if value is not None}


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def list_calendars(ctx: Ctx) -> Calendars:
    """List the calendars on the account's own list."""
    api = CalendarApi(ctx)
    found: list[CalendarEntry] = []
    token: str | None = None
    for _ in range(MAX_PAGES):
        more = {} if token is None else {"pageToken": token}
        page = await api.send(calendar_list().list(maxResults=PAGE_SIZE, **more))
        found += [
            CalendarEntry(
                calendar_id=entry["id"],
                name=entry.get("summaryOverride") or entry.get("summary") or entry["id"],
                time_zone=entry.get("timeZone"),
                access_role=entry.get("accessRole"),
            )
            for entry in page.get("items") or ()
        ]
        token = page.get("nextPageToken")
        if not token:
            break
    return Calendars(calendars=found)


@google_calendar.check
async def ask_for_one_calendar(ctx: Ctx) -> None:
    """Fetch one entry of the account's own list."""
    await CalendarApi(ctx).send(calendar_list().list(maxResults=1))
