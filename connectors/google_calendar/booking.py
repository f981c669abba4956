"""book_appointment: of many who want a time at once, exactly one gets it.

Google refuses no double booking, and looking before creating is a race. What Google does refuse is a
second event of one id, and a change to an event that is no longer what was read (If-Match). So:

1. look: where the time is taken, say so
2. create the event as a *hold*: tentative, without guests, under the id that the job's key leads to
3. look again. Holds are ranked by (created, id), the same for all who look:
   - an event that is no hold, or a hold ahead of ours: take ours back, and say that the time is taken
   - holds behind ours: delete each, if it still is that hold
4. confirm ours, if it still is that hold; now the guests are invited

Each event is thus either confirmed or deleted, once, whoever comes first. Two that overlap cannot both
be confirmed: the one created later has seen the other at 3, and could go on only by deleting it. And
one is: the hold ranked first is stopped by nothing but a confirmed event.

A hold whose worker was killed is found again by its job, under its id, and goes on at 3. One whose job
never came again is ignored after a while, and removed by whoever books that time.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.conflicts import InTheWay, find_in_the_way, taken
from connectors.google_calendar.connector import WRITE_ERRORS, google_calendar
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import (
    SEND_UPDATES,
    confirm_body,
    event_id_of,
    hold_body,
    is_hold,
    is_ours,
    recognised,
)
from connectors.google_calendar.event_times import Span, span_of
from connectors.google_calendar.events import calendar_of, delete_event
from connectors.google_calendar.models import EventAnswer, short_answer
from connectors.google_calendar.params import BookAppointment
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, ConnectorError, NotFound, PermissionDenied, Unavailable

#: A hold older than this is nobody's: far longer than an action takes, its takeover after a crash included.
HOLD_LIFETIME: Final = timedelta(minutes=10)
#: Holds that one key may place: a deleted event's id stays taken, so each has another.
MAX_HOLDS: Final = 20
#: Looks at step 3; a second is needed only where somebody changed a hold between look and deed.
MAX_LOOKS: Final = 10
#: Seconds for taking a hold back after a failure, on top of the failure's own time.
WITHDRAW_TIMEOUT_S: Final = 3.0

Event = dict[str, Any]


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def book_appointment(params: BookAppointment, ctx: Ctx) -> EventAnswer:
    """Book a time if it is free; of many who try at once, exactly one gets it.

    Where it is taken, the error is a CONFLICT with the nearest free times in `data.alternatives`.
    """
    api = CalendarApi(ctx)
    span = await span_of(params, api, params.calendar_id)
    booking = _Booking(ctx, api, params, span)
    event, created = await booking.hold()
    if is_hold(event):
        event = await booking.settle(event)
    event = await with_conference(api, params.calendar_id, event)
    return short_answer(event, params.calendar_id, created=created)


@book_appointment.undo
async def undo_booking(ctx: Ctx, params: BookAppointment | None, result: dict[str, Any] | None) -> None:
    """Cancel the appointment, or the hold that was placed."""
    api, calendar_id = CalendarApi(ctx), calendar_of(params, result)
    if result is not None:
        event_id = result["event_id"]
    else:
        _, event = await _latest(ctx, api, calendar_id)
        if event is None or not is_ours(event, ctx):
            return
        event_id = event["id"]
    await delete_event(api, calendar_id, event_id, notify="none" if params is None else params.notify)


@dataclass(frozen=True, slots=True)
class _Booking:
    """One try to book."""

    ctx: Ctx
    api: CalendarApi
    params: BookAppointment
    span: Span

    async def hold(self) -> tuple[Event, bool]:
        """Place a hold, or find the event that an earlier run of this job has made.

        Raises:
            Conflict: the time is taken, or the event was made before and is cancelled.
        """
        calendar_id, found = self.params.calendar_id, await self._look()
        others = [each for each in found.events if not is_ours(each, self.ctx) and not _is_stale(each)]
        # A repeated try places its hold even so: the insert of the one before may still be on its way, and
        # must find the id taken rather than leave a hold behind that nobody owns.
        if others and self.ctx.attempt == 1:
            _, event = await _latest(self.ctx, self.api, calendar_id)
            if event is None or event["status"] == "cancelled" or not is_ours(event, self.ctx):
                raise await self._taken(found)
            return event, False
        serial = 0
        while serial < MAX_HOLDS:
            body = hold_body(self.params, self.ctx, self.span, serial)
            try:
                return await self.api.send(events().insert(calendarId=calendar_id, body=body)), True
            except Conflict as conflict:
                if reason_of(conflict) != "duplicate":
                    raise
            serial, event = await _latest(self.ctx, self.api, calendar_id)
            if event is not None:
                return recognised(event, self.ctx), False
        raise Conflict(
            f"{MAX_HOLDS} tries to book under this idempotency key were given up; use a new key",
            data={"reason": "cancelled"},
        )

    async def settle(self, event: Event) -> Event:
        """Turn our hold into the appointment, or take it back.

        Raises:
            Conflict: somebody else got the time.
        """
        try:
            for _ in range(MAX_LOOKS):
                found = await self._look()
                rivals = [each for each in found.events if each["id"] != event["id"]]
                if any(_is_ahead(rival, event) for rival in rivals):
                    if await self._remove(event):
                        raise await self._taken(found)
                elif await self._remove_all(rivals) and (confirmed := await self._confirm(event)):
                    return confirmed
                event = await self._read(event["id"])
                if event["status"] == "cancelled":
                    raise await self._taken(await self._look())
                if not is_hold(event):
                    return event  # another worker, which took this job over, was faster
            raise Unavailable(f"gave up after {MAX_LOOKS} rounds of conflicting holds")
        except Conflict:
            raise
        except ConnectorError:
            await self._withdraw(event)
            raise

    async def _look(self) -> InTheWay:
        return await find_in_the_way(self.api, self.params.calendar_id, self.span)

    async def _read(self, event_id: str) -> Event:
        return await self.api.send(events().get(calendarId=self.params.calendar_id, eventId=event_id))

    async def _confirm(self, hold: Event) -> Event | None:
        """Create the hold the appointment; None where it is not that hold any more."""
        request = events().patch(
            calendarId=self.params.calendar_id,
            eventId=hold["id"],
            body=confirm_body(self.params, hold["id"]),
            sendUpdates=SEND_UPDATES[self.params.notify],
            conferenceDataVersion=int(self.params.meet),
        )
        try:
            return await self.api.send(request, etag=hold.get("etag"))
        except (Conflict, NotFound):
            return None
        except PermissionDenied as denied:
            if reason_of(denied) == "forbidden":
                return None  # Google's answer to a change of a cancelled event
            raise

    async def _remove_all(self, holds: Sequence[Event]) -> bool:
        return all([await self._remove(hold) for hold in holds])

    async def _remove(self, hold: Event) -> bool:
        """Delete a hold, another's or our own; False where it is not that hold any more."""
        try:
            await delete_event(self.api, self.params.calendar_id, hold["id"], etag=hold.get("etag"))
        except Conflict:
            return False
        return True

    async def _withdraw(self, hold: Event) -> None:
        """Try to leave nothing behind after a failure.

        Where that fails, too, the job finds its hold when it comes again.
        """
        try:
            async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                await self._remove(hold)
        except (ConnectorError, TimeoutError):
            self.ctx.log.info("hold left behind", event_id=hold["id"])

    async def _taken(self, found: InTheWay) -> Conflict:
        others = tuple(each for each in found.events if not is_ours(each, self.ctx))
        return await taken(self.api, self.params.calendar_id, self.span, InTheWay(others, found.zone))


