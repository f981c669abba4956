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
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from simple_salesforce.api import Salesforce, SFType

from connectors.salesforce.bounded_threads import THREAD_WAIT_S, Threads
from connectors.salesforce.credential import SalesforceCredential
from connectors.salesforce.error_mapping import refusal
from connectors.salesforce.session import NOWHERE, Asked, LoopSession
from connectors.sdk.context import Context
from connectors.sdk.errors import Sent, Timeout

if TYPE_CHECKING:
    import httpx
    import requests

#: Seconds for one call. Salesforce mostly answers in a third of a second; a caller on the line is waiting.
CALL_TIMEOUT_S: Final = 12.0
#: Seconds for all calls of a job: less than an action's 30, so that a call without time left reports itself
#: that nothing was sent.
JOB_TIME_S: Final = 28.0
#: What simple-salesforce gets instead of the token, which stays in the shared layer.
NO_TOKEN: Final = "none"  # noqa: S105  # a name for the lack of one

Ctx = Context[SalesforceCredential]
T = TypeVar("T")

_threads: Final = Threads()
_USAGE = re.compile(r"\bapi-usage=([0-9]{1,12})/([0-9]{1,12})\b")


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
    """The API of one org, on behalf of one job, which makes one of these.

    api = SalesforceApi(ctx)
    record = await api.run(lambda org: org.object("Lead").get(lead_id))
    """

    def __init__(self, ctx: Ctx) -> None:
        self.ctx: Final = ctx
        self._http = ctx.http
        self._ends_at = time.monotonic() + JOB_TIME_S
        self._version = ctx.credential.api_version
        self._auth = ctx.credential.auth_for(ctx.tenant, ctx.http)
        #: Whose org it is, and which.
        self.account: Final = (ctx.tenant, ctx.credential.digest())
        self.root: Final = f"/services/data/v{self._version}/"

    async def run(self, work: Callable[[Org], T]) -> T:
        """Run a function of simple-salesforce in a thread.

        Raises:
            ConnectorError: by Salesforce's own code; see `error_mapping`.
        """
        base = self._http.at(await self._instance_url())

        async def send(asked: Asked) -> "httpx.Response":
            response = await base.request(
                asked.method,
                asked.path,
                params=asked.params,
                headers=asked.headers,
                content=asked.body,
                auth=self._auth,
                timeout_s=self._rest_s(CALL_TIMEOUT_S),
                raise_for_status=False,
            )
            if usage := _USAGE.search(response.headers.get("sforce-limit-info", "")):
                self._http.quota(int(usage[1]), int(usage[2]))
            if response.status_code >= 300:
                error = refusal(response)
                if asked.method == "GET":
                    error.sent = Sent.ANSWERED  # a read leaves nothing open, whoever broke it
                raise error
            return response

        session = LoopSession(self.root, send, asyncio.get_running_loop())

        return await _threads.run(
            self.account,
            lambda: work(Org(session, self._version)),
            session.cancel,
            wait_s=self._rest_s(THREAD_WAIT_S),
        )

    async def _instance_url(self) -> str:
        try:
            async with asyncio.timeout(self._rest_s(CALL_TIMEOUT_S)):
                token = await self._auth.token()
        except TimeoutError:
            raise Timeout("the access token did not come in time", sent=Sent.NO) from None
        return token.facts["instance_url"]

    def _rest_s(self, at_most_s: float) -> float:
        return max(min(at_most_s, self._ends_at - time.monotonic()), 0.0)
