"""The calendar passes the contract that every connector must."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

import pytest

from connectors.google_calendar import google_calendar
from connectors.sandbox.google import GoogleSandbox
from connectors.sdk.errors import Code
from connectors.sdk.testing import ConnectorContract, Kit
from connectors.sdk.testing.contract import Via
from tests.support.desk import OWNER

pytestmark = pytest.mark.integration

NEW = {"summary": "Check-up", "start": "2026-12-01T10:00:00+03:00", "duration_minutes": 30}
DAY = {"range_start": "2026-12-02T00:00:00+03:00", "range_end": "2026-12-03T00:00:00+03:00"}


@asynccontextmanager
async def booked() -> AsyncIterator[GoogleSandbox]:
    """A calendar with one event on it, whose id the sandbox keeps in `first`."""
    async with GoogleSandbox() as google:
        google.store.add_account(OWNER, time_zone="Europe/Istanbul")
        document = google.authority.authorized_user(OWNER)
        async with Kit(google_calendar, credential=document, settings={"api_url": google.url}) as kit:
            await kit.run("create_event", {**NEW, "start": "2026-12-02T10:00:00+03:00"}, key="first")
        yield google


class TestContract(ConnectorContract):
    connector = google_calendar
    exempt: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    def provider(self) -> AbstractAsyncContextManager[GoogleSandbox]:
        return booked()

    def settings(self, provider: GoogleSandbox, via: Via) -> Mapping[str, str]:
        return {"api_url": via(provider.url)}

    def credential(self, provider: GoogleSandbox, via: Via) -> Mapping[str, Any]:
        return provider.authority.authorized_user(OWNER)

    def state(self, provider: GoogleSandbox) -> object:
        events = provider.store.calendars[OWNER].events.values()
        return {
            event["id"]: (event["summary"], event["start"], event["end"])
            for event in events
            if event["status"] != "cancelled"
        }

    def essence(self, data: Any) -> object:
        """Whether it was there already, and which version it is, is not what was asked for."""
        return {**data, "created": None, "etag": None}

    def example(self, action: str, provider: GoogleSandbox) -> Mapping[str, Any]:
        (first,) = [
            event["id"]
            for event in provider.store.calendars[OWNER].events.values()
            if event["start"]["dateTime"].startswith("2026-12-02")
        ][:1] or [""]
        examples: dict[str, Mapping[str, Any]] = {
            "create_event": NEW,
            "book_appointment": NEW,
            "list_events": DAY,
            "list_calendars": {},
            "find_available_slots": {**DAY, "duration_minutes": 30},
            "check_availability": {"start": NEW["start"], "duration_minutes": 30},
            "get_event": {"event_id": first},
            "update_event": {"event_id": first, "summary": "Longer check-up"},
            "reschedule_event": {
                "event_id": first,
                "start": "2026-12-02T11:00:00+03:00",
                "duration_minutes": 30,
            },
            "cancel_event": {"event_id": first},
        }
        return examples[action]

    def failures(self, action: str, provider: GoogleSandbox) -> Mapping[Code, Mapping[str, Any]]:
        return {Code.NOT_FOUND: {"event_id": "0" * 26}} if action == "get_event" else {}
