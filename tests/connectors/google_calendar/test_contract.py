"""The calendar passes the contract that every connector must."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from connectors.google_calendar import google_calendar
from connectors.sandbox.google.event_body import new_event
from connectors.sandbox.google.server import GoogleSandbox
from connectors.sandbox.google.store import Actor
from connectors.sdk.testing import ConnectorContract, Via
from tests.support.desk import OWNER

pytestmark = pytest.mark.integration

#: The event that is there already: what looks up, changes or cancels is about this one.
VISIT: Final = "visit00001"
#: What says when, how often, and by which of two runs.
_GENERATED: Final = frozenset({"etag", "updated", "created"})


class Clinic(GoogleSandbox):
    """A calendar with one event in it."""

    async def start(self) -> None:
        await super().start()
        calendar = self.store.add_account(OWNER, time_zone="Europe/Istanbul")
        day = {"start": {"dateTime": "2037-03-10T09:00:00Z"}, "end": {"dateTime": "2037-03-10T09:30:00Z"}}
        event = new_event(
            self.store,
            calendar,
            {"id": VISIT, "summary": "Visit", "attendees": [{"email": OWNER}], **day},
            Actor(OWNER, frozenset()),
        )
        self.store.stamp(event)
        calendar.events[VISIT] = event


class TestGoogleCalendar(ConnectorContract):
    connector = google_calendar

    def provider(self) -> Clinic:
        return Clinic()

    def credential(self, provider: Clinic, via: Via) -> dict[str, Any]:
        return provider.authority.authorized_user(OWNER) | {"token_uri": via(provider.token_url)}

    def settings(self, provider: Clinic, via: Via) -> dict[str, str]:
        return {"api_url": via(provider.url)}

    def example(self, action: str, provider: Clinic) -> Mapping[str, Any]:
        params = super().example(action, provider)
        if "event_id" in params:
            return {**params, "event_id": VISIT}
        if "summary" in params:
            return {**params, "attendees": ["ada@lovelace.example"], "notify": "all", "meet": True}
        return params

    def essence(self, data: Any) -> object:
        return {name: part for name, part in data.items() if name not in _GENERATED}

    def state(self, provider: Clinic) -> object:
        events = provider.store.calendars[OWNER].events.values()
        return {
            event["id"]: {name: part for name, part in event.items() if name not in _GENERATED}
            for event in events
            if event["status"] != "cancelled"
        }
