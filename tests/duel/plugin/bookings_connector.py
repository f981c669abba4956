"""Ours: a WRITE at a provider that takes no key, and how to find the booking again."""

import os

from pydantic import BaseModel

from connectors.sdk import Connector, Context, Effect

bookings = Connector("bookings")

_URL = os.environ["BOOKINGS_URL"]
_TIMEOUT_S = float(os.environ["BOOKINGS_TIMEOUT_S"])


class Booking(BaseModel):
    reference: str


@bookings.action(effect=Effect.WRITE, timeout_s=_TIMEOUT_S)
async def book(reference: str, ctx: Context) -> Booking:
    """Book."""
    api = ctx.http.at(_URL)
    return Booking.model_validate((await api.post("/bookings", json={"reference": reference})).json())


@book.reconcile
async def find_booking(reference: str, ctx: Context) -> Booking | None:
    """Find the booking with this reference."""
    found = await ctx.http.at(_URL).get("/bookings", params={"reference": reference})
    return next((Booking.model_validate(each) for each in found.json()["bookings"]), None)
