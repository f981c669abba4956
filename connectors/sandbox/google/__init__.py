"""A local server that speaks the Google Calendar API."""
