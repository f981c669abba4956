"""The protocol by which one of many gets a time: bookings and moves stand on it.

Google refuses no double booking, and looking before writing is a race. What Google does refuse is a second
event of one id, and a change to an event that is no longer what was read (If-Match). So:

1. look: if the time is taken, say so
2. insert a *hold*: a tentative event without guests, under the id that the job's key leads to
3. look again, until the listing shows our hold: then it shows what came before it, too. Holds are ranked by
   (created, id), the same for all who look:
   - an event that is no hold, or a hold ahead of ours: remove ours, and say that the time is taken
   - holds behind ours, and those without a job: remove each, if it still is that hold
4. finish: a booking confirms its hold, if it still is that hold; a move moves its event, then removes the hold

Two that overlap cannot both finish: the one inserted later has seen the other at 3, and could go on only by
removing it. And one does: the hold ranked first is stopped by nothing but an event that is no hold.

A hold whose worker was killed is found again by its job, under its id, and goes on at 3. After a failure it
is removed by a compensating call, which passes the pauses that the failure has set; one that has to be left
behind is named in the error, counts for ten minutes, and is removed by the next who wants that time.

The second line is a lease on the calendar, among all workers of one ledger: Google promises neither that two
inserts of one id are told apart, nor in which order a listing shows what was written.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import event_id_of, is_ours, recognised
from connectors.google_calendar.listing import utc_now
from connectors.google_calendar.occupancy import HOLD_LIFETIME, Event, is_given_up, is_hold, root_of
from connectors.google_calendar.wanted import Blocker, Obstacles, Wanted
from connectors.sdk.errors import Conflict, ConnectorError, NotFound, PermissionDenied, Sent, Unavailable

#: Holds that one key may place: a deleted event's id stays taken, so each has another.
MAX_HOLDS: Final = 20
#: Seconds before each look at step 3. A second look is needed only if somebody changed a hold between look and
#: deed, or if the listing lags behind.
LOOKS_S: Final = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0)
#: Seconds after which a look is looked again, having waited for the lease.
FRESH_LOOK_S: Final = 0.05

_RETIRED: Final = {
    "status": "cancelled",
    "start": {"dateTime": "1970-01-01T00:00:00Z", "date": None},
    "end": {"dateTime": "1970-01-01T00:01:00Z", "date": None},
}

#: Does what the hold was placed for; None if the hold is no longer what was read.
Finish = Callable[[Event], Awaitable[Event | None]]


@dataclass(frozen=True, slots=True)
class HoldProtocol:
    """One try to get a time.

    Args:
        body: of the hold, less its id.
        becomes_result: the hold becomes the result, as a booking's does; otherwise it is removed at the end.
    """

    ctx: Ctx
    wanted: Wanted
    body: Event
    becomes_result: bool

    async def get(self, finish: Finish) -> tuple[Event, bool]:
        """Get the time and finish, or return what an earlier run of this job has made, and whether it is new.

        Raises:
            Conflict: the time is taken, or the event was made before and is cancelled.
        """
        if (found_before := await self._look_first()) is not None:
            return found_before, False
        asked_at_s = time.monotonic()
        async with self.ctx.lease(f"calendar:{self.wanted.calendar_id}"):
            # Others may have been let in meanwhile: who has lost already places no hold.
            has_waited = time.monotonic() - asked_at_s > FRESH_LOOK_S
            if has_waited and (found_before := await self._look_first()) is not None:
                return found_before, False
            hold, is_new = await self._place()
            if not is_hold(hold):
                return hold, False
            return await self._settle(hold, finish), is_new

    async def remove_own(self, hold: Event) -> None:
        """Remove our hold for good, or say in the log that it is left behind."""
        if not await self._withdraw(hold):
            self.ctx.log.warning("hold left behind", event_id=hold["id"])

    async def remove_left_behind(self) -> None:
        """Remove the hold that an earlier attempt of this job may have left."""
        _, hold = await latest_of(self.ctx, self.wanted.api, self.wanted.calendar_id)
        if hold is not None and is_hold(hold) and is_ours(hold, self.ctx):
            await self.remove_own(hold)

    async def _look_first(self) -> Event | None:
        found = await self.wanted.look()
        others = found.without(lambda event: is_ours(event, self.ctx))
        fits = self.wanted.is_series or self.wanted.fits(found.zone)
        # A repeated try places its hold even so: the insert of the one before may still be on its way, and
        # must find the id taken rather than leave a hold behind that no one owns.
        if (fits and not others.taken) or self.ctx.is_repeat:
            return None
        _, event = await latest_of(self.ctx, self.wanted.api, self.wanted.calendar_id)
        if event is not None and event["status"] != "cancelled" and is_ours(event, self.ctx):
            return None if is_hold(event) else event
        if others.taken:
            raise await self.wanted.refusal(others)
        raise await self.wanted.refusal(others, reason="outside_rules")

    async def _place(self) -> tuple[Event, bool]:
        api, calendar_id, serial = self.wanted.api, self.wanted.calendar_id, 0
        while serial < MAX_HOLDS:
            body = {**self.body, "id": event_id_of(self.ctx, calendar_id, serial)}
            try:
                return await api.send(events().insert(calendarId=calendar_id, body=body)), True
            except Conflict as conflict:
                if reason_of(conflict) != "duplicate":
                    raise
            serial, event = await latest_of(self.ctx, api, calendar_id)
            if event is not None:
                return recognised(event, self.ctx), False
        raise Conflict(
            f"{MAX_HOLDS} tries under this idempotency key were given up; use a new key",
            data={"reason": "cancelled"},
        )

    async def _settle(self, hold: Event, finish: Finish) -> Event:
        try:
            for pause_s in LOOKS_S:
                await asyncio.sleep(pause_s)
                if (done := await self._round(hold, finish)) is not None:
                    return done
                hold = await self._read(hold["id"])
                if hold["status"] == "cancelled":
                    raise await self.wanted.refusal(await self.wanted.look())
                if not is_hold(hold):
                    return hold  # another worker, which took this job over, was faster
            raise Unavailable(f"gave up after {len(LOOKS_S)} rounds of conflicting holds")
        except ConnectorError as error:
            await self._clean_up(hold, error)
            raise

    async def _round(self, hold: Event, finish: Finish) -> Event | None:
        found = await self.wanted.look(hold)
        if not found.shows_hold:
            return None  # the listing lags behind: what was inserted before ours may be missing, too
        rivals = [each for each in found.taken if root_of(each.event) != hold["id"]]
        if any(_is_ahead(rival, hold) for rival in rivals):
            await self._give_way(hold, found, rivals)
            return None
        old = [each for each in found.given_up if root_of(each.event) != hold["id"]]
        if not await self._remove_all(old, is_needed=False):
            return None
        if not await self._remove_all(rivals, is_needed=True):
            return None
        return await finish(hold)

    async def _give_way(self, hold: Event, found: Obstacles, rivals: Sequence[Blocker]) -> None:
        if await self._remove(Blocker(hold, self.wanted.calendar_id, (0, 0))):
            taken = tuple(rivals)
            raise await self.wanted.refusal(Obstacles(taken, (), found.zone))

    async def _remove_all(self, blockers: Sequence[Blocker], *, is_needed: bool) -> bool:
        """Remove holds; return whether each is gone.

        Args:
            is_needed: one that may not be removed stands in the way; otherwise it is left alone.
        """
        is_gone = True
        for blocker in {root_of(each.event): each for each in blockers}.values():
            try:
                is_gone &= await self._remove(blocker)
            except PermissionDenied:
                if is_needed:
                    raise
        return is_gone

    async def _remove(self, blocker: Blocker) -> bool:
        """Delete a hold, another's or our own; return False if it is not that hold any more."""
        api = self.wanted.api
        event: Event | None = blocker.event
        if "recurringEventId" in blocker.event:
            event = await _read_series(api, blocker)
        if event is None or not is_hold(event):
            return event is None
        try:
            await _retire(api, blocker.calendar_id, event)
        except Conflict:
            return False
        return True

    async def _read(self, event_id: str) -> Event:
        request = events().get(calendarId=self.wanted.calendar_id, eventId=event_id)
        return await self.wanted.api.send(request)

    async def _clean_up(self, hold: Event, error: ConnectorError) -> None:
        """Leave nothing behind after a failure, or say what."""
        if (error.data or {}).get("reason") in {"taken", "outside_rules"}:
            return
        may_have_moved = not self.becomes_result and error.sent is Sent.UNCERTAIN
        # A move that may yet happen needs its hold; the job finds it when it comes again.
        if may_have_moved or not await self._withdraw(hold):
            until = (utc_now() + HOLD_LIFETIME).isoformat(timespec="seconds")
            left = {"event_id": hold["id"], "calendar_id": self.wanted.calendar_id, "counts_until": until}
            error.data = {**(error.data or {}), "hold_left_behind": left}
            self.ctx.log.warning("hold left behind", event_id=hold["id"])

    async def _withdraw(self, hold: Event) -> bool:
        api = self.wanted.api.compensating()
        try:
            await _retire(api, self.wanted.calendar_id, hold)
        except Conflict:
            return await self._is_no_hold(api, hold)
        except ConnectorError:
            return False
        return True

    async def _is_no_hold(self, api: CalendarApi, hold: Event) -> bool:
        try:
            event = await api.send(events().get(calendarId=self.wanted.calendar_id, eventId=hold["id"]))
        except ConnectorError:
            return False
        return event.get("status") == "cancelled" or not is_hold(event)


