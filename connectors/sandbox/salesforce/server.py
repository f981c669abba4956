"""A local server for Salesforce's OAuth and REST API, to develop, demo and test against.

    async with SalesforceSandbox() as salesforce:
        document = salesforce.credential()
        ...  # a worker with this document in its vault

One call goes through: a fault that was asked for (`faults`) · the session (`authority`) · the resource
(`api`), which reads and changes the `store` and writes each effect into the `journal`.

Known differences from Salesforce: one org, one user who may do everything, no sharing, flows are functions of
the test, searches find a record as soon as it is written, and `soql` lists the supported SOQL.
"""

import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from connectors.sandbox.salesforce.api import Api, Reply, Request, read_json
from connectors.sandbox.salesforce.faults import Fault, Journal, Refusal
from connectors.sandbox.salesforce.oauth import Authority, TokenRefused
from connectors.sandbox.salesforce.schema import Field
from connectors.sandbox.salesforce.soap import answer_soap
from connectors.sandbox.salesforce.store import Rule, Store
from connectors.sandbox.server import BaseSandbox, utc_now

__all__ = ["Fault", "Field", "Refusal", "Rule", "SalesforceSandbox"]

#: The custom field by which the sandbox's own credential makes creates idempotent.
KEY_FIELD: Final = "Connectors_Key__c"
_KEYED: Final = ("Lead", "Contact", "Case")


class SalesforceSandbox(BaseSandbox[Journal, Fault]):
    """A private org on the loopback interface.

    Args:
        port: 0 takes a free one.
        delay_s: how long each call takes, beyond the work.
        journal_file: where effects are appended, each synced to disk before it is answered.
        clock: returns the time, in UTC.
        tls: a certificate, to serve TLS.
    """

    connector: Final = "salesforce"
    max_line_bytes = 16_384

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        delay_s: float = 0.0,
        journal_file: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(Journal(journal_file), host=host, port=port, delay_s=delay_s, tls=tls)
        self.store = Store(self.journal, clock)
        self.authority = Authority(self.store)
        self.api = Api(self.store)
        #: Methods and raw paths with their queries, the newest last, for tests of encodings.
        self.requests: list[str] = []
        #: Bearer tokens of `requests`, in the same order.
        self.tokens: list[str] = []

    @property
    def url(self) -> str:
        """Its address: both the login host and the org's instance."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; credential documents can be made from now on."""
        await super().start()
        self.authority.login_url = self.authority.instance_url = self.url

    @property
    def settings(self) -> Mapping[str, str]:
        """The worker's settings that lead here: none, because the credential names the address."""
        return {}

    def credential(self, auth: str = "jwt") -> dict[str, Any]:
        """Return the credential's secret fields of a seeded org; creates are KEYED with them."""
        if KEY_FIELD.lower() not in self.store.object("Lead").fields:
            self.seed()
        fields = {f"{name.lower()}_external_id_field": KEY_FIELD for name in _KEYED}
        return self.authority.document(auth, task_key_field=KEY_FIELD, **fields)

    def seed(self) -> None:
        """Create the demo's records: an account, two contacts, a case, and the key fields."""
        store = self.store
        for name in (*_KEYED, "Task"):
            is_external = name != "Task"
            store.add_field(
                name, Field(KEY_FIELD, length=64, is_external_id=is_external, is_unique=is_external)
            )
        store.insert("Organization", {"Name": "Sandbox", "TimeZoneSidKey": "Europe/Istanbul"})
        for name in store.object("Lead").fields["status"].picklist:
            store.insert("LeadStatus", {"MasterLabel": name, "IsConverted": name == "Closed - Converted"})
        desk = store.insert("User", {"LastName": "Desk", "Email": "desk@clinic.example", "Username": "desk"})
        owner = {"OwnerId": desk["Id"]}
        clinic = store.insert("Account", {"Name": "Lovelace Clinic", "Industry": "Healthcare", **owner})
        account = {"AccountId": clinic["Id"], **owner}
        ada = store.insert(
            "Contact",
            {
                "FirstName": "Ada",
                "LastName": "Lovelace",
                "Email": "ada@lovelace.example",
                "Phone": "(532) 111 22 33",
                "MobilePhone": "+90 533 222 33 44",
                "Title": "Patient",
                **account,
            },
        )
        store.insert(
            "Contact",
            {"FirstName": "Charles", "LastName": "Babbage", "Email": "charles@babbage.example", **account},
        )
        store.insert(
            "Case",
            {
                "Subject": "Asks for an earlier appointment",
                "Origin": "Phone",
                "ContactId": ada["Id"],
                **account,
            },
        )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.rel_url.raw_path
        body = await request.read()
        self.requests.append(f"{request.method} {request.rel_url.raw_path_qs}")
        self.tokens.append(request.headers.get("Authorization", ""))
        work: Callable[[], web.Response]
        if raw == "/services/oauth2/token":
            operation, work = "token", partial(self._token, request, body)
        elif raw.startswith("/services/Soap/u/"):
            operation, work = "soap", partial(answer_soap, self.store, self.authority, body)
        else:
            asked = _read(request, raw)
            operation = "unknown" if asked is None else self.api.operation(asked)
            work = partial(self._call, request, asked, body)
        return await self._do(request, operation, work)

    def _token(self, request: web.BaseRequest, body: bytes) -> web.Response:
        if request.method != "POST" or request.content_type != "application/x-www-form-urlencoded":
            return _refuse_token(TokenRefused("invalid_request", "must use HTTP POST"))
        try:
            return web.json_response(self.authority.exchange(dict(parse_qsl(body.decode()))))
        except TokenRefused as refused:
            return _refuse_token(refused)

    def _call(self, request: web.BaseRequest, asked: Request | None, body: bytes) -> web.Response:
        self.api.used += 1
        headers = {"Sforce-Limit-Info": f"api-usage={self.api.used}/{self.api.daily_limit}"}
        try:
            self.authority.check(request.headers.get("Authorization", ""))
            if asked is None:
                raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
            whole = Request(
                asked.method, asked.path, asked.query, request.headers, read_json(body), asked.version
            )
            reply = self.api.answer(whole)
        except Refusal as refusal:
            reply = Reply(refusal.status, refusal.body())
        if reply.body is None:
            return web.Response(status=reply.status, headers=headers)
        return web.json_response(reply.body, status=reply.status, headers=headers)


def _refuse_token(refused: TokenRefused) -> web.Response:
    answer = {"error": refused.error, "error_description": refused.description}
    return web.json_response(answer, status=refused.status)


def _read(request: web.BaseRequest, raw: str) -> Request | None:
    """Return the call with its path split; None if it is not a path of the API."""
    empty, services, data, version, *rest = raw.split("/") + [""] * 4
    if (empty, services, data) != ("", "services", "data") or not version.startswith("v"):
        return None
    path = tuple(unquote(segment) for segment in rest if segment)
    query = {name: request.query[name] for name in request.query}
    return Request(request.method, path, query, request.headers, None, version)
