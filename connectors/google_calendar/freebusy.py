"""When calendars are busy: freeBusy, in as few calls as Google allows.

freeBusy cannot tell a hold whose job is gone from an appointment. Where it says busy, such holds are looked
for, and the time of each is judged anew by its events.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, freebusy
from connectors.google_calendar.error_mapping import calendar_refusal
from connectors.google_calendar.listing import list_between
from connectors.google_calendar.occupancy import HOLD_PROPERTY, Event
from connectors.google_calendar.slots import Period, from_seconds, seconds_down, seconds_up
from connectors.sdk.errors import ConnectorError, NotFound, PermissionDenied, Unavailable

#: Calendars of one call; Google's own limit.
MAX_CALENDARS: Final = 50
#: Seconds of one call's range: Google refuses more than about three months.
MAX_RANGE_S: Final = 90 * 86_400
#: Calls of one job at the same time.
MAX_AT_ONCE: Final = 4


async def busy_times(
    api: CalendarApi, calendars: Sequence[str], period: Period, now: datetime, *, sweeps: bool = False
) -> dict[str, list[Period]]:
    """Return when calendars are taken, by the rule of `occupancy`.

    Args:
        sweeps: remove the holds without a job that are found; for actions that write anyway.

    Raises:
        ConnectorError: one of them cannot be read; then nothing is said of any.
    """
    busy = await fetch_busy(api, calendars, period)

    async def judge(calendar_id: str) -> None:
        for hold, held in await _given_up(api, calendar_id, period, now):
            listed = await list_between(api, calendar_id, (from_seconds(held[0]), from_seconds(held[1])))
            taken = [listed.period_of(event) for event in listed.occupying(held, now)]
            busy[calendar_id] = [*_without(busy[calendar_id], held), *(_cut(each, held) for each in taken)]
            if sweeps and "recurringEventId" not in hold:
                with suppress(ConnectorError):  # somebody else is at it, or may
                    await api.remove(calendar_id, hold["id"], etag=hold.get("etag"))

    await _each(judge(calendar_id) for calendar_id in calendars if busy[calendar_id])
    return busy


async def fetch_busy(api: CalendarApi, calendars: Sequence[str], period: Period) -> dict[str, list[Period]]:
    """Return when calendars are busy, in as many calls as needed.

    Raises:
        ConnectorError: one of them cannot be read; then nothing is said of any.
    """
    busy: dict[str, list[Period]] = {calendar_id: [] for calendar_id in calendars}

    async def ask(some: Sequence[str], part: Period) -> None:
        for calendar_id, periods in (await _ask(api, some, part)).items():
            busy[calendar_id] += periods

    await _each(
        ask(calendars[at : at + MAX_CALENDARS], part)
        for at in range(0, len(calendars), MAX_CALENDARS)
        for part in _parts(period)
    )
    return busy


async def _each(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run calls, a few at a time; the first failure ends all."""
    gate = asyncio.Semaphore(MAX_AT_ONCE)

    async def one(call: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await call

    try:
        async with asyncio.TaskGroup() as group:
            for call in calls:
                group.create_task(one(call))
    except* ConnectorError as failed:
        first = failed.exceptions[0]
    else:
        return
    raise first


async def _given_up(
    api: CalendarApi, calendar_id: str, period: Period, now: datetime
) -> list[tuple[Event, Period]]:
    """Return the holds whose jobs are gone, and their times; none if this account sees times alone."""
    try:
        listed = await list_between(
            api,
            calendar_id,
            (from_seconds(period[0]), from_seconds(period[1])),
            privateExtendedProperty=f"{HOLD_PROPERTY}=open",
        )
    except (PermissionDenied, NotFound):
        return []  # free/busy counts as it is
    return [(event, listed.period_of(event)) for event in listed.given_up(period, now)]


def _without(periods: Iterable[Period], gone: Period) -> list[Period]:
    pieces = [
        piece for start, end in periods for piece in ((start, min(end, gone[0])), (max(start, gone[1]), end))
    ]
    return [piece for piece in pieces if piece[0] < piece[1]]


def _cut(period: Period, within: Period) -> Period:
    return max(period[0], within[0]), min(period[1], within[1])


async def _ask(api: CalendarApi, calendars: Sequence[str], period: Period) -> dict[str, list[Period]]:
    answer = await api.send(
        freebusy().query(
            body={
                "timeMin": from_seconds(period[0]).isoformat(),
                "timeMax": from_seconds(period[1]).isoformat(),
                "items": [{"id": calendar_id} for calendar_id in calendars],
            }
        )
    )
    told = answer.get("calendars")
    found: dict[str, list[Period]] = {}
    for calendar_id in calendars:
        one = told.get(calendar_id) if isinstance(told, dict) else None
        if not isinstance(one, dict):
            raise calendar_refusal(calendar_id, None)
        if errors := one.get("errors"):
            raise calendar_refusal(calendar_id, errors[0].get("reason"))
        found[calendar_id] = [_period(each) for each in one.get("busy") or ()]
    return found


def _period(told: Any) -> Period:
    try:
        start, end = datetime.fromisoformat(told["start"]), datetime.fromisoformat(told["end"])
        return seconds_down(start), seconds_down(end) if end <= start else seconds_up(end)
    except (ValueError, LookupError, TypeError):
        raise Unavailable("Google Calendar returned a busy period without valid times") from None


def _parts(period: Period) -> Iterable[Period]:
    start, end = period
    while start < end:
        yield start, min(start + MAX_RANGE_S, end)
        start += MAX_RANGE_S
