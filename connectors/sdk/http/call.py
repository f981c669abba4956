"""One call: a token, its hops, and the account's breaker, within one total time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import urljoin

import httpx

from connectors.sdk.errors import ConnectorError, CredentialInvalid, Rejected, Sent, Timeout
from connectors.sdk.http.address import RefusedAddress, Target, check_target, read_url
from connectors.sdk.http.circuit_breaker import BreakerPermit, HostBreaker, HostBreakers
from connectors.sdk.http.request import HttpRequest, add_headers, invalid
from connectors.sdk.http.status import is_error, wait_asked_s
from connectors.sdk.http.tokens import Token
from connectors.sdk.http.transport import SendProgress, Transport
from schemas.error import Code, Detail

#: Called after each request: how far inside the host lies (`public`, `loopback`, `internal`), how it ended
#: (`2xx` to `5xx`, `timeout`, `unreachable`, `cut`, `oversize`, `refused`, `held_back`, `cancelled`), seconds.
OnCall = Callable[[str, str, float], None]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS: Final = 5
#: All that follows a redirect to another host; what else was given may be a secret.
_CROSSING_HEADERS: Final = frozenset({"accept", "accept-language", "user-agent"})


class Auth(Protocol):
    """Where a request gets its bearer token; `TokenAuth` is one."""

    async def token(self) -> Token:
        """Return the token, fetched if there is none."""

    def drop(self, refused: Token) -> None:
        """Forget a token that the provider refused."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the calls of all jobs share."""

    transport: Transport
    breakers: HostBreakers
    #: The hosts of CONNECTORS_PLAINTEXT_HOSTS.
    internal: frozenset[str]
    on_call: OnCall


class JobEffects:
    """What a job's requests may have changed so far; shared by all clients made from its own."""

    __slots__ = ("may_have_effect",)

    def __init__(self) -> None:
        self.may_have_effect = False

    def judge(self, request: HttpRequest, error: ConnectorError) -> None:
        """Make `sent` cover the whole job rather than one request."""
        if request.is_safe and error.sent is Sent.UNCERTAIN:
            error.sent = Sent.NO
        if self.may_have_effect and error.sent is Sent.NO:
            error.sent = Sent.UNCERTAIN
        if error.sent is Sent.UNCERTAIN:
            self.may_have_effect = True


