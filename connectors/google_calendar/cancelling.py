"""cancel_event, and the undo of what this connector creates."""

from collections.abc import Mapping
from typing import Any

from connectors.google_calendar.changes import Change
from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.connector import WRITE_ERRORS, google_calendar
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import send_updates
from connectors.google_calendar.models import EventDetails, full_answer
from connectors.google_calendar.occupancy import Event
from connectors.google_calendar.params import CancelEvent
from connectors.google_calendar.series import SeriesTarget, ending_before, target_from
from connectors.sdk import Effect
from connectors.sdk.errors import NotFound


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def cancel_event(params: CancelEvent, ctx: Ctx) -> EventDetails:
    """Cancel an event; one that is cancelled already is answered the same."""
    api = CalendarApi(ctx)
    try:
        event = await api.send(events().get(calendarId=params.calendar_id, eventId=params.event_id))
    except NotFound as gone:
        # On a repeated try it may be ours that is gone for good.
        if not ctx.is_repeat and reason_of(gone) != "deleted":
            raise
        event = {"id": params.event_id}
    else:
        if event.get("status") != "cancelled":
            event = await _cancel(ctx, api, params, await target_from(api, params, event))
    return full_answer({**event, "status": "cancelled"}, params.calendar_id)


async def _cancel(ctx: Ctx, api: CalendarApi, params: CancelEvent, target: SeriesTarget) -> Event:
    if not target.is_split:
        told = send_updates(params.notify, bool(target.event.get("attendees")))
        await api.remove(params.calendar_id, target.event["id"], send_updates=told)
        return target.event

    async def end(current: SeriesTarget) -> dict[str, Any]:
        return {"recurrence": ending_before(current)}

    await Change(ctx, api, params, end).apply(SeriesTarget(target.named, target.event))
    return target.named


async def undo_event(api: CalendarApi, calendar_id: str, event_id: str, *, notify: str | None) -> None:
    """Cancel what a job made; that it is gone already has to be proven.

    Raises:
        NotFound: the calendar itself is not found, so that nothing is known of the event.
    """
    if not await api.is_gone(calendar_id, event_id):
        await api.remove(calendar_id, event_id, send_updates=send_updates(notify, True))


def calendar_of(params: Any, result: Mapping[str, Any] | None) -> str:
    """Return which calendar an undo is about: the default one if nothing else is known."""
    if result is not None:
        return str(result["calendar_id"])
    return "primary" if params is None else str(params.calendar_id)
