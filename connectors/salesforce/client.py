"""Calls of an org's REST API: built and read by simple-salesforce, sent by the shared HTTP layer.

One call goes through: a token of this tenant's credential (one login for all waiting jobs) · a thread of the
org's share (`bounded_threads`) · simple-salesforce builds the request · the session takes it apart and hands it to
the event loop (`session`) · the shared layer sends it, and renews a refused token once · a refusal becomes
an error by Salesforce's own code (`error_mapping`) · simple-salesforce reads the answer.
"""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from simple_salesforce.api import Salesforce, SFType

from connectors.salesforce.bounded_threads import THREAD_WAIT_S, OrgThreads
from connectors.salesforce.credential import SalesforceCredential
from connectors.salesforce.error_mapping import reason_of, refusal, refusal_of
from connectors.salesforce.instance import EVERYWHERE, Instance, codes_of, may_have_moved, origin_of
from connectors.salesforce.session import NOWHERE, LoopSession, SessionRequest
from connectors.salesforce.soap import Elements, envelope, fault_of, read
from connectors.sdk import Context, CredentialInvalid, NotFound, Timeout, Unavailable
from connectors.sdk.auth import Token
from connectors.sdk.errors import Detail, Sent

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

    import httpx
    import requests

#: What simple-salesforce gets instead of the token, which stays in the shared layer.
NO_TOKEN: Final = "none"  # noqa: S105  # a name for the lack of one

#: The API redirects instead of doing anything; 300 lists several records, of which none was changed.
_NOT_DONE: Final = frozenset({300, 301, 302, 303, 307, 308})
#: Faults of the SOAP API that leave open whether the call was done.
UNCERTAIN_FAULTS: Final = frozenset({"UNKNOWN_EXCEPTION", "SERVER_UNAVAILABLE", "REQUEST_RUNNING_TOO_LONG"})

Ctx = Context[SalesforceCredential]
T = TypeVar("T")