async def _retire(api: CalendarApi, calendar_id: str, hold: Event) -> None:
    """Cancel a hold, if it still is what was read, and take it off the time that it held.

    A cancelled event stays in the calendar's bin: no one shall restore a hold as an appointment at that time.

    Raises:
        Conflict: it is not what was read any more.
    """
    if not hold.get("recurrence"):
        request = events().patch(
            calendarId=calendar_id, eventId=hold["id"], body=_RETIRED, sendUpdates="none"
        )
        try:
            await api.send(request, etag=hold.get("etag"))
        except Conflict:
            raise
        except ConnectorError:
            pass  # for whatever reason: what counts is that it is cancelled
        else:
            return
    await api.remove(calendar_id, hold["id"], etag=hold.get("etag"))


async def latest_of(ctx: Ctx, api: CalendarApi, calendar_id: str) -> tuple[int, Event | None]:
    """Return this job's event behind the holds that were given up, and its serial; or the first unused one."""
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


async def _read_series(api: CalendarApi, blocker: Blocker) -> dict[str, Any] | None:
    try:
        return await api.send(events().get(calendarId=blocker.calendar_id, eventId=root_of(blocker.event)))
    except NotFound:
        return None


def _is_ahead(rival: Blocker, ours: Event) -> bool:
    """Return whether we have to give way: to an event that is no hold, and to a hold of a better rank."""
    if not is_hold(rival.event):
        return True
    return not is_given_up(rival.event, utc_now()) and _rank(rival.event) < _rank(ours)


def _rank(hold: Event) -> tuple[str, str]:
    # Google writes `created` itself, always in the same form.
    return str(hold.get("created")), root_of(hold)
