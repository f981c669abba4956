"""book_appointment: of many who want a time at once, exactly one gets it; see `holds` for how."""

from typing import Any

from connectors.google_calendar.cancelling import calendar_of, undo_event
from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.connector import WRITE_ERRORS, google_calendar
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import confirm_body, hold_body, is_ours, send_updates
from connectors.google_calendar.event_times import span_of
from connectors.google_calendar.holds import HoldProtocol, latest_of
from connectors.google_calendar.models import EventAnswer, short_answer
from connectors.google_calendar.occupancy import Event
from connectors.google_calendar.params import BookAppointment
from connectors.google_calendar.rules import read_rules
from connectors.google_calendar.wanted import Wanted
from connectors.sdk import Effect
from connectors.sdk.errors import Conflict, NotFound, PermissionDenied


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def book_appointment(params: BookAppointment, ctx: Ctx) -> EventAnswer:
    """Book a time if it is free; of many who try at once, exactly one gets it.

    The rules are those of find_available_slots. If the time is taken or outside of them, the error is a
    CONFLICT with the nearest free times in `data.alternatives`.
    """
    api = CalendarApi(ctx)
    span = await span_of(params, api, params.calendar_id)
    rules = read_rules(params, params.calendars or ())
    wanted = Wanted(api, params.calendar_id, span, rules, params.allow_past)
    if not ctx.is_repeat:
        wanted.refuse_past()
    protocol = HoldProtocol(ctx, wanted, hold_body(params, ctx, span), becomes_result=True)

    async def confirm(hold: Event) -> Event | None:
        return await _confirm(api, params, hold)

    event, created = await protocol.get(confirm)
    event = await with_conference(api, params.calendar_id, event)
    return short_answer(event, params.calendar_id, created=created)


@book_appointment.undo
async def undo_booking(ctx: Ctx, params: BookAppointment | None, result: dict[str, Any] | None) -> None:
    """Cancel the appointment, or the hold that was placed."""
    api, calendar_id = CalendarApi(ctx), calendar_of(params, result)
    if result is not None:
        event_id = result["event_id"]
    else:
        _, event = await latest_of(ctx, api, calendar_id)
        if event is None or not is_ours(event, ctx):
            return
        event_id = event["id"]
    await undo_event(api, calendar_id, event_id, notify=None if params is None else params.notify)


async def _confirm(api: CalendarApi, params: BookAppointment, hold: Event) -> Event | None:
    """Turn the hold into the appointment; return None if it is not that hold any more."""
    request = events().patch(
        calendarId=params.calendar_id,
        eventId=hold["id"],
        body=confirm_body(params, hold["id"]),
        sendUpdates=send_updates(params.notify, bool(params.attendees)),
        conferenceDataVersion=int(params.meet),
    )
    try:
        return await api.send(request, etag=hold.get("etag"))
    except (Conflict, NotFound):
        return None
    except PermissionDenied as denied:
        if reason_of(denied) == "forbidden":
            return None  # Google's answer to a change of a cancelled event
        raise
