"""A local server that speaks Google's OAuth and Calendar v3, to develop, demo and test against.

    async with GoogleSandbox() as google:
        google.store.add_account("desk@clinic.example", time_zone="Europe/Istanbul")
        document = google.authority.service_account("bot@sandbox.example", subject="desk@clinic.example")
        ...  # a worker with CONNECTORS_GOOGLE_CALENDAR_API_URL=google.url and this credential

One call goes through: a fault that was asked for (`faults`) · the bearer token and its scopes
(`authority`) · the discovery document (`discovery`) · the method (`api`), which reads and
changes the `store` and writes each effect into the `journal`.

Known to differ from Google: there is no quota, guests have no copies of an event on their calendars,
sync tokens are decoration, and unknown fields are refused rather than ignored.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from connectors.sandbox.google.api import OPERATIONS
from connectors.sandbox.google.discovery import Method, check, find_method
from connectors.sandbox.google.faults import Fault, Journal, Refusal
from connectors.sandbox.google.oauth import Authority, TokenRefused
from connectors.sandbox.google.store import Store
from connectors.sandbox.server import BaseSandbox, utc_now

__all__ = ["Fault", "GoogleSandbox", "Refusal"]

#: The path of the API, as at Google.
BASE: Final = "/calendar/v3"
#: The account that `credential()` makes, and the zone of its calendar.
DEVELOPER: Final = "desk@sandbox.example"
DEVELOPER_ZONE: Final = "Europe/Istanbul"


class GoogleSandbox(BaseSandbox[Journal, Fault]):
    """A Google of one's own, on the loopback interface.

    Args:
        port: 0 takes a free one.
        delay_s: how long each call takes, beyond the work.
        journal_file: where effects are appended, each synced to disk before it is answered.
        clock: tells the time, in UTC.
    """

    connector: Final = "google_calendar"

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        delay_s: float = 0.0,
        journal_file: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        super().__init__(Journal(journal_file), host=host, port=port, delay_s=delay_s)
        self.store = Store(self.journal, clock)
        self.authority = Authority(self.store)

    @property
    def url(self) -> str:
        """The base of the Calendar API, as CONNECTORS_GOOGLE_CALENDAR_API_URL takes it."""
        return f"http://{self.host}:{self.port}{BASE}"

    @property
    def token_url(self) -> str:
        """The token endpoint, as credential documents name it."""
        return f"http://{self.host}:{self.port}/token"

    @property
    def settings(self) -> Mapping[str, str]:
        """The worker's settings that lead here, by their names less CONNECTORS_."""
        return {"GOOGLE_CALENDAR_API_URL": self.url}

    def credential(self) -> dict[str, Any]:
        """Create an account to develop with, and give its credential's document."""
        if DEVELOPER not in self.store.accounts:
            self.store.add_account(DEVELOPER, time_zone=DEVELOPER_ZONE)
        return self.authority.authorized_user(DEVELOPER)

    async def start(self) -> None:
        """Listen; credential documents can be made from now on."""
        await super().start()
        self.authority.token_url = self.token_url

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.rel_url.raw_path
        work: Callable[[], web.Response]
        body = await request.read()
        if raw == "/token":
            operation, work = "token", partial(self._token, request, body)
        else:
            try:
                if not raw.startswith(BASE + "/"):
                    raise Refusal(404, "notFound", "Not Found")
                method, path = find_method(request.method, raw.removeprefix(BASE))
            except Refusal as refusal:
                self.journal.calls["unknown"] += 1
                return _refuse(refusal)
            operation, work = method.name, partial(self._call, request, method, path, body)
        return await self._do(request, operation, work)

    def _token(self, request: web.BaseRequest, body: bytes) -> web.Response:
        if request.method != "POST" or request.content_type != "application/x-www-form-urlencoded":
            return web.json_response({"error": "invalid_request"}, status=400)
        form = dict(parse_qsl(body.decode()))
        try:
            return web.json_response(self.authority.exchange(form))
        except TokenRefused as refused:
            answer = {"error": refused.error, "error_description": refused.description}
            return web.json_response(answer, status=refused.status)

    def _call(
        self, request: web.BaseRequest, method: Method, path: Mapping[str, str], body: bytes
    ) -> web.Response:
        try:
            actor = self.authority.actor_of(request.headers.get("Authorization", ""))
            if method.scopes.isdisjoint(actor.scopes):
                raise Refusal(
                    403, "insufficientPermissions", "Request had insufficient authentication scopes."
                )
            query = {name: request.query.getall(name) for name in request.query}
            checked = check(method, path, query, _read(body))
            operation = OPERATIONS.get(method.name)
            if operation is None:
                raise Refusal(501, "notImplemented", f"the sandbox does not answer {method.name}")
            answer = operation(self.store, actor, checked, request.headers)
        except Refusal as refusal:
            return _refuse(refusal)
        if answer is None:
            return web.Response(status=204)
        headers = {"ETag": answer["etag"]} if "etag" in answer else {}
        return web.json_response(answer, headers=headers)


def _read(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        raise Refusal(400, "parseError", "Parse Error") from None


def _refuse(refusal: Refusal) -> web.Response:
    return web.json_response(refusal.body(), status=refusal.status, headers=refusal.headers)
