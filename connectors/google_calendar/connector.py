"""The connector itself; its actions are in `events`, `booking` and `availability`."""

from typing import Final

from connectors.google_calendar.credential import GoogleCredential
from connectors.sdk.connector import Connector

#: Where the API is, unless the setting CONNECTORS_GOOGLE_CALENDAR_API_URL says otherwise.
API_URL: Final = "https://www.googleapis.com/calendar/v3"

google_calendar = Connector("google_calendar", title="Google Calendar", credential=GoogleCredential)


def api_url() -> str:
    """Give the whole base of the API: the worker puts the setting `api_url` there before it starts."""
    return google_calendar.settings.get("api_url", API_URL)
