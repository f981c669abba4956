"""The actions that look for time: find_available_slots and check_availability."""

from asyncio import to_thread
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from connectors.google_calendar.client import CalendarApi, Ctx
from connectors.google_calendar.connector import READ_ERRORS, google_calendar
from connectors.google_calendar.event_times import calendar_zone, span_of
from connectors.google_calendar.freebusy import busy_times
from connectors.google_calendar.occupancy import meets
from connectors.google_calendar.params import CheckAvailability, FindSlots
from connectors.google_calendar.rules import read_rules
from connectors.google_calendar.slots import (
    OpenSlot,
    Search,
    find_slots,
    from_seconds,
    merge_periods,
    seconds_down,
    seconds_up,
)
from connectors.google_calendar.zones import instant, write_instant
from connectors.sdk import Effect
from connectors.sdk.errors import InvalidParams

_MINUTE_S: Final = 60


class FreeSlot(BaseModel):
    """A time that is free."""

    model_config = ConfigDict(frozen=True)

    start: str
    end: str
    calendars: list[str] = Field(description="Those that are free then.")


class FreeSlots(BaseModel):
    """Free times, ascending, in the scheduling zone."""

    model_config = ConfigDict(frozen=True)

    slots: list[FreeSlot]
    time_zone: str
    truncated: bool = Field(description="Whether there are more than `limit`.")


class BusyPeriod(BaseModel):
    """A time that is taken."""

    model_config = ConfigDict(frozen=True)

    start: str
    end: str


class Availability(BaseModel):
    """Return whether a time is free, and what is in its way."""

    model_config = ConfigDict(frozen=True)

    available: bool
    busy: list[BusyPeriod] = Field(description="Of all calendars together, joined if they touch.")


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def find_available_slots(params: FindSlots, ctx: Ctx) -> FreeSlots:
    """Find free times in one or several calendars, within working hours.

    Starts lie on a grid that begins when the working hours open; nothing in the past is offered. One
    calendar that cannot be read fails the whole search.
    """
    api = CalendarApi(ctx)
    # The scheduling zone is the first calendar's own unless the job names one.
    zone = params.time_zone or await calendar_zone(api, params.calendars[0])
    now = datetime.now(UTC)
    search = _search(params, zone, now)
    since, until = search.range
    since = max(since, search.earliest or since)
    if search.latest is not None:
        until = min(until, search.latest + search.duration)
    found: list[OpenSlot] = []
    if until - since >= search.duration:
        busy = await busy_times(api, params.calendars, (since - search.before, until + search.after), now)
        # Off the loop: a year at one minute's step with many calendars takes its time.
        found = await to_thread(lambda: list(islice(find_slots(search, busy, params.mode), params.limit + 1)))
    return FreeSlots(
        slots=[
            FreeSlot(
                start=_write(slot.start, zone), end=_write(slot.end, zone), calendars=list(slot.calendars)
            )
            for slot in found[: params.limit]
        ],
        time_zone=zone.key,
        truncated=len(found) > params.limit,
    )


@google_calendar.action(effect=Effect.READ, errors=READ_ERRORS)
async def check_availability(params: CheckAvailability, ctx: Ctx) -> Availability:
    """Return whether a time is free in every one of the calendars, and what is in its way."""
    api = CalendarApi(ctx)
    span = await span_of(params, api, params.calendars[0])
    zone = span.zone or ZoneInfo("UTC")
    start, end = span.period(zone)
    busy = await busy_times(api, params.calendars, (start, end), datetime.now(UTC))
    in_the_way = [
        period
        for period in merge_periods(each for periods in busy.values() for each in periods)
        if meets(period, (start, end))
    ]
    return Availability(
        available=not in_the_way,
        busy=[BusyPeriod(start=_write(since, zone), end=_write(until, zone)) for since, until in in_the_way],
    )


def _search(params: FindSlots, zone: ZoneInfo, now: datetime) -> Search:
    """Build the search from the parameters.

    Raises:
        InvalidParams: the range is empty, now that the zone is known.
    """
    start, end = instant(params.range_start, zone), instant(params.range_end, zone)
    if end <= start:
        raise InvalidParams.field("range_end", "must come after range_start")
    as_of = now if params.as_of is None else instant(params.as_of, zone)
    latest = None
    if params.max_advance_minutes is not None:
        latest = seconds_down(as_of + timedelta(minutes=params.max_advance_minutes))
    rules = read_rules(params)
    return Search(
        zone=zone,
        range=(seconds_up(start), seconds_down(end)),
        duration=params.duration_minutes * _MINUTE_S,
        step=(params.step_minutes or params.duration_minutes) * _MINUTE_S,
        hours=rules.hours,
        before=rules.before,
        after=rules.after,
        earliest=seconds_up(as_of) + rules.notice,
        latest=latest,
    )


def _write(instant_s: int, zone: ZoneInfo) -> str:
    return write_instant(from_seconds(instant_s), zone)
