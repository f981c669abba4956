"""An event as Google is told it, and the id by which a repeated job finds its own again."""

import hashlib
from base64 import b32hexencode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from connectors.google_calendar.client import Ctx
from connectors.google_calendar.event_times import Span
from connectors.google_calendar.fields import OWN_PREFIX, Reminder
from connectors.google_calendar.models import meet_status
from connectors.google_calendar.occupancy import HOLD_PROPERTY, private_of
from connectors.google_calendar.params import BookAppointment, CreateEvent, UpdateEvent
from connectors.sdk.errors import Conflict

#: Whose event it is: a digest of the key, compared if an id is taken.
KEY_PROPERTY: Final = OWN_PREFIX + "key"
#: Which job has moved a series last: a shift, unlike a time, must not be repeated.
MOVE_PROPERTY: Final = OWN_PREFIX + "move"
#: The attempt that has the event now: setting it voids what an earlier one may still have on its way.
ATTEMPT_PROPERTY: Final = OWN_PREFIX + "attempt"

SEND_UPDATES: Final[Mapping[str, str]] = {"none": "none", "all": "all", "external_only": "externalOnly"}


def send_updates(notify: str | None, has_guests: bool) -> str:
    """Return whom Google tells: unless the job says otherwise, all guests if there are any."""
    return SEND_UPDATES[notify or ("all" if has_guests else "none")]


def event_id_of(ctx: Ctx, calendar_id: str, serial: int = 0) -> str:
    """Derive the event's id: the same job, the same id, and Google refuses the second.

    Args:
        serial: of a booking's further tries, once an id was given up.
    """
    # An undo runs under the name of the action it undoes, so that it finds the same id.
    parts = [ctx.tenant, calendar_id, ctx.action, ctx.idempotency_key]
    if serial:
        parts.append(str(serial))
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return b32hexencode(digest).decode().rstrip("=").lower()


def key_mark(ctx: Ctx) -> str:
    """Return the mark of an event of this job; the key itself may say too much."""
    parts = ["key", ctx.tenant, ctx.action, ctx.idempotency_key]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_ours(event: Mapping[str, Any], ctx: Ctx) -> bool:
    """Return whether an event is this job's."""
    return private_of(event).get(KEY_PROPERTY) == key_mark(ctx)


def recognised(event: dict[str, Any], ctx: Ctx) -> dict[str, Any]:
    """Return the event that has our id already, if it is this job's and still there.

    Raises:
        Conflict: it is somebody else's, or was cancelled.
    """
    if event.get("status") == "cancelled":
        raise Conflict(
            "the event of this idempotency key was created before and is cancelled; a new key makes a new one",
            data={"reason": "cancelled", "event_id": event["id"]},
        )
    if not is_ours(event, ctx):
        raise Conflict(
            "another event has the id that this idempotency key leads to; use another key",
            data={"reason": "foreign", "event_id": event["id"]},
        )
    return event


def new_body(params: BookAppointment | CreateEvent, mark: str) -> dict[str, Any]:
    """Return everything but the times, the guests, the recurrence and the conference."""
    body: dict[str, Any] = {
        "summary": params.summary,
        "description": params.description,
        "location": params.location,
        "transparency": params.transparency,
        "visibility": params.visibility,
        "colorId": params.color_id,
        "extendedProperties": {"private": {**params.private_properties, KEY_PROPERTY: mark}},
    }
    if params.reminders is not None:
        body["reminders"] = _reminders(params.reminders)
    return {name: value for name, value in body.items() if value is not None}


def hold_body(params: BookAppointment, ctx: Ctx, span: Span) -> dict[str, Any]:
    """Return an event that takes up the time, and invites no one yet."""
    return as_hold({**new_body(params, key_mark(ctx)), **span.body()}, ctx)


def as_hold(body: Mapping[str, Any], ctx: Ctx) -> dict[str, Any]:
    """Return the body of an event as that of a hold of this job."""
    own = {KEY_PROPERTY: key_mark(ctx), HOLD_PROPERTY: "open"}
    private = {**private_of(body), **own}
    return {
        **body,
        "status": "tentative",
        "transparency": "opaque",
        "extendedProperties": {"private": private},
    }


def confirm_body(params: BookAppointment, event_id: str) -> dict[str, Any]:
    """Return what makes a hold the appointment."""
    body: dict[str, Any] = {
        "status": "confirmed",
        "extendedProperties": {"private": {HOLD_PROPERTY: "confirmed"}},
    }
    if params.transparency is not None:
        body["transparency"] = params.transparency
    if params.attendees:
        body["attendees"] = guests_of(params.attendees)
    if params.meet:
        body["conferenceData"] = conference_request(event_id)
    return body


def guests_of(addresses: Sequence[str]) -> list[dict[str, Any]]:
    """Return the guests of a new event."""
    return [{"email": address} for address in addresses]


def conference_request(request_id: str) -> dict[str, Any]:
    """Return the request for a Google Meet; the same id requests it once."""
    solution = {"type": "hangoutsMeet"}
    return {"createRequest": {"requestId": request_id[:64], "conferenceSolutionKey": solution}}


def patch_body(params: UpdateEvent, event: Mapping[str, Any], request_id: str) -> dict[str, Any]:
    """Return the fields that change, but the times.

    Args:
        request_id: of a conference that is asked for.
    """
    given = params.model_fields_set
    body: dict[str, Any] = {}
    for name, field in (
        ("summary", "summary"),
        ("description", "description"),
        ("location", "location"),
        ("transparency", "transparency"),
        ("visibility", "visibility"),
        ("color_id", "colorId"),
    ):
        value = getattr(params, name)
        if name in given and (value is not None or name in {"description", "location", "color_id"}):
            body[field] = value
    if params.attendees is not None:
        # A patch replaces the list: who stays is written back as they are, answer included.
        known = {str(guest.get("email")).lower(): guest for guest in event.get("attendees") or ()}
        body["attendees"] = [known.get(address.lower(), {"email": address}) for address in params.attendees]
    if params.reminders is not None:
        body["reminders"] = _reminders(params.reminders)
    if params.private_properties is not None:
        body["extendedProperties"] = {"private": params.private_properties}
    has_meet = bool(event.get("conferenceData")) and meet_status(event) != "failure"
    if params.meet and not has_meet:
        body["conferenceData"] = conference_request(request_id)
    elif params.meet is False:
        body["conferenceData"] = None
    return body


def differing(body: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a patch what the event is not like already: who repeats a change tells no one of it again."""
    kept = {name: value for name, value in body.items() if event.get(name) != value}
    if (
        "extendedProperties" in kept
        and kept["extendedProperties"]["private"].items() <= private_of(event).items()
    ):
        del kept["extendedProperties"]
    return kept


def _reminders(reminders: Sequence[Reminder]) -> dict[str, Any]:
    return {"useDefault": False, "overrides": [reminder.model_dump() for reminder in reminders]}