class HttpCall:
    """Make one call on behalf of an account.

    Args:
        account: tenant, connector and credential.
        named: the hosts (`host` or `host:port`) that a credential or a setting names.
        effects: what the job's requests may have changed.
    """

    __slots__ = ("_account", "_effects", "_named", "_state")

    def __init__(
        self, state: PoolState, account: tuple[str, str, str], named: frozenset[str], effects: JobEffects
    ) -> None:
        self._state = state
        self._account = account
        self._named = named
        self._effects = effects

    async def run(self, request: HttpRequest, auth: Auth | None, follow_redirects: bool) -> httpx.Response:
        """Make the call; a token that is refused is renewed once.

        Raises:
            ConnectorError: there is no answer; an answer of 400 or more is given back.
        """
        if auth is None:
            return await self._follow(request, follow_redirects)
        token = await _in_time(request, auth)
        response = await self._follow(_with_bearer(request, token), follow_redirects)
        if response.status_code != 401:
            return response
        # Refused is answered and not done: whatever the method, it may be sent once more.
        auth.drop(token)
        renewed = await _in_time(request, auth)
        if renewed.value == token.value:
            return response
        return await self._follow(_with_bearer(request, renewed), follow_redirects)

    async def _follow(self, request: HttpRequest, follow_redirects: bool) -> httpx.Response:
        """Send, and send again where the answer leads, if that was asked for."""
        response = await self._send(request)
        if not follow_redirects or not request.is_safe:
            return response
        for _ in range(MAX_REDIRECTS):
            if response.status_code not in _REDIRECTS or "location" not in response.headers:
                return response
            request = self._hop(request, response.headers["location"])
            response = await self._send(request)
        if response.status_code in _REDIRECTS:
            raise Rejected(f"{request.target.host} redirects more than {MAX_REDIRECTS} times")
        return response

    def _hop(self, request: HttpRequest, location: str) -> HttpRequest:
        """Check where a redirect leads, and leave behind what must not go there."""
        here = request.target
        try:
            there = read_url(urljoin(here.url, location))
            if here.scheme == "https" and there.scheme == "http":
                raise RefusedAddress("is plain http, from https")
            if there.origin != here.origin and not self._is_named(there):
                raise RefusedAddress("names another host, which the credential does not allow")
            check_target(there, is_named=self._is_named(there), internal=self._state.internal)
        except (RefusedAddress, ValueError) as error:
            issue = error if isinstance(error, RefusedAddress) else "cannot be read"
            raise Rejected(f"{here.host} redirects to a URL that {issue}") from None
        headers = request.headers
        if there.origin != here.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _CROSSING_HEADERS}
        return replace(request, target=there, headers=headers)

    async def _send(self, request: HttpRequest) -> httpx.Response:
        """Put one request on the wire, and let the account's breaker learn from how it ends."""
        target = request.target
        try:
            reach = check_target(target, is_named=self._is_named(target), internal=self._state.internal)
        except RefusedAddress as error:
            raise self._refused(target, error) from None
        breaker = self._state.breakers.of((*self._account, target.netloc))
        started = time.monotonic()
        outcome, permit = "held_back", None
        try:
            permit = breaker.enter()
            outcome = "cancelled"
            response = await self._send_in_time(request)
            outcome = f"{response.status_code // 100}xx"
            _report(breaker, permit, response)
            permit = None
        except ConnectorError as error:
            if permit is not None:
                outcome = _outcome_of(error)
                if outcome in {"timeout", "unreachable", "cut"}:
                    breaker.failed(permit)
                    permit = None
            raise
        finally:
            if permit is not None:
                breaker.release(permit)
            self._state.on_call(reach.value, outcome, time.monotonic() - started)
        if not request.is_safe and not is_error(response.status_code):
            self._effects.may_have_effect = True
        return response

    async def _send_in_time(self, request: HttpRequest) -> httpx.Response:
        """Send within what is left of the call's time."""
        host, progress = request.target.host, SendProgress()
        remaining_s = request.ends_at - time.monotonic()
        if remaining_s > 0:
            try:
                async with asyncio.timeout(remaining_s):
                    return await self._state.transport.send(request, progress)
            except TimeoutError:
                pass  # raised below, outside of the handler: nothing of aiohttp's hangs on it
            except RefusedAddress as error:
                raise self._refused(request.target, error) from None
        raise _late(request, f"{host} did not answer", progress.sent)

    def _is_named(self, target: Target) -> bool:
        return target.netloc in self._named or target.host in self._named

    def _refused(self, target: Target, error: RefusedAddress) -> ConnectorError:
        if self._is_named(target):
            return CredentialInvalid(
                f"the host {target.host}, which the credential names, {error}",
                details=[Detail(field="base_url", issue=str(error))],
                sent=Sent.NO,
            )
        return invalid("url", str(error))


async def _in_time(request: HttpRequest, auth: Auth) -> Token:
    remaining_s = request.ends_at - time.monotonic()
    if remaining_s > 0:
        try:
            async with asyncio.timeout(remaining_s):
                return await auth.token()
        except TimeoutError:
            pass
    raise _late(request, "the access token did not come", Sent.NO)


def _late(request: HttpRequest, what: str, sent: Sent) -> Timeout:
    if request.limit_s <= 0:
        return Timeout(f"no time was left to call {request.target.host}", sent=Sent.NO)
    return Timeout(f"{what} within {request.limit_s:.3g} s", sent=sent)


def _with_bearer(request: HttpRequest, token: Token) -> HttpRequest:
    headers = dict(request.headers)
    add_headers(headers, {"Authorization": f"Bearer {token.value.get_secret_value()}"})
    return replace(request, headers=headers)


def _report(breaker: HostBreaker, permit: BreakerPermit, response: httpx.Response) -> None:
    wait_s = wait_asked_s(response.headers, now=time.time())
    if response.status_code >= 500:
        breaker.failed(permit, wait_s=wait_s)
    else:
        breaker.answered(permit, is_limited=response.status_code == 429, wait_s=wait_s)


def _outcome_of(error: ConnectorError) -> str:
    """Name a failure for the metrics."""
    if isinstance(error, Timeout):
        return "timeout"
    if error.code is Code.RESULT_TOO_LARGE:
        return "oversize"
    if error.code is not Code.UNAVAILABLE:
        return "refused"
    return "unreachable" if error.sent is Sent.NO else "cut"
