"""What an event may say, and what Google adds to it."""

import re
from collections.abc import Mapping
from copy import deepcopy
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from connectors.google_calendar.zones import instant, zone_named
from connectors.sandbox.google.faults import Refusal
from connectors.sandbox.google.recurrence import read_recurrence
from connectors.sandbox.google.store import (
    Actor,
    Calendar,
    Event,
    Store,
    moment,
    write_time,
)

_ID = re.compile(r"[0-9a-v]{5,1024}")
_ADDRESS = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+\.[^@\s<>,;]+")
#: Fields that the server alone writes.
_READ_ONLY = {
    "kind", "etag", "htmlLink", "created", "updated", "creator", "organizer", "hangoutLink",
    "recurringEventId", "originalStartTime", "locked", "privateCopy", "endTimeUnspecified",
}  # fmt: skip


def new_event(store: Store, calendar: Calendar, body: Mapping[str, Any], actor: Actor) -> Event:
    """Create the event that an insert asks for.

    Raises:
        Refusal: a field makes no sense, or the id is taken.
    """
    event_id = body.get("id", uuid4().hex)
    if not _ID.fullmatch(event_id):
        raise Refusal(400, "invalid", "Invalid resource id value.")
    if event_id in calendar.events:
        raise Refusal(409, "duplicate", "The requested identifier already exists.")
    now = store.now()
    event: Event = {
        "kind": "calendar#event",
        "id": event_id,
        "status": "confirmed",
        "htmlLink": f"https://www.google.com/calendar/event?eid={event_id}",
        "created": now.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "creator": {"email": actor.email},
        "organizer": {"email": calendar.owner, "self": True},
        "iCalUID": f"{event_id}@google.com",
        "sequence": 0,
        "reminders": {"useDefault": True},
        "eventType": "default",
    }
    event |= {name: deepcopy(value) for name, value in body.items() if name not in _READ_ONLY | {"id"}}
    event.pop("conferenceData", None)
    settle(calendar, event, actor)
    return event


def settle(calendar: Calendar, event: Event, actor: Actor) -> None:
    """Check an event as a whole and write its times in one form.

    Raises:
        Refusal: a field makes no sense.
    """
    is_zoned = "timeZone" in event.get("start", {}) or "date" in event.get("start", {})
    _settle_times(calendar, event)
    if event.get("recurrence"):
        if not is_zoned:
            raise Refusal(400, "required", "Missing time zone definition for start time.")
        read_recurrence(event["recurrence"], zone_named(event["start"].get("timeZone", calendar.time_zone)))
    _check_reminders(event.get("reminders", {}))
    guests = event.get("attendees", [])
    if guests and actor.is_bare_service_account:
        raise Refusal(
            403,
            "forbiddenForServiceAccounts",
            "Service accounts cannot invite attendees without Domain-Wide Delegation of Authority.",
        )
    if len(guests) > 200:
        raise Refusal(400, "invalid", "The number of attendees exceeds the limit.")
    for guest in guests:
        if not _ADDRESS.fullmatch(guest.get("email", "")):
            raise Refusal(400, "invalid", "Invalid attendee email.")
        guest.setdefault("responseStatus", "needsAction")
    choices = {
        "status": {"confirmed", "tentative", "cancelled"},
        "transparency": {"opaque", "transparent"},
        "visibility": {"default", "public", "private", "confidential"},
        "colorId": {str(number) for number in range(1, 12)},
    }
    for name, allowed in choices.items():
        if name in event and event[name] not in allowed:
            raise Refusal(400, "invalid", f"Invalid value for: {name}")


def _settle_times(calendar: Calendar, event: Event) -> None:
    for name in ("start", "end"):
        time = event.get(name)
        if not time:
            raise Refusal(400, "required", f"Missing {name} time.")
        if ("date" in time) == ("dateTime" in time):
            raise Refusal(400, "invalid", "A time has either date or dateTime.")
        try:
            if "date" in time:
                event[name] = {"date": date.fromisoformat(time["date"]).isoformat()}
                continue
            zone = zone_named(time["timeZone"]) if "timeZone" in time else None
            written = datetime.fromisoformat(time["dateTime"])
        except ValueError:
            raise Refusal(400, "invalid", f"Invalid {name} time or zone.") from None
        if written.tzinfo is None and zone is None:
            raise Refusal(400, "required", f"Missing time zone definition for {name} time.")
        event[name] = {
            "dateTime": write_time(instant(written, zone or calendar.zone), calendar.zone),
            "timeZone": time.get("timeZone", calendar.time_zone),
        }
    if ("date" in event["start"]) != ("date" in event["end"]):
        raise Refusal(400, "invalid", "Start and end times must either both be date or both be dateTime.")
    start, end = (moment(event[name], calendar.zone) for name in ("start", "end"))
    if end < start or ("date" in event["start"] and end == start):
        raise Refusal(400, "timeRangeEmpty", "The specified time range is empty.")


def _check_reminders(reminders: Mapping[str, Any]) -> None:
    overrides = reminders.get("overrides", [])
    if reminders.get("useDefault") and overrides:
        raise Refusal(
            400,
            "cannotUseDefaultRemindersAndSpecifyOverride",
            "Cannot specify both default reminders and overrides at the same time.",
        )
    if len(overrides) > 5:
        raise Refusal(400, "invalid", "The maximum number of override reminders is 5.")
    for each in overrides:
        if each.get("method") not in {"email", "popup"} or not 0 <= each.get("minutes", -1) <= 40_320:
            raise Refusal(400, "invalid", "Invalid reminder.")


def merge(event: Event, body: Mapping[str, Any]) -> Event:
    """Apply a patch: objects are merged, everything else is replaced, null removes."""
    merged = deepcopy(event)
    for name, value in body.items():
        if name in _READ_ONLY | {"id", "conferenceData"}:
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = merge(merged[name], value)
        else:
            merged[name] = deepcopy(value)
    return merged


def ask_for_conference(
    store: Store, calendar: Calendar, event: Event, body: Mapping[str, Any], version: int
) -> None:
    """Apply the conference part of a body; ignored unless conferenceDataVersion is 1."""
    if version != 1 or "conferenceData" not in body:
        return
    asked = body["conferenceData"]
    if asked is None:
        event.pop("conferenceData", None)
        event.pop("hangoutLink", None)
        return
    if "entryPoints" in asked and "createRequest" not in asked:
        # The conference of another event: it may be shared.
        event["conferenceData"] = deepcopy(asked)
        event["hangoutLink"] = asked["entryPoints"][0].get("uri")
        return
    request = asked.get("createRequest")
    known = event.get("conferenceData", {}).get("createRequest", {}).get("requestId")
    if request is None or request.get("requestId") == known:
        return
    if not request.get("requestId"):
        raise Refusal(400, "required", "A conference request needs a requestId.")
    event["conferenceData"] = {"createRequest": {**request, "status": {"statusCode": "pending"}}}
    if store.meet_pending_reads:
        calendar.pending[event["id"]] = store.meet_pending_reads
    else:
        store.finish_conference(event)
