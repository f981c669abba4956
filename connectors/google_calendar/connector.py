"""The connector itself; its actions are in `availability`, `booking` and `events`."""

from typing import Final

from connectors.google_calendar.credential import GoogleCredential
from connectors.sdk import Connector, UrlSetting
from connectors.sdk.errors import Code

#: Where the API is, unless the setting CONNECTORS_GOOGLE_CALENDAR_API_URL says otherwise.
API_URL: Final = "https://www.googleapis.com/calendar/v3"

#: What an action may fail with beyond the common codes, for the catalogue.
READ_ERRORS: Final = (
    Code.CREDENTIAL_INVALID,
    Code.PERMISSION_DENIED,
    Code.NOT_FOUND,
    Code.REJECTED,
    Code.RATE_LIMITED,
    Code.UNAVAILABLE,
    Code.TIMEOUT,
)
WRITE_ERRORS: Final = (*READ_ERRORS, Code.CONFLICT)

google_calendar = Connector(
    "google_calendar",
    title="Google Calendar",
    credential=GoogleCredential,
    settings=[UrlSetting("api_url", API_URL, "the whole base of the Calendar API")],
)


def api_url() -> str:
    """Return the whole base of the API."""
    return google_calendar.settings["api_url"]
