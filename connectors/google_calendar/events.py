"""The actions on events: create, get, update, reschedule, cancel, list; and the list of calendars."""

from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from connectors.google_calendar.client import CalendarApi, Ctx, calendar_list, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.conflicts import MAX_PAGES, PAGE_SIZE, InTheWay, find_in_the_way, pages, taken
from connectors.google_calendar.connector import READ_ERRORS, WRITE_ERRORS, google_calendar
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import (
    SEND_UPDATES,
    conference_request,
    differing,
    event_id_of,
    guests_of,
    is_ours,
    key_mark,
    new_body,
    patch_body,
    recognised,
)
from connectors.google_calendar.event_times import Span, calendar_zone, event_span, moved_span, span_of
from connectors.google_calendar.models import EventAnswer, EventDetails, full_answer, short_answer
from connectors.google_calendar.params import (
    CancelEvent,
    CreateEvent,
    EventRef,
    ListEvents,
    RescheduleEvent,
    UpdateEvent,
)
from connectors.google_calendar.rrule import names_local_times, write_lines
from connectors.google_calendar.zones import instant
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, ConnectorError, NotFound
from connectors.sdk.http.request import invalid


class Events(BaseModel):
    """Events, by their start."""

    model_config = ConfigDict(frozen=True)

    events: list[EventDetails]
    truncated: bool


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
    event_id = event_id_of(ctx, params.calendar_id)
    if params.conflict_check:
        found = await find_in_the_way(api, params.calendar_id, span)
        await _refuse_taken(api, params.calendar_id, span, found, lambda event: is_ours(event, ctx))
    body = {"id": event_id, **new_body(params, key_mark(ctx)), **span.body()}
    if params.attendees:
        body["attendees"] = guests_of(params.attendees)
    if params.recurrence is not None:
        body["recurrence"] = write_lines(params.recurrence, span.start, span.zone)
    if params.meet:
        body["conferenceData"] = conference_request(event_id)
    request = events().insert(
        calendarId=params.calendar_id,
        body=body,
        conferenceDataVersion=int(params.meet),
        sendUpdates=SEND_UPDATES[params.notify],
    )
    try:
        event, created = await api.send(request), True
    except Conflict as conflict:
        if reason_of(conflict) != "duplicate":
            raise
        event = await api.send(events().get(calendarId=params.calendar_id, eventId=event_id))
        event, created = recognised(event, ctx), False
    event = await with_conference(api, params.calendar_id, event)
    return short_answer(event, params.calendar_id, created=created)


@create_event.undo
async def undo_create(ctx: Ctx, params: CreateEvent | None, result: dict[str, Any] | None) -> None:
    """Cancel the event that was created."""
    calendar_id = calendar_of(params, result)
    event_id = result["event_id"] if result else event_id_of(ctx, calendar_id)
    await delete_event(
        CalendarApi(ctx), calendar_id, event_id, notify=params.notify if params is not None else "none"
    )


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_event(params: EventRef, ctx: Ctx) -> EventDetails:
    """Return one event; a cancelled one has the status `cancelled`."""
    event = await CalendarApi(ctx).send(events().get(calendarId=params.calendar_id, eventId=params.event_id))
    return full_answer(event, params.calendar_id)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_event(params: UpdateEvent, ctx: Ctx) -> EventDetails:
    """Change the fields given, and nothing else."""
    api = CalendarApi(ctx)

    async def change(event: dict[str, Any]) -> dict[str, Any]:
        body = patch_body(params, event, event_id_of(ctx, params.calendar_id))
        span = event_span(event)
        if params.start is not None or params.end is not None or params.duration_minutes is not None:
            old, span = span, await moved_span(params, api, params.calendar_id, span)
            if not span.is_like(old):
                body |= span.body(replacing=True)
        if params.recurrence is not None:
            zone = await _recurrence_zone(params, api, span)
            body["recurrence"] = write_lines(params.recurrence, span.start, zone)
        return body

    event = await _patch(api, params, change, notify=params.notify, conference=params.meet is not None)
    return full_answer(await with_conference(api, params.calendar_id, event), params.calendar_id)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def reschedule_event(params: RescheduleEvent, ctx: Ctx) -> EventDetails:
    """Move an event to another time; guests, Meet link, description and all else stay as they are."""
    api = CalendarApi(ctx)

    async def change(event: dict[str, Any]) -> dict[str, Any]:
        old = event_span(event)
        span = await moved_span(params, api, params.calendar_id, old)
        if span.is_like(old):
            return {}
        if params.conflict_check:
            found = await find_in_the_way(api, params.calendar_id, span)
            series = event.get("recurringEventId", event["id"])
            itself = {event["id"]} if "recurringEventId" in event else {series}

            def is_itself(other: Mapping[str, Any]) -> bool:
                return other["id"] in itself or other.get("recurringEventId") in itself

            await _refuse_taken(api, params.calendar_id, span, found, is_itself)
        return span.body(replacing=True)

    event = await _patch(api, params, change, notify=params.notify)
    return full_answer(event, params.calendar_id)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def cancel_event(params: CancelEvent, ctx: Ctx) -> EventDetails:
    """Cancel an event; one that is cancelled already is answered the same."""
    api = CalendarApi(ctx)
    try:
        event = await api.send(events().get(calendarId=params.calendar_id, eventId=params.event_id))
    except NotFound as gone:
        # On a repeated try it may be ours that is gone for good.
        if ctx.attempt > 1 or reason_of(gone) == "deleted":
            event = {"id": params.event_id}
        else:
            raise
    else:
        if event.get("status") != "cancelled":
            await delete_event(api, params.calendar_id, params.event_id, notify=params.notify)
    return full_answer({**event, "status": "cancelled"}, params.calendar_id)


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def list_events(params: ListEvents, ctx: Ctx) -> Events:
    """List events by their start, each occurrence of a recurring one by itself."""
    api = CalendarApi(ctx)
    query: dict[str, Any] = {"calendarId": params.calendar_id, "singleEvents": True, "orderBy": "startTime"}
    bounds = {"timeMin": params.range_start, "timeMax": params.range_end}
    zone = params.time_zone
    if zone is None and any(time is not None and time.tzinfo is None for time in bounds.values()):
        zone = await calendar_zone(api, params.calendar_id)
    for name, time in bounds.items():
        if time is not None:
            query[name] = (time if zone is None else instant(time, zone)).isoformat()
    if "timeMin" in query and "timeMax" in query and query["timeMax"] <= query["timeMin"]:
        raise invalid("range_end", "must come after range_start")  # written in UTC both
    if params.time_zone is not None:
        query["timeZone"] = params.time_zone.key
    if params.query is not None:
        query["q"] = params.query
    if params.private_properties:
        query["privateExtendedProperty"] = [
            f"{name}={value}" for name, value in params.private_properties.items()
        ]
    found: list[EventDetails] = []
    async for page in pages(api, **query, maxResults=min(params.limit + 1, PAGE_SIZE)):
        found += [full_answer(event, params.calendar_id) for event in page.get("items") or ()]
        if len(found) > params.limit:
            break
    return Events(events=found[: params.limit], truncated=len(found) > params.limit)


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


