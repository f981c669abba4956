"""What the actions answer about events."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from connectors.google_calendar.fields import OWN_PREFIX
from connectors.sdk.errors import Unavailable


class EventAnswer(BaseModel):
    """An event, in short."""

    model_config = ConfigDict(frozen=True)

    event_id: str
    calendar_id: str = Field(description="As the job named it.")
    status: Literal["confirmed", "tentative", "cancelled"]
    start: str | None = Field(description="RFC 3339; of an all-day event the first day.")
    end: str | None = Field(description="RFC 3339; of an all-day event the last day, inclusive.")
    html_link: str | None
    meet_link: str | None
    meet_status: Literal["pending", "success", "failure"] | None = Field(
        description="failure: Google could not make the conference; update_event with meet asks again."
    )
    etag: str | None
    event_type: str = Field(description="default, focusTime, outOfOffice, workingLocation, birthday …")
    created: bool = Field(description="Whether this job made it; false if it was there already.")


class Guest(BaseModel):
    """A guest and their answer."""

    model_config = ConfigDict(frozen=True)

    email: str
    response: str = Field(description="needsAction, accepted, tentative or declined.")


class Appointment(BaseModel):
    """An appointment of a caller, in short."""

    model_config = ConfigDict(frozen=True)

    event_id: str
    calendar_id: str
    start: str | None
    end: str | None
    summary: str | None
    status: Literal["confirmed", "tentative", "cancelled"]
    guests: list[str] = Field(description="Their addresses.")
    recurring: bool = Field(description="Whether it is one occurrence of a series.")


class EventEntry(Appointment):
    """An event of a listing, in short."""

    all_day: bool
    event_type: str
    recurring_event_id: str | None


class EventDetails(EventAnswer):
    """An event, in full."""

    summary: str | None
    description: str | None
    location: str | None
    all_day: bool
    time_zone: str | None
    attendees: list[Guest]
    organizer: str | None
    recurrence: list[str]
    recurring_event_id: str | None
    transparency: str
    visibility: str
    color_id: str | None
    reminders: list[dict[str, Any]] | None = Field(description="null: the calendar's default.")
    private_properties: dict[str, str]


def short_answer(event: Mapping[str, Any], calendar_id: str, *, created: bool) -> EventAnswer:
    """Return an event in short.

    Raises:
        Unavailable: Google did not return an event.
    """
    return EventAnswer(**_short(event, calendar_id, created=created))


def full_answer(event: Mapping[str, Any], calendar_id: str) -> EventDetails:
    """Return an event in full.

    Raises:
        Unavailable: Google did not return an event.
    """
    start = event.get("start") or {}
    reminders = event.get("reminders") or {"useDefault": True}
    private = (event.get("extendedProperties") or {}).get("private") or {}
    return EventDetails(
        **_short(event, calendar_id, created=False),
        summary=event.get("summary"),
        description=event.get("description"),
        location=event.get("location"),
        all_day="date" in start,
        time_zone=start.get("timeZone"),
        attendees=[
            Guest(email=guest["email"], response=guest.get("responseStatus", "needsAction"))
            for guest in event.get("attendees") or ()
            if "email" in guest
        ],
        organizer=(event.get("organizer") or {}).get("email"),
        recurrence=event.get("recurrence") or [],
        recurring_event_id=event.get("recurringEventId"),
        transparency=event.get("transparency", "opaque"),
        visibility=event.get("visibility", "default"),
        color_id=event.get("colorId"),
        reminders=None if reminders.get("useDefault") else list(reminders.get("overrides") or ()),
        private_properties={
            name: value for name, value in private.items() if not name.startswith(OWN_PREFIX)
        },
    )


def appointment(event: Mapping[str, Any], calendar_id: str) -> Appointment:
    """Return an event as a caller's appointment.

    Raises:
        Unavailable: Google did not return an event.
    """
    short = _short(event, calendar_id, created=False)
    return Appointment(
        **{name: short[name] for name in ("event_id", "calendar_id", "start", "end", "status")},
        summary=event.get("summary"),
        guests=[guest["email"] for guest in event.get("attendees") or () if "email" in guest],
        recurring="recurringEventId" in event,
    )


def list_entry(event: Mapping[str, Any], calendar_id: str) -> EventEntry:
    """Return an event as an entry of a listing.

    Raises:
        Unavailable: Google did not return an event.
    """
    return EventEntry(
        **appointment(event, calendar_id).model_dump(),
        all_day="date" in (event.get("start") or {}),
        event_type=event.get("eventType", "default"),
        recurring_event_id=event.get("recurringEventId"),
    )


def _short(event: Mapping[str, Any], calendar_id: str, *, created: bool) -> dict[str, Any]:
    if not isinstance(event.get("id"), str) or event.get("status") not in {
        "confirmed",
        "tentative",
        "cancelled",
    }:
        raise Unavailable("Google Calendar did not return an event")
    return {
        "event_id": event["id"],
        "calendar_id": calendar_id,
        "status": event["status"],
        "start": _time(event.get("start"), last_day=False),
        "end": _time(event.get("end"), last_day=True),
        "html_link": event.get("htmlLink"),
        "meet_link": meet_link(event),
        "meet_status": meet_status(event),
        "etag": event.get("etag"),
        "event_type": event.get("eventType", "default"),
        "created": created,
    }


def _time(time: Mapping[str, str] | None, *, last_day: bool) -> str | None:
    if not time:
        return None  # Google promises no more than the id of a cancelled event
    if "date" not in time:
        return time.get("dateTime")
    day = date.fromisoformat(time["date"])
    return (day - timedelta(days=1) if last_day else day).isoformat()


def meet_link(event: Mapping[str, Any]) -> str | None:
    """Return the link of an event's conference, if there is one."""
    if isinstance(event.get("hangoutLink"), str):
        return str(event["hangoutLink"])
    for entry in (event.get("conferenceData") or {}).get("entryPoints") or ():
        if entry.get("entryPointType") == "video":
            return str(entry.get("uri"))
    return None


def meet_status(event: Mapping[str, Any]) -> str | None:
    """Return how the request for a conference stands; None if there is none."""
    request = (event.get("conferenceData") or {}).get("createRequest") or {}
    status = (request.get("status") or {}).get("statusCode")
    if meet_link(event) is not None:
        return "success"
    return status if status in {"pending", "failure"} else None
