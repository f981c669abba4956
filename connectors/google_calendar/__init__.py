"""Google Calendar: find free times, book them once, and look after events."""

# Importing the modules of the actions registers them.
from connectors.google_calendar import appointments, availability, booking, cancelling, events, guests, moving
from connectors.google_calendar.connector import google_calendar

__all__ = [
    "appointments",
    "availability",
    "booking",
    "cancelling",
    "events",
    "google_calendar",
    "guests",
    "moving",
]
