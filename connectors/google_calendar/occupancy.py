"""What takes up a time: one rule for search, check, alternatives, bookings, conflict checks and moves.

    half-open    [s, e) meets [a, b) if s < b and a < e
    no length    an event of no length takes nothing
    left out     cancelled, transparent, declined by the calendar's owner, working locations, birthdays
    holds        a hold of ours takes its time for ten minutes, then nothing, anywhere

freeBusy leaves out the same; holds it cannot tell from appointments: `freebusy` looks them up.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from connectors.google_calendar.fields import OWN_PREFIX
from connectors.google_calendar.slots import Period

Event = dict[str, Any]

#: How far a booking is: `open` while the event is a hold, `confirmed` once it is the appointment.
HOLD_PROPERTY: Final = OWN_PREFIX + "claim"
#: An older hold has no job any more: far longer than an action takes, its takeover after a crash included.
HOLD_LIFETIME: Final = timedelta(minutes=10)

_FREE_KINDS: Final = frozenset({"workingLocation", "birthday"})


def private_of(event: Mapping[str, Any]) -> Mapping[str, str]:
    """Return an event's private properties."""
    return (event.get("extendedProperties") or {}).get("private") or {}


def root_of(event: Mapping[str, Any]) -> str:
    """Return the id of an event, or of the series that an occurrence belongs to."""
    return str(event.get("recurringEventId") or event["id"])


def is_hold(event: Mapping[str, Any]) -> bool:
    """Return whether an event holds a time for a job that is not decided yet."""
    return private_of(event).get(HOLD_PROPERTY) == "open"


def is_given_up(event: Mapping[str, Any], now: datetime) -> bool:
    """Return whether an event is a hold whose job must have ended long ago."""
    if not is_hold(event):
        return False
    try:
        created = datetime.fromisoformat(event["created"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return False
    return now - created > HOLD_LIFETIME


def takes_time(event: Mapping[str, Any], now: datetime) -> bool:
    """Return whether an event takes up the calendar's owner."""
    has_declined = any(
        guest.get("self") and guest.get("responseStatus") == "declined"
        for guest in event.get("attendees") or ()
    )
    return (
        event.get("status") != "cancelled"
        and event.get("transparency") != "transparent"
        and event.get("eventType") not in _FREE_KINDS
        and not has_declined
        and not is_given_up(event, now)
    )


def meets(one: Period, other: Period) -> bool:
    """Return whether two times have a moment in common; one of no length has none."""
    return max(one[0], other[0]) < min(one[1], other[1])
