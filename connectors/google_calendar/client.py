"""Calls of the Calendar API: built and read by google-api-python-client, sent by the shared HTTP layer.

Its own transport is never used: it blocks, and it resends a POST by itself if the connection is cut
(measured: two events, one answer).
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httplib2
from googleapiclient.discovery import build

from connectors.google_calendar.connector import api_url
from connectors.google_calendar.credential import GoogleCredential
from connectors.google_calendar.error_mapping import UNNAMED_WAIT_S, reason_of, refusal
from connectors.sdk import Context
from connectors.sdk.errors import NotFound, RateLimited, Sent, Unavailable
from connectors.sdk.http import is_error

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http import HttpClient

#: Seconds for one call. Google mostly answers in a fifth of a second; a caller on the line is waiting.
CALL_TIMEOUT_S: Final = 10.0

Ctx = Context[GoogleCredential]


class _NoTransport:
    """Stand in for the client's own transport, which is never used."""

    def request(self, *_: object, **__: object) -> NoReturn:
        raise AssertionError("requests go through the shared HTTP layer")


@cache
def _service() -> Any:
    return build("calendar", "v3", http=_NoTransport(), static_discovery=True, cache_discovery=False)


@cache
def _base_url() -> str:
    return str(_service()._baseUrl)


# The resources are kept: making one takes 5 ms, each time.


@cache
def events() -> Any:
    """Return the builder of requests about events."""
    return _service().events()


@cache
def freebusy() -> Any:
    """Return the builder of requests about free and busy times."""
    return _service().freebusy()


@cache
def calendar_list() -> Any:
    """Return the builder of requests about the account's calendars."""
    return _service().calendarList()


class CalendarApi:
    """The API, on behalf of one job.

    api = CalendarApi(ctx)
    event = await api.send(events().get(calendarId="primary", eventId=event_id))
    """

    def __init__(self, ctx: Ctx, http: "HttpClient | None" = None) -> None:
        self._ctx = ctx
        self._http = (http or ctx.http).at(api_url())
        self._auth = ctx.credential.auth(ctx.http)

    def compensating(self) -> "CalendarApi":
        """Return the API for calls that undo what this job did; they pass pauses and the deadline."""
        return CalendarApi(self._ctx, self._ctx.http.compensation())

    async def send(self, request: Any, *, etag: str | None = None) -> dict[str, Any]:
        """Send a request that the client has built, and give its answer.

        Args:
            etag: change the event only while it is this version.

        Raises:
            ConnectorError: by Google's reason; see `error_mapping`.
        """
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in {"accept", "content-type", "x-goog-api-client"}
        }
        if etag is not None:
            headers["If-Match"] = etag
        # freeBusy is asked by POST; a failure of it leaves no write open.
        only_asks = request.methodId == "calendar.freebusy.query"
        response = await self._http.request(
            request.method,
            "/" + request.uri.removeprefix(_base_url()),
            headers=headers,
            content=None if request.body is None else request.body.encode(),
            auth=self._auth,
            timeout_s=CALL_TIMEOUT_S,
            raise_for_status=False,
            changes_nothing=only_asks,
        )
        if is_error(response.status_code):
            error = refusal(response)
            if only_asks and error.sent is Sent.UNCERTAIN:
                error.sent = Sent.NO
            if isinstance(error, RateLimited) and response.status_code == 403:
                # The layer knows a 429; that this 403 is one, too, it cannot know.
                self._http.pause("/", error.retry_after_s or UNNAMED_WAIT_S)
            raise error
        return _read(request, response)

    async def remove(
        self, calendar_id: str, event_id: str, *, send_updates: str = "none", etag: str | None = None
    ) -> None:
        """Cancel an event; one that is gone already is as good.

        Raises:
            Conflict: it is not the version of this etag.
            NotFound: it was not found, and is not proven to be gone.
        """
        request = events().delete(calendarId=calendar_id, eventId=event_id, sendUpdates=send_updates)
        try:
            await self.send(request, etag=etag)
        except NotFound as gone:
            if reason_of(gone) != "deleted" and not await self.is_gone(calendar_id, event_id):
                raise

    async def is_gone(self, calendar_id: str, event_id: str) -> bool:
        """Return whether an event is proven to be gone.

        Raises:
            NotFound: the calendar itself is not found, so that nothing is known of the event.
        """
        try:
            event = await self.send(events().get(calendarId=calendar_id, eventId=event_id))
        except NotFound as gone:
            if reason_of(gone) != "deleted":
                # A calendar that is hidden or a wrong address answers 404 as well; one that lists is a proof.
                await self.send(events().list(calendarId=calendar_id, maxResults=1, fields="timeZone"))
            return True
        return event.get("status") == "cancelled"


def _read(request: Any, response: "httpx.Response") -> dict[str, Any]:
    if response.status_code < 300:
        facts = httplib2.Response({"status": str(response.status_code)})
        try:
            answer = request.postproc(facts, response.content)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict):
            return answer
        if request.method == "DELETE":
            return {}  # it has nothing to say
    # What was asked for may have been done; only its answer is of no use.
    raise Unavailable("Google Calendar did not return a JSON object", sent=Sent.UNCERTAIN)