async def delete_event(
    api: CalendarApi, calendar_id: str, event_id: str, *, notify: str = "none", etag: str | None = None
) -> None:
    """Cancel an event; one that is not there, or not any more, is as good."""
    request = events().delete(calendarId=calendar_id, eventId=event_id, sendUpdates=SEND_UPDATES[notify])
    try:
        await api.send(request, etag=etag)
    except NotFound:
        pass


def calendar_of(params: Any, result: Mapping[str, Any] | None) -> str:
    """Return which calendar an undo is about: the default one where nothing else is known."""
    if result is not None:
        return str(result["calendar_id"])
    return "primary" if params is None else str(params.calendar_id)


async def _patch(
    api: CalendarApi,
    params: UpdateEvent | RescheduleEvent,
    change: Callable[[dict[str, Any]], Any],
    *,
    notify: str,
    conference: bool = False,
) -> dict[str, Any]:
    """Read an event, work out the change, and make it while the event is what was read.

    Where nothing would change, nothing is sent, and nobody is told.

    Raises:
        Conflict: it was changed meanwhile, twice.
    """
    failure: ConnectorError | None = None
    for _ in range(2):
        event = await api.send(events().get(calendarId=params.calendar_id, eventId=params.event_id))
        if event.get("status") == "cancelled":
            raise Conflict("the event is cancelled", data={"reason": "cancelled", "event_id": event["id"]})
        body = differing(await change(event), event)
        if not body:
            return event
        request = events().patch(
            calendarId=params.calendar_id,
            eventId=params.event_id,
            body=body,
            sendUpdates=SEND_UPDATES[notify],
            conferenceDataVersion=int(conference),
        )
        try:
            return await api.send(request, etag=event.get("etag"))
        except Conflict as conflict:
            if reason_of(conflict) != "conditionNotMet":
                raise
            failure = conflict
    assert failure is not None
    raise failure


async def _refuse_taken(
    api: CalendarApi,
    calendar_id: str,
    span: Span,
    found: InTheWay,
    is_itself: Callable[[Mapping[str, Any]], bool],
) -> None:
    others = tuple(event for event in found.events if not is_itself(event))
    if others:
        raise await taken(api, calendar_id, span, InTheWay(others, found.zone))


async def _recurrence_zone(params: UpdateEvent, api: CalendarApi, span: Span) -> ZoneInfo | None:
    if span.is_all_day or span.zone is not None:
        return span.zone
    if params.recurrence is not None and names_local_times(params.recurrence):
        return await calendar_zone(api, params.calendar_id)
    return ZoneInfo("UTC")
