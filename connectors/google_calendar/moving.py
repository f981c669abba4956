"""update_event and reschedule_event; another time is got by the protocol of `holds`, as a booking gets it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

from connectors.google_calendar.changes import Change, hold_for
from connectors.google_calendar.client import CalendarApi, Ctx, events
from connectors.google_calendar.conference import with_conference
from connectors.google_calendar.connector import WRITE_ERRORS, google_calendar
from connectors.google_calendar.error_mapping import reason_of
from connectors.google_calendar.event_body import (
    ATTEMPT_PROPERTY,
    MOVE_PROPERTY,
    differing,
    event_id_of,
    key_mark,
    patch_body,
)
from connectors.google_calendar.event_times import Span, calendar_zone, event_span, moved_span
from connectors.google_calendar.holds import HoldProtocol
from connectors.google_calendar.listing import utc_now
from connectors.google_calendar.models import EventDetails, full_answer
from connectors.google_calendar.occupancy import Event, private_of, root_of, takes_time
from connectors.google_calendar.params import OtherTimes, RescheduleEvent, UpdateEvent
from connectors.google_calendar.rrule import names_local_times, write_lines
from connectors.google_calendar.series import SeriesTarget, read_event, shifted, target_of
from connectors.google_calendar.wanted import Wanted, is_past
from connectors.sdk import Effect
from connectors.sdk.errors import Conflict, InvalidParams, NotFound


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_event(params: UpdateEvent, ctx: Ctx) -> EventDetails:
    """Change the fields given, and nothing else; a new time must be free, as in reschedule_event."""
    api = CalendarApi(ctx)

    async def make_body(target: SeriesTarget) -> dict[str, Any]:
        return patch_body(params, target.event, event_id_of(ctx, params.calendar_id))

    event = await _Move(ctx, api, params, make_body, with_conference=params.meet is not None).apply()
    return full_answer(await with_conference(api, params.calendar_id, event), params.calendar_id)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def reschedule_event(params: RescheduleEvent, ctx: Ctx) -> EventDetails:
    """Move an event to another time; guests, Meet link, description and all else stay as they are.

    Of many bookings and moves to one time exactly one wins; the others end in CONFLICT, with the nearest free
    times in `data.alternatives`.
    """

    async def make_body(_: SeriesTarget) -> dict[str, Any]:
        return {}

    event = await _Move(ctx, CalendarApi(ctx), params, make_body).apply()
    return full_answer(event, params.calendar_id)


@dataclass(frozen=True, slots=True)
class _Move:
    """A change that may bring another time.

    Args:
        make_body: of all that changes beside the times.
    """

    ctx: Ctx
    api: CalendarApi
    params: UpdateEvent | RescheduleEvent
    make_body: Callable[[SeriesTarget], Awaitable[dict[str, Any]]]
    with_conference: bool = False

    async def apply(self) -> Event:
        change = Change(self.ctx, self.api, self.params, self._whole_body, self.with_conference)
        if (done := await change.earlier_result()) is not None:
            return done
        if (done := await self._moved_before()) is not None:
            return done
        target = await target_of(self.api, self.params)
        span, lines = await self._times(target)
        is_moved = not span.is_like(event_span(target.named if target.is_split else target.event))
        if is_moved:
            self._refuse_past(target, span)
        if self.params.conflict_check and self._needs_time(target, is_moved=is_moved):
            return await self._get_time(change, target, span, lines)
        return await (change.apply(target) if is_moved else self._settled(change, target))

    async def _moved_before(self) -> Event | None:
        """Return the series that an earlier attempt has moved.

        It has our mark: its occurrences have other ids since, and a second shift would be one too many.
        """
        series_id = self.params.event_id.rpartition("_")[0]
        if not self.ctx.is_repeat or self.params.scope == "this" or not series_id:
            return None
        try:
            series = await read_event(self.api, self.params.calendar_id, series_id)
        except NotFound:
            return None
        if private_of(series).get(MOVE_PROPERTY) != key_mark(self.ctx):
            return None
        await self._protocol(SeriesTarget(series, series), event_span(series), None).remove_left_behind()
        return series

    def _needs_time(self, target: SeriesTarget, *, is_moved: bool) -> bool:
        """Return whether the change takes up time that the event does not take up yet."""
        now = utc_now()
        transparency = getattr(self.params, "transparency", None)
        changed = target.event if transparency is None else {**target.event, "transparency": transparency}
        return takes_time(changed, now) and (is_moved or not takes_time(target.event, now))

    async def _settled(self, change: Change, target: SeriesTarget) -> Event:
        """Apply the rest of a change if the event is at its time already, perhaps by an earlier attempt."""
        if self.ctx.is_repeat and _says_when(self.params):
            protocol = self._protocol(target, event_span(target.event), None)
            await protocol.remove_left_behind()
        return await change.apply(target)

    async def _get_time(
        self, change: Change, target: SeriesTarget, span: Span, lines: list[str] | None
    ) -> Event:
        if self.ctx.is_repeat and not target.is_split:
            await self._fence_off(target)
        protocol = self._protocol(target, span, lines)

        async def move(hold: Event) -> Event:
            event = await change.apply()
            await protocol.remove_own(hold)
            return event

        async def go_on(hold: Event) -> Event | None:
            body = await change.new_series(target)
            try:
                event = await change.patch(hold, {"status": "confirmed"} | body)
            except (Conflict, NotFound):
                return None  # it is not that hold any more
            await change.end_series(target)
            return event

        try:
            event, _ = await protocol.get(go_on if target.is_split else move)
        except Conflict as conflict:
            if reason_of(conflict) == "taken" and (done := await self._done_by_another()) is not None:
                return done
            raise
        return event

    async def _fence_off(self, target: SeriesTarget) -> None:
        """Change the event's version, so that a move which an earlier attempt has on its way is refused.

        Otherwise it could come after this attempt has given the time up, and somebody else has got it.
        """
        private = {ATTEMPT_PROPERTY: uuid4().hex}
        request = events().patch(
            calendarId=self.params.calendar_id,
            eventId=target.event["id"],
            body={"extendedProperties": {"private": private}},
            sendUpdates="none",
        )
        await self.api.send(request)

    async def _done_by_another(self) -> Event | None:
        """Return the event if another worker, which took this job over, has moved it."""
        target = await target_of(self.api, self.params)
        if target.is_split or differing(await self._whole_body(target), target.event):
            return None
        return target.event

    def _protocol(self, target: SeriesTarget, span: Span, lines: list[str] | None) -> HoldProtocol:
        series = root_of(target.event)

        def is_itself(other: Mapping[str, Any]) -> bool:
            if target.is_series:
                return root_of(other) == series
            return bool(other.get("id") == target.event["id"])

        wanted = Wanted(
            self.api,
            self.params.calendar_id,
            span,
            allow_past=self.params.allow_past,
            is_itself=is_itself,
            is_series=target.is_series,
        )
        body = hold_for(self.ctx, target, span, lines if target.is_series else None)
        return HoldProtocol(self.ctx, wanted, body, becomes_result=target.is_split)

    async def _whole_body(self, target: SeriesTarget) -> dict[str, Any]:
        body = await self.make_body(target)
        span, lines = await self._times(target)
        if not span.is_like(event_span(target.event)):
            body |= span.body(replacing=not target.is_split)
            if target.is_series and not target.is_split:
                private = (body.get("extendedProperties") or {}).get("private") or {}
                body["extendedProperties"] = {"private": {**private, MOVE_PROPERTY: key_mark(self.ctx)}}
        if lines is not None and lines != target.event.get("recurrence"):
            body["recurrence"] = lines
        return body

    async def _times(self, target: SeriesTarget) -> tuple[Span, list[str] | None]:
        """Return when the event shall take place, and how often if it is a series."""
        old = event_span(target.named)
        span = await moved_span(self.params, self.api, self.params.calendar_id, old)
        lines: list[str] | None = target.event.get("recurrence")
        if target.is_series and not span.is_like(old):
            span, lines = shifted(target, span)
        elif not target.is_split:
            span = event_span(target.event) if span.is_like(old) else span
        given = getattr(self.params, "recurrence", None)
        if given is not None:
            lines = write_lines(given, span.start, await self._recurrence_zone(given, span))
        return span, lines

    async def _recurrence_zone(self, lines: list[str], span: Span) -> ZoneInfo | None:
        if span.is_all_day or span.zone is not None:
            return span.zone
        if names_local_times(lines):
            return await calendar_zone(self.api, self.params.calendar_id)
        return ZoneInfo("UTC")

    def _refuse_past(self, target: SeriesTarget, span: Span) -> None:
        if self.params.allow_past or self.ctx.is_repeat:
            return
        now = utc_now()
        begins_anew = span.start != event_span(target.named).start
        if begins_anew and is_past(span, now) and not (target.is_series and not target.is_split):
            raise InvalidParams.field("start", "is in the past; set allow_past if that is meant")
        if target.is_series and not target.is_split and is_past(event_span(target.event), now):
            raise InvalidParams.field(
                "scope", "would move occurrences that are past; following moves those to come"
            )


def _says_when(params: OtherTimes) -> bool:
    return params.start is not None or params.end is not None or params.duration_minutes is not None
