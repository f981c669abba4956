"""One call: a token, its hops, and the account's breaker, within one total time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol
from urllib.parse import urljoin

import httpx

from connectors.sdk.errors import ConnectorError, CredentialInvalid, InvalidParams, Rejected, Sent, Timeout
from connectors.sdk.http.adaptive_limit import AdaptiveLimit
from connectors.sdk.http.address import Reach, RefusedAddress, Target, check_target, read_url
from connectors.sdk.http.circuit_breaker import BreakerPermit, HostBreaker, HostBreakers
from connectors.sdk.http.compensation import CompensationSlots
from connectors.sdk.http.egress import Egress
from connectors.sdk.http.host_room import HostRooms
from connectors.sdk.http.job_effects import JobEffects, RequestEffect, is_unprocessed
from connectors.sdk.http.policy import OnCall
from connectors.sdk.http.refresh_tokens import Account
from connectors.sdk.http.request import BODILESS_METHODS, HttpRequest, add_headers
from connectors.sdk.http.status import location_of, wait_asked_s
from connectors.sdk.http.tokens import Token
from connectors.sdk.http.transport import SendProgress, Transport
from schemas.error import Code, Detail

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Redirects that a request follows with its method and body.
_KEEPING_METHOD: Final = frozenset({307, 308})
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
    rooms: HostRooms
    compensation_slots: CompensationSlots
    #: What may be called inside.
    egress: Egress
    on_call: OnCall
    clock: Callable[[], float]
    #: Seconds since the epoch, to measure dates against.
    wall_clock: Callable[[], float]


class HttpCall:
    """One call on behalf of an account.

    Args:
        account: tenant, connector and credential.
        named: the hosts (`host` or `host:port`) that a credential or a setting names.
        effects: what the run's requests may have changed.
        is_compensation: pass pauses, open breakers and the host's room.
    """

    __slots__ = ("_account", "_effects", "_is_compensation", "_named", "_state")

    def __init__(
        self,
        state: PoolState,
        account: Account,
        named: frozenset[str],
        effects: JobEffects,
        *,
        is_compensation: bool = False,
    ) -> None:
        self._state = state
        self._account = account
        self._named = named
        self._effects = effects
        self._is_compensation = is_compensation

    async def run(self, request: HttpRequest, auth: Auth | None, follow_redirects: bool) -> httpx.Response:
        """Send the request; a token that is refused is renewed once.

        Raises:
            ConnectorError: there is no answer; an answer of 400 or more is returned.
        """
        if auth is None:
            return await self._follow(request, follow_redirects)
        token = await self._token(request, auth)
        response = await self._follow(_with_bearer(request, token), follow_redirects)
        if response.status_code != 401:
            return response
        # A refused token proves that nothing was done: any method may be sent once more.
        auth.drop(token)
        renewed = await self._token(request, auth)
        if renewed.value == token.value:
            return response
        return await self._follow(_with_bearer(request, renewed), follow_redirects)

    async def _follow(self, request: HttpRequest, follow_redirects: bool) -> httpx.Response:
        """Send, and send again to where the answer leads if that is allowed."""
        effect = self._track(request)
        response = await self._send(request, effect)
        for _ in range(MAX_REDIRECTS):
            if not _leads_on(request, response, follow_redirects):
                break
            request = self._hop(request, response.headers["location"])
            response = await self._send(request, effect)
        if _leads_on(request, response, follow_redirects):
            sent = Sent.ANSWERED if effect is None else Sent.UNCERTAIN
            raise Rejected(
                f"{request.target.host} redirects more than {MAX_REDIRECTS} times",
                data={"status": response.status_code, "location": location_of(response.headers)},
                sent=sent,
            )
        if effect is not None and is_unprocessed(response.status_code, request.unprocessed_statuses):
            effect.prove_unprocessed()
        return response

    def _track(self, request: HttpRequest) -> RequestEffect | None:
        if not request.is_safe:
            return self._effects.track()
        self._effects.has_asked = True
        return None

    def _hop(self, request: HttpRequest, location: str) -> HttpRequest:
        """Check where a redirect leads, and leave behind what must not go there."""
        here = request.target
        try:
            there = read_url(urljoin(here.url, location))
            if here.scheme == "https" and there.scheme == "http":
                raise RefusedAddress("is plain http, from https")
            if there.origin != here.origin and not self._is_named(there):
                raise RefusedAddress("names another host, which the credential does not allow")
            check_target(there, is_named=self._is_named(there), egress=self._state.egress)
        except (RefusedAddress, ValueError) as error:
            issue = error if isinstance(error, RefusedAddress) else "cannot be read"
            raise Rejected(f"{here.host} redirects to a URL that {issue}") from None
        if there.origin == here.origin:
            return replace(request, target=there)
        crossing = {
            name: value for name, value in request.headers.items() if name.lower() in _CROSSING_HEADERS
        }
        return replace(request, target=there, headers=crossing, secret_query="", tls=None)

    async def _send(self, request: HttpRequest, effect: RequestEffect | None) -> httpx.Response:
        """Put one request on the wire, and let the account's breaker learn from how it ends."""
        target, state = request.target, self._state
        try:
            reach = check_target(target, is_named=self._is_named(target), egress=state.egress)
        except RefusedAddress as error:
            state.on_call(Reach.PUBLIC.value, "refused", 0.0)
            raise self._refused(target, error) from None
        breaker = state.breakers.of((*self._account, target.netloc))
        started = state.clock()
        outcome, permit = "held_back", None
        try:
            permit = breaker.enter(is_compensation=self._is_compensation)
            async with self._room(request, breaker.limit) as has_waited:
                if has_waited:  # for the breaker it leaves now, if it still may
                    breaker.release(permit)
                    permit = None
                    permit = breaker.enter()
                outcome = "cancelled"
                response = await self._send_in_time(request, effect, reach)
                outcome = f"{response.status_code // 100}xx"
                _report(breaker, permit, response, state.wall_clock())
                permit = None
        except ConnectorError as error:
            if permit is not None and outcome != "held_back":
                outcome = _outcome_of(error)
                if outcome in {"timeout", "unreachable", "cut"}:
                    breaker.failed(permit)
                    permit = None
            raise
        finally:
            if permit is not None:
                breaker.release(permit)
            state.on_call(reach.value, outcome, state.clock() - started)
        return response

    async def _send_in_time(
        self, request: HttpRequest, effect: RequestEffect | None, reach: Reach
    ) -> httpx.Response:
        """Send within the call's time; once a write has left, the deadline ends it no more."""
        host, remaining_s = request.target.host, self._remaining_s(request)
        limit = asyncio.timeout(remaining_s)

        def record_sent() -> None:
            if effect is not None:
                effect.record_sent()
                if not limit.expired():
                    limit.reschedule(_at(self._remaining_s(request)))

        progress = SendProgress(record_sent)
        if remaining_s > 0:
            try:
                async with limit:
                    return await self._state.transport.send(request, progress, goes_out=reach is Reach.PUBLIC)
            except TimeoutError:
                pass  # raised below, outside of the handler: nothing of aiohttp's hangs on it
            except RefusedAddress as error:
                raise self._refused(request.target, error) from None
        if effect is not None and progress.sent is Sent.UNCERTAIN:
            remaining_s = request.limit.timeout_s
        raise _late(request, f"{host} did not answer", progress.sent, remaining_s)

    @asynccontextmanager
    async def _room(self, request: HttpRequest, limit: AdaptiveLimit) -> AsyncIterator[bool]:
        """Hold a connection to the host; yield whether it had to be waited for."""
        state, remaining_s = self._state, self._remaining_s(request)
        if not self._is_compensation:
            room = state.rooms.of(request.target.netloc)
            async with room.enter(self._account[0], limit, remaining_s) as has_waited:
                yield has_waited
            return
        slots = state.compensation_slots.of(self._account)
        try:
            async with asyncio.timeout(remaining_s):
                await slots.acquire()
        except TimeoutError:
            raise _late(request, "no compensation ended", Sent.NO, remaining_s) from None
        try:
            yield False
        finally:
            slots.release()

    async def _token(self, request: HttpRequest, auth: Auth) -> Token:
        remaining_s = self._remaining_s(request)
        if remaining_s > 0:
            try:
                async with asyncio.timeout(remaining_s):
                    return await auth.token()
            except TimeoutError:
                pass
        raise _late(request, "the access token did not come", Sent.NO, remaining_s)

    def _remaining_s(self, request: HttpRequest) -> float:
        return request.limit.remaining_s(self._state.clock(), has_sent=self._effects.has_sent)

    def _is_named(self, target: Target) -> bool:
        return target.netloc in self._named or target.host in self._named

    def _refused(self, target: Target, error: RefusedAddress) -> ConnectorError:
        if self._is_named(target):
            return CredentialInvalid(
                f"the host {target.host}, which the credential names, {error}",
                details=[Detail(field="base_url", issue=str(error))],
                sent=Sent.NO,
            )
        return InvalidParams.field("url", str(error))


