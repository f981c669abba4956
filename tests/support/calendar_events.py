"""What the tests of events look at."""

from typing import Any

from tests.support.desk import OWNER, Desk

VISIT: dict[str, Any] = {"summary": "Visit", "start": "2037-03-09T10:00", "duration_minutes": 30}


CHANGE: dict[str, Any] = {"summary": "New"}


def stored(desk: Desk, event_id: str) -> dict[str, Any]:
    return desk.google.store.calendars[OWNER].events[event_id]


def notices(desk: Desk) -> list[tuple[str, list[str]]]:
    return [(each.detail["what"], each.detail["to"]) for each in desk.google.journal.of("notified")]
