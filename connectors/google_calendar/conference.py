"""Waiting, for a while, until Google has made a conference."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from connectors.google_calendar.client import CalendarApi, events
from connectors.google_calendar.models import meet_status

#: Seconds before each look. Mostly the link is there at once; who asked will not wait much longer.
LOOKS_S: Final = (0.2, 0.4, 0.8, 1.6)


async def with_conference(
    api: CalendarApi, calendar_id: str, event: dict[str, Any], looks_s: Sequence[float] = LOOKS_S
) -> dict[str, Any]:
    """Return the event, polled a few times while its conference is pending."""
    for pause_s in looks_s:
        if meet_status(event) != "pending":
            break
        await asyncio.sleep(pause_s)
        event = await api.send(events().get(calendarId=calendar_id, eventId=event["id"]))
    return event