def _leads_on(request: HttpRequest, response: httpx.Response, follow_redirects: bool) -> bool:
    """Return whether to send a request again to where its answer leads.

    A GET goes where the caller allows it. Anything else goes within its origin alone, and only if the
    method and the body stay (RFC 9110 15.4.8, 15.4.9).
    """
    if response.status_code not in _REDIRECTS or "location" not in response.headers:
        return False
    if request.method in BODILESS_METHODS:
        return follow_redirects
    return response.status_code in _KEEPING_METHOD and _is_within_origin(request.target, response)


def _is_within_origin(here: Target, response: httpx.Response) -> bool:
    try:
        return read_url(urljoin(here.url, response.headers["location"])).origin == here.origin
    except ValueError:
        return False


def _at(remaining_s: float) -> float:
    """Return when that is, by the loop's clock, which timeouts run by."""
    return asyncio.get_running_loop().time() + remaining_s


def _late(request: HttpRequest, what: str, sent: Sent, had_s: float) -> Timeout:
    if had_s <= 0:
        return Timeout(f"no time was left to call {request.target.host}", sent=Sent.NO)
    return Timeout(f"{what} within {min(had_s, request.limit.timeout_s):.3g} s", sent=sent)


def _with_bearer(request: HttpRequest, token: Token) -> HttpRequest:
    headers = dict(request.headers)
    add_headers(headers, {"Authorization": f"Bearer {token.value.get_secret_value()}"})
    return replace(request, headers=headers)


def _report(breaker: HostBreaker, permit: BreakerPermit, response: httpx.Response, now: float) -> None:
    wait_s = wait_asked_s(response.headers, now=now)
    if response.status_code >= 500:
        breaker.failed(permit, wait_s=wait_s)
    else:
        breaker.answered(permit, is_limited=response.status_code == 429, wait_s=wait_s)


def _outcome_of(error: ConnectorError) -> str:
    """Return a failure's name for the metrics."""
    if isinstance(error, Timeout):
        return "timeout"
    if error.code is Code.RESULT_TOO_LARGE:
        return "oversize"
    if error.code is not Code.UNAVAILABLE:
        return "refused"
    return "unreachable" if error.sent is Sent.NO else "cut"
