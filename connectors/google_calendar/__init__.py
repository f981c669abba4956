"""Google Calendar: find free times, book them once, and look after events."""

# Importing the modules of the actions registers them.
from connectors.google_calendar import availability, booking, events
from connectors.google_calendar.connector import google_calendar

__all__ = ["availability", "booking", "events", "google_calendar"]