async def _latest(ctx: Ctx, api: CalendarApi, calendar_id: str) -> tuple[int, Event | None]:
    """Find this job's event behind the holds that were given up, and its serial; or the first unused one."""
    for serial in range(MAX_HOLDS):
        try:
            event = await api.send(
                events().get(calendarId=calendar_id, eventId=event_id_of(ctx, calendar_id, serial))
            )
        except NotFound:
            return serial, None
        if event["status"] != "cancelled" or not is_hold(event):
            return serial, event
    return MAX_HOLDS, None


def _is_ahead(rival: Event, ours: Event) -> bool:
    """Return whether we have to give way: to what is no hold, and to a hold of a better rank."""
    if not is_hold(rival):
        return True
    return not _is_stale(rival) and _rank(rival) < _rank(ours)


def _rank(hold: Event) -> tuple[str, str]:
    # Google writes `created` itself, always in the same form.
    return str(hold.get("created")), hold["id"]


def _is_stale(event: Event) -> bool:
    """Return whether it is a hold whose job must have ended long ago."""
    if not is_hold(event):
        return False
    try:
        created = datetime.fromisoformat(event["created"])
    except (KeyError, ValueError, TypeError):
        return False
    return created.tzinfo is not None and datetime.now(UTC) - created > HOLD_LIFETIME
