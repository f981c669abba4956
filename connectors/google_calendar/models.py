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
    etag: str | None
    created: bool = Field(description="Whether this job made it; false where it was there already.")


class Guest(BaseModel):
    """A guest and their answer."""

    model_config = ConfigDict(frozen=True)

    email: str
    response: str = Field(description="needsAction, accepted, tentative or declined.")


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
        "etag": event.get("etag"),
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
    """Return the link of an event's conference, where it is there."""
    if isinstance(event.get("hangoutLink"), str):
        return str(event["hangoutLink"])
    for entry in (event.get("conferenceData") or {}).get("entryPoints") or ():
        if entry.get("entryPointType") == "video":
            return str(entry.get("uri"))
    return None


def meet_is_pending(event: Mapping[str, Any]) -> bool:
    """Return whether Google is still making the conference."""
    request = (event.get("conferenceData") or {}).get("createRequest") or {}
    return (request.get("status") or {}).get("statusCode") == "pending"
