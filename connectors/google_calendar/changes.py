"""A change of an event: read it, work out what changes, and make the change while it is what was read."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import (
    KEY_PROPERTY,
    as_hold,
    differing,
    event_id_of,
    is_ours,
    key_mark,
    recognised,
    send_updates,
)
from connectors.google_calendar.event_times import Span, event_span
from connectors.google_calendar.occupancy import HOLD_PROPERTY, Event, is_hold, private_of
from connectors.google_calendar.params import ChangeRef
from connectors.google_calendar.series import (
    SeriesTarget,
    ending_before,
    new_series_body,
    read_event,
    rest_of_series,
    target_of,
)
from connectors.sdk.errors import Conflict, ConnectorError, NotFound

#: Tries of one change: a second is needed if somebody changed the event between look and deed.
MAX_TRIES: Final = 3

#: Works out the body of a patch from what is there.
MakeBody = Callable[[SeriesTarget], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one event, or of a series."""

    ctx: Ctx
    api: CalendarApi
    ref: ChangeRef
    make_body: MakeBody
    with_conference: bool = False

    async def apply(self, target: SeriesTarget | None = None) -> Event:
        """Apply the change, and return the event; if nothing would change, nothing is sent.

        Raises:
            Conflict: it was changed meanwhile, time and again.
        """
        failure: ConnectorError | None = None
        if target is None and (done := await self.earlier_result()) is not None:
            return done
        for _ in range(MAX_TRIES):
            target = target or await target_of(self.api, self.ref)
            if target.is_split:
                return await self._go_on(target)
            body = differing(await self.make_body(target), target.event)
            if not body:
                return target.event
            try:
                return await self.patch(target.event, body)
            except Conflict as conflict:
                if reason_of(conflict) != "conditionNotMet":
                    raise
                failure, target = conflict, None
        assert failure is not None
        raise failure

    async def earlier_result(self) -> Event | None:
        """Return the series that an earlier attempt let go on, if there is one, and end the old one."""
        if self.ref.scope != "following" or not self.ctx.is_repeat:
            return None
        event_id = event_id_of(self.ctx, self.ref.calendar_id)
        try:
            event = await self.api.send(events().get(calendarId=self.ref.calendar_id, eventId=event_id))
        except NotFound:
            return None
        if event.get("status") == "cancelled" or is_hold(event) or not is_ours(event, self.ctx):
            return None
        try:
            await self.end_series(await target_of(self.api, self.ref))
        except (NotFound, Conflict):
            pass  # the occurrence is gone: the old series has ended
        return event

    async def patch(self, event: Event, body: Mapping[str, Any]) -> Event:
        """Change an event while it is what was read."""
        has_guests = bool(event.get("attendees") or body.get("attendees"))
        request = events().patch(
            calendarId=self.ref.calendar_id,
            eventId=event["id"],
            body=body,
            sendUpdates=send_updates(self.ref.notify, has_guests),
            conferenceDataVersion=int(self.with_conference),
        )
        return await self.api.send(request, etag=event.get("etag"))

    async def new_series(self, target: SeriesTarget) -> dict[str, Any]:
        """Return the body of the series that goes on from the named occurrence."""
        body = {**new_series_body(target.event), **await self.make_body(target)}
        if "start" not in body:
            span = event_span(target.named)
            body |= span.body()
        lines = body.get("recurrence") or list(target.event["recurrence"])
        body["recurrence"] = await rest_of_series(self.api, self.ref.calendar_id, target, lines)
        private = {
            **dict(private_of(new_series_body(target.event))),
            **dict(private_of(body)),
            KEY_PROPERTY: key_mark(self.ctx),
            HOLD_PROPERTY: "confirmed",
        }
        body["extendedProperties"] = {"private": private}
        return {name: value for name, value in body.items() if value is not None}

    async def end_series(self, target: SeriesTarget) -> None:
        """End the series before the named occurrence; one that does already stays as it is."""
        series = await read_event(self.api, self.ref.calendar_id, target.event["id"])
        lines = ending_before(SeriesTarget(target.named, series))
        if lines != series.get("recurrence"):
            quiet = self.ref.model_copy(update={"notify": "none"})
            await Change(self.ctx, self.api, quiet, self.make_body).patch(series, {"recurrence": lines})

    async def _go_on(self, target: SeriesTarget) -> Event:
        body = await self.new_series(target)
        event_id = event_id_of(self.ctx, self.ref.calendar_id)
        request = events().insert(
            calendarId=self.ref.calendar_id,
            body={**body, "id": event_id},
            sendUpdates=send_updates(self.ref.notify, bool(body.get("attendees"))),
            conferenceDataVersion=1,
        )
        try:
            event = await self.api.send(request)
        except Conflict as conflict:
            if reason_of(conflict) != "duplicate":
                raise
            event = await self.api.send(events().get(calendarId=self.ref.calendar_id, eventId=event_id))
            event = recognised(event, self.ctx)
        await self.end_series(target)
        return event


def hold_for(ctx: Ctx, target: SeriesTarget, span: Span, recurrence: list[str] | None) -> dict[str, Any]:
    """Return the hold of the time to which an event is moved; it tells no more than the event."""
    kept: dict[str, Any] = {
        name: target.event[name] for name in ("summary", "visibility") if name in target.event
    }
    body: dict[str, Any] = {**kept, **span.body()}
    if recurrence is not None:
        body["recurrence"] = recurrence
    return as_hold(body, ctx)
