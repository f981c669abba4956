"""The guests of an event: add_attendees, remove_attendees and respond_to_invitation."""

from typing import Any

from connectors.google_calendar.changes import Change
from connectors.google_calendar.client import CalendarApi, Ctx
from connectors.google_calendar.connector import WRITE_ERRORS, google_calendar
from connectors.google_calendar.fields import MAX_GUESTS
from connectors.google_calendar.models import EventDetails, full_answer
from connectors.google_calendar.params import ChangeGuests, Respond
from connectors.google_calendar.series import SeriesTarget
from connectors.sdk import Effect
from connectors.sdk.errors import InvalidParams, Rejected, Sent


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def add_attendees(params: ChangeGuests, ctx: Ctx) -> EventDetails:
    """Invite guests to an event; who is invited already stays as they are."""

    async def add(target: SeriesTarget) -> dict[str, Any]:
        there = list(target.event.get("attendees") or ())
        known = {_address(guest) for guest in there}
        new = [{"email": address} for address in params.attendees if address.lower() not in known]
        if len(there) + len(new) > MAX_GUESTS:
            raise InvalidParams.field("attendees", f"would make more than {MAX_GUESTS} guests")
        return {"attendees": [*there, *new]} if new else {}

    return await _change(params, ctx, add)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def remove_attendees(params: ChangeGuests, ctx: Ctx) -> EventDetails:
    """Take guests off an event; who is not a guest is no error."""
    gone = {address.lower() for address in params.attendees}

    async def remove(target: SeriesTarget) -> dict[str, Any]:
        there = list(target.event.get("attendees") or ())
        return {"attendees": [guest for guest in there if _address(guest) not in gone]}

    return await _change(params, ctx, remove)


@google_calendar.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def respond_to_invitation(params: Respond, ctx: Ctx) -> EventDetails:
    """Accept or decline an invitation on behalf of this account, or answer that it is tentative."""

    async def respond(target: SeriesTarget) -> dict[str, Any]:
        there = list(target.event.get("attendees") or ())
        if not any(guest.get("self") for guest in there):
            raise Rejected("this account is not a guest of the event", sent=Sent.ANSWERED)
        return {
            "attendees": [
                {**guest, "responseStatus": params.response} if guest.get("self") else guest
                for guest in there
            ]
        }

    return await _change(params, ctx, respond)


async def _change(params: ChangeGuests | Respond, ctx: Ctx, make_body: Any) -> EventDetails:
    event = await Change(ctx, CalendarApi(ctx), params, make_body).apply()
    return full_answer(event, params.calendar_id)


def _address(guest: dict[str, Any]) -> str:
    return str(guest.get("email")).lower()