_threads: Final = OrgThreads()
_USAGE = re.compile(r"\bapi-usage=([0-9]{1,12})/([0-9]{1,12})\b")


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How long calls may take."""

    #: Seconds for one call. Salesforce mostly answers in a third of a second; a caller on the line is waiting.
    call_s: float = 12.0
    #: Seconds for all calls of a job: less than an action's 30, so that a call without time left reports
    #: itself that nothing was sent.
    job_s: float = 28.0


TIME_LIMITS: Final = TimeLimits()


class Org:
    """simple-salesforce at work on one org, inside a thread."""

    def __init__(self, session: LoopSession, version: str) -> None:
        # A session of ours, in all that simple-salesforce uses of requests' own.
        self._session = cast("requests.Session", session)
        self._version = version
        self.api: Any = Salesforce(
            instance=NOWHERE, session_id=NO_TOKEN, session=self._session, version=version
        )

    def object(self, name: str) -> Any:
        """Return the builder for one object; `Salesforce.name` would find its own attributes first."""
        return SFType(name, NO_TOKEN, NOWHERE, sf_version=self._version, session=self._session)


class SalesforceApi:
    """The API of one org, on behalf of one job, which creates one of these.

    api = SalesforceApi(ctx)
    record = await api.run(lambda org: org.object("Lead").get(lead_id))

    Args:
        is_compensation: its calls undo what the job did; they pass pauses and open breakers.
    """

    def __init__(self, ctx: Ctx, *, is_compensation: bool = False, limits: TimeLimits = TIME_LIMITS) -> None:
        self.ctx: Final = ctx
        self._http = ctx.http.compensation() if is_compensation else ctx.http
        self._limits = limits
        self._ends_at = time.monotonic() + limits.job_s
        self._version = ctx.credential.api_version
        self._auth = ctx.credential.auth(ctx.http)
        #: Whose org it is, and which.
        self.account: Final = (ctx.tenant, ctx.credential.digest())
        self._instance = Instance(self.account, self._auth)
        self.root: Final = f"/services/data/v{self._version}/"

    async def run(self, work: Callable[[Org], T]) -> T:
        """Run a function of simple-salesforce in a thread.

        Raises:
            ConnectorError: by Salesforce's own code; see `error_mapping`.
        """
        await self._token()  # before a thread is taken: many jobs may wait for one login
        session = LoopSession(self.root, self._send, asyncio.get_running_loop())
        return await _threads.run(
            self.account,
            lambda: work(Org(session, self._version)),
            session.cancel,
            wait_s=self._remaining_s(THREAD_WAIT_S),
        )

    async def soap(
        self, call: str, item: str, elements: Elements, *, allow_duplicates: bool = False
    ) -> "ET.Element":
        """Send one call of the SOAP API, whose requests carry the token in their body.

        Raises:
            ConnectorError: by the code of the fault.
        """
        for tries_left in (1, 0):
            token = await self._token()
            session = token.value.get_secret_value()
            body = envelope(session, call, item, elements, allow_duplicates=allow_duplicates)
            response = await self._request(origin_of(token), self._soap_request(body))
            if response.status_code in {200, 500}:
                answer = read(response.content)
                if (fault := fault_of(answer)) is None:
                    return answer
                if not tries_left or fault["errorCode"] != "INVALID_SESSION_ID":
                    raise refusal_of([fault], 500 if fault["errorCode"] in UNCERTAIN_FAULTS else 400)
                self._auth.drop(token)
            elif not (tries_left and may_have_moved(response, "") and await self._instance.moved_from(token)):
                raise refusal(response)
        raise AssertionError("the last try returns or raises")

    def _soap_request(self, body: bytes) -> SessionRequest:
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'}
        return SessionRequest("POST", f"/services/Soap/u/{self._version}", headers=headers, body=body)

    async def _send(self, asked: SessionRequest) -> "httpx.Response":
        """Send a request to the org, and once more to its new address if it has moved."""
        token = await self._token()
        try:
            response = await self._request(origin_of(token), asked)
        except Unavailable as error:
            if error.sent is not Sent.NO or (moved := await self._instance.moved_from(token)) is None:
                raise
        else:
            moved = await self._moved(token, response, self._resource(asked))
            if moved is None:
                return self._checked(response, asked)
        return self._checked(await self._request(moved, asked), asked)

    async def _moved(self, token: Token, response: "httpx.Response", resource: str) -> str | None:
        """Return the org's new address if the answer comes from an old one."""
        if response.status_code == 401:
            return await self._instance.renewed_from(token)
        if may_have_moved(response, resource):
            return await self._instance.moved_from(token)
        return await self._find_api(token) if _is_not_found(response) else None

    async def _request(self, origin: str, asked: SessionRequest) -> "httpx.Response":
        return await self._http.at(origin, learned_from=self.ctx.credential.login_url).request(
            asked.method,
            asked.path,
            params=asked.params,
            headers=asked.headers,
            content=asked.body,
            auth=self._auth,
            timeout_s=self._remaining_s(self._limits.call_s),
            raise_for_status=False,
            unprocessed_statuses=_unprocessed(asked),
        )

    def _checked(self, response: "httpx.Response", asked: SessionRequest) -> "httpx.Response":
        if usage := _USAGE.search(response.headers.get("sforce-limit-info", "")):
            self._http.quota(int(usage[1]), int(usage[2]))
        if response.status_code < 300:
            return response
        if response.status_code == 404 and self._resource(asked) in EVERYWHERE:
            raise self._no_api(response)
        error = refusal(response)
        if asked.method == "GET":
            error.sent = Sent.ANSWERED  # a read changes nothing, even if it failed
        raise error

    async def _find_api(self, token: Token) -> str | None:
        """Return the org's new address if the API no longer answers at the old one; None if it does.

        Raises:
            CredentialInvalid: the API does not answer in this version.
        """
        response = await self._request(origin_of(token), SessionRequest("GET", self.root))
        if response.status_code != 410 and not may_have_moved(response, ""):
            return None
        moved = await self._instance.moved_from(token)
        if moved is None and codes_of(response) is not None:
            raise self._no_api(response)
        return moved

    def _no_api(self, response: "httpx.Response") -> CredentialInvalid:
        host, version = response.url.host, self._version
        issue = f"is not a version of the API at {host}"
        return CredentialInvalid(
            f"api_version {version} {issue}",
            details=[Detail(field="api_version", issue=issue)],
            data={"status": response.status_code},
        )

    def _resource(self, asked: SessionRequest) -> str:
        return asked.path.removeprefix(self.root).rstrip("/")

    async def _token(self) -> Token:
        try:
            async with asyncio.timeout(self._remaining_s(self._limits.call_s)):
                return await self._instance.token()
        except TimeoutError:
            raise Timeout("the access token did not come in time", sent=Sent.NO) from None

    def _remaining_s(self, at_most_s: float) -> float:
        return max(min(at_most_s, self._ends_at - time.monotonic()), 0.0)


def _unprocessed(asked: SessionRequest) -> frozenset[int]:
    """Return the statuses that do not prove a change: it did nothing, or its body says what was done."""
    if asked.path.endswith("/composite"):
        return _NOT_DONE | {200}
    return _NOT_DONE | {200, 500} if asked.path.startswith("/services/Soap/") else _NOT_DONE


def _is_not_found(response: "httpx.Response") -> bool:
    """Return whether an answer says that the record is unknown, or the object, or the API itself."""
    if response.status_code != 404:
        return False
    error = refusal(response)
    return isinstance(error, NotFound) and reason_of(error) == "NOT_FOUND" and not error.details
