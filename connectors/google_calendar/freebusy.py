"""When calendars are busy: freeBusy, in as few calls as Google allows."""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, freebusy
from connectors.google_calendar.error_mapping import calendar_refusal
from connectors.google_calendar.slots import Period, from_seconds, seconds_down, seconds_up
from connectors.sdk.errors import ConnectorError, Unavailable

#: Calendars of one call; Google's own limit.
MAX_CALENDARS: Final = 50
#: Seconds of one call's range: Google refuses more than about three months.
MAX_RANGE_S: Final = 90 * 86_400
#: Calls of one job at the same time.
MAX_AT_ONCE: Final = 4


async def fetch_busy(api: CalendarApi, calendars: Sequence[str], period: Period) -> dict[str, list[Period]]:
    """Return when calendars are busy, in as many calls as needed.

    Raises:
        ConnectorError: one of them cannot be read; then nothing is said of any.
    """
    busy: dict[str, list[Period]] = {calendar_id: [] for calendar_id in calendars}
    gate = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(some: Sequence[str], part: Period) -> None:
        async with gate:
            for calendar_id, periods in (await _ask(api, some, part)).items():
                busy[calendar_id] += periods

    try:
        async with asyncio.TaskGroup() as group:
            for at in range(0, len(calendars), MAX_CALENDARS):
                for part in _parts(period):
                    group.create_task(ask(calendars[at : at + MAX_CALENDARS], part))
    except* ConnectorError as failed:
        first = failed.exceptions[0]
    else:
        return busy
    raise first


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
        return (
            seconds_down(datetime.fromisoformat(told["start"])),
            seconds_up(datetime.fromisoformat(told["end"])),
        )
    except (ValueError, LookupError, TypeError):
        raise Unavailable("Google Calendar returned a busy period without valid times") from None


def _parts(period: Period) -> Iterable[Period]:
    start, end = period
    while start < end:
        yield start, min(start + MAX_RANGE_S, end)
        start += MAX_RANGE_S
