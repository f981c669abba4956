"""The HTTP client that actions are handed.

One `HttpPool` a process holds what all jobs share; each job gets an `HttpClient`, bound to its
tenant, connector, credential and deadline. One call goes through these steps:

1. the URL is read and checked (`address`): https, unless a credential or a setting names the host
2. the account's breaker lets it through, or says when to come again (`circuit_breaker`); it waits for a
   connection if the host has none free (`host_room`), or the account has too many (`adaptive_limit`)
3. the request is written by aiohttp (`transport`); names are resolved once and checked (`resolver`)
4. the answer is read whole, decoded and capped
5. a 401 renews the token once; a redirect is followed if that is allowed, each hop through 1 to 4
6. 400 and more become an error (`status`)

All within one total deadline. Each error says in `sent` how far the job had come:

    NO          nothing that could change the provider has left: safe to repeat
    ANSWERED    the provider has answered that it did nothing (a 4xx other than 408)
    UNCERTAIN   cut off, timed out or answered 5xx after it may have been processed

GET and HEAD change nothing, so a broken one is NO; but once an earlier request of the run may have
changed something (`job_effects`), none of its later failures is NO, and the job's deadline cuts none of
its later calls short: a write on its way is left to finish.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
from pydantic import SecretStr

from connectors.sdk.errors import ConnectorError, CredentialInvalid, InvalidParams, Sent
from connectors.sdk.http.address import Reach, RefusedAddress, Target, reach_of, read_url
from connectors.sdk.http.api_base import ApiBase
from connectors.sdk.http.call import Auth, HttpCall, PoolState
from connectors.sdk.http.circuit_breaker import HostBreakers, HostLoad
from connectors.sdk.http.compensation import COMPENSATION_TIMEOUT_S, CompensationSlots
from connectors.sdk.http.host_room import HostRooms
from connectors.sdk.http.job_effects import SAFE_METHODS, JobEffects
from connectors.sdk.http.policy import HttpPolicy, OnCall, OnQuota
from connectors.sdk.http.refresh_tokens import Account, Keep, Rotations, forget_at_exit
from connectors.sdk.http.request import (
    BODILESS_METHODS,
    METHODS,
    Headers,
    HttpRequest,
    Query,
    TimeLimit,
    encode_body,
    encode_query,
    merge_headers,
)
from connectors.sdk.http.resolver import Lookup
from connectors.sdk.http.status import is_error, status_error
from connectors.sdk.http.tls_identity import TlsIdentity
from connectors.sdk.http.tokens import TokenCache
from connectors.sdk.http.transport import Transport

__all__ = ["Auth", "HttpClient", "HttpPolicy", "HttpPool"]


class HttpPool:
    """What all jobs of a process share: connections, breakers and tokens.

    The worker makes one and closes it; connections are made when the first call needs them.

    Args:
        on_call: called after each request, for the metrics; must not block.
        on_quota: called with each quota that a provider reports; must not block.
        on_secret: called with each access token and rotated refresh token, to be masked.
        keep: stores a refresh token that a provider exchanged.
        lookup: resolves names, for tests.
        clock: what pauses, breakers, tokens and time limits are measured by, in seconds.
        wall_clock: seconds since the epoch; what a Retry-After date is measured against.

    Raises:
        ValueError: the CA file cannot be read.
    """

    def __init__(
        self,
        policy: HttpPolicy,
        *,
        on_call: OnCall | None = None,
        on_quota: OnQuota | None = None,
        on_secret: Callable[[str], None] | None = None,
        keep: Keep = forget_at_exit,
        lookup: Lookup | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.on_quota = on_quota or _ignore_quota
        self.tokens = TokenCache(clock=clock, on_secret=on_secret)
        self.rotations = Rotations(keep, on_secret=on_secret)
        transport = Transport(
            egress=policy.egress,
            ca_file=policy.ca_file,
            proxy_url=policy.proxy_url,
            lookup=lookup,
        )
        self.state = PoolState(
            transport,
            HostBreakers(clock=clock, policy=policy.breaker),
            HostRooms(policy.max_connections_per_host),
            CompensationSlots(),
            policy.egress,
            on_call or _ignore_call,
            clock,
            wall_clock,
        )

    def client(
        self,
        *,
        tenant: str,
        connector: str,
        credential: str,
        deadline: float | None = None,
        effects: JobEffects | None = None,
    ) -> "HttpClient":
        """Create the client of one job; costs next to nothing.

        Args:
            deadline: by the pool's clock; no call outlives it unless a write of the run has left.
            effects: records what the run's requests may have changed.
        """
        return HttpClient(self, (tenant, connector, credential), deadline, effects or JobEffects())

    def loads(self) -> dict[str, HostLoad]:
        """Return by connector what its calls do now; any thread may ask."""
        return self.state.breakers.loads()

    async def close(self) -> None:
        """Stop token fetches and close every connection."""
        await self.tokens.close()
        await self.state.transport.close()


class HttpClient:
    """Sends requests on behalf of one job; `ctx.http`.

    api = ctx.http.at(credential.base_url, headers={"X-Api-Key": credential.key})
    order = (await api.get(f"/orders/{quote(order_id, safe='')}")).json()
    """

    __slots__ = ("_base", "_deadline", "_effects", "_ends_at", "_pool", "_tls", "account")

    def __init__(self, pool: HttpPool, account: Account, deadline: float | None, effects: JobEffects) -> None:
        self._pool = pool
        #: Tenant, connector and credential.
        self.account = account
        self._deadline = deadline
        self._effects = effects
        #: Of a compensation: when its time ends, by the pool's clock.
        self._ends_at: float | None = None
        self._base: ApiBase | None = None
        self._tls: TlsIdentity | None = None

    @property
    def tokens(self) -> TokenCache:
        """The process's access tokens."""
        return self._pool.tokens

    @property
    def rotations(self) -> Rotations:
        """The process's lines of refresh tokens."""
        return self._pool.rotations

    def at(
        self,
        base_url: str,
        *,
        headers: Headers | None = None,
        query: Mapping[str, SecretStr] | None = None,
        auth: Auth | None = None,
        allowed_hosts: Iterable[str] = (),
        learned_from: str | None = None,
    ) -> "HttpClient":
        """Return a client for the API that a credential or a setting names.

        Paths (`/orders`) are then relative to `base_url`; a host named so may be loopback. Never
        pass a URL that came from a job's parameters.

        Args:
            headers: sent to this origin alone, such as the credential's.
            query: added to each request to this origin, on the wire alone: no error and no answer shows it.
            auth: where calls to this origin get their bearer token.
            allowed_hosts: further hosts (`host` or `host:port`) that redirects may lead to.
            learned_from: the URL whose answer named `base_url`, as a login does; from a public one no answer leads
                inside.

        Raises:
            CredentialInvalid: the URL or a host cannot be one.
        """
        if learned_from is not None:
            self._refuse_further_inside(base_url, learned_from)
        client = self._copy()
        client._base = ApiBase.read(
            base_url, headers=headers or {}, query=query or {}, auth=auth, allowed_hosts=allowed_hosts
        )
        return client

    def _refuse_further_inside(self, base_url: str, learned_from: str) -> None:
        egress = self._pool.policy.egress
        try:
            told, asked = read_url(base_url).host, read_url(learned_from).host
        except RefusedAddress as error:
            raise CredentialInvalid(f"{learned_from} answered with an address that {error}") from None
        if reach_of(told, egress) is not Reach.PUBLIC and reach_of(asked, egress) is Reach.PUBLIC:
            raise CredentialInvalid(
                f"{asked} answered with the address {told}, which lies further inside than {asked} itself",
                sent=Sent.NO,
            )

    def with_tls(self, identity: TlsIdentity | None) -> "HttpClient":
        """Return a client that trusts and presents what a credential says, at the API that `at` names."""
        client = self._copy()
        client._tls = identity
        return client

    def detached(self) -> "HttpClient":
        """Return a client without the job's deadline, because other jobs wait for its result, too."""
        client = self._copy()
        client._deadline, client._ends_at, client._effects = None, None, JobEffects()
        return client

    def compensation(self, *, timeout_s: float = COMPENSATION_TIMEOUT_S) -> "HttpClient":
        """Return a client for calls that undo what an earlier call of this job did.

        They pass the pauses and open breakers that the failure may have set, and the job's deadline.
        There are few of them at a time, and all of this client's together have `timeout_s`.
        """
        client = self._copy()
        client._deadline, client._ends_at = None, self._pool.state.clock() + timeout_s
        return client

    def pause(self, url: str, wait_s: float) -> None:
        """Pause this account's calls to a host that asked for it in its own way."""
        target = self._read(url, None)
        self._pool.state.breakers.of((*self.account, target.netloc)).pause(wait_s)

    def quota(self, used: int, total: int) -> None:
        """Report to the metrics how much of this account's quota is used."""
        self._pool.on_quota(self.account, used, total)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Query | None = None,
        headers: Headers | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        data: Query | None = None,
        auth: Auth | None = None,
        timeout_s: float | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = False,
        raise_for_status: bool = True,
        changes_nothing: bool = False,
        unprocessed_statuses: Collection[int] = (),
        cut_answer: bool = False,
    ) -> httpx.Response:
        """Send one request and read its answer whole.

        Args:
            url: absolute, or a path if the client was made by `at`; percent-encoded already.
            params: the query, encoded here.
            json: a body, as are `content` (bytes or text) and `data` (a form); one of them.
            auth: gives a bearer token; renewed once after a 401.
            timeout_s: for the call in all; the job's deadline cuts it short until a write has left.
            max_bytes: most decoded bytes of the answer.
            cut_answer: return an answer over `max_bytes` cut, rather than failing; `is_cut` tells.
            follow_redirects: of GET and HEAD, at most 5, to this origin and the hosts that `at` was
                given. Any other method always follows 307 and 308 within its origin.
            raise_for_status: turn 400 and more into an error, and a redirect of a write, too.
            changes_nothing: a POST that only asks, such as a search; its failure leaves nothing open.
            unprocessed_statuses: statuses of 500 and more by which the provider vows that it did nothing.

        Raises:
            InvalidParams: the URL, a header or the body cannot be sent; nothing was.
            CredentialInvalid: a URL that a credential names may not be called; or the provider says so.
            ConnectorError: one of `connectors.sdk.errors`; `sent` says how far it came.
        """
        if method not in METHODS:
            raise InvalidParams.field("method", f"must be one of {', '.join(sorted(METHODS))}")
        target = self._read(url, params)
        base = self._base if self._base is not None and self._base.owns(target) else None
        if auth is None and base is not None:
            auth = base.auth
        body, content_type = encode_body(json, content, data)
        if body is not None and method in BODILESS_METHODS:
            raise InvalidParams.field("method", f"{method} carries no body")
        policy, started = self._pool.policy, self._pool.state.clock()
        request = HttpRequest(
            method,
            target,
            # The credential's own last: nothing given with a call takes their place.
            merge_headers(content_type, headers or {}, {} if base is None else base.headers),
            body,
            policy.max_response_bytes if max_bytes is None else max_bytes,
            self._limit(policy.timeout_s if timeout_s is None else timeout_s, started),
            changes_nothing or method in SAFE_METHODS,
            frozenset(unprocessed_statuses),
            "" if base is None else base.secret_query,
            None if base is None else self._tls,
            cut_answer,
        )
        try:
            response = await self._call().run(request, auth, follow_redirects)
            if raise_for_status and is_error(response.status_code, method):
                raise self._error_of(request, response)
        except ConnectorError as error:
            self._effects.cover(error, is_safe=request.is_safe)
            raise
        response.elapsed = timedelta(seconds=self._pool.state.clock() - started)
        return response

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """Send a GET; see `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """Send a POST; see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> httpx.Response:
        """Send a PUT; see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> httpx.Response:
        """Send a PATCH; see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> httpx.Response:
        """Send a DELETE; see `request`."""
        return await self.request("DELETE", url, **options)

    def _call(self) -> HttpCall:
        return HttpCall(
            self._pool.state,
            self.account,
            frozenset() if self._base is None else self._base.named,
            self._effects,
            is_compensation=self._ends_at is not None,
        )

    def _limit(self, timeout_s: float, now: float) -> TimeLimit:
        if self._ends_at is not None:
            timeout_s = min(timeout_s, self._ends_at - now)
        return TimeLimit(timeout_s, now + timeout_s, self._deadline)

    def _error_of(self, request: HttpRequest, response: httpx.Response) -> ConnectorError:
        return status_error(
            response.status_code,
            host=request.target.host,
            headers=response.headers,
            now=self._pool.state.wall_clock(),
            method="GET" if request.is_safe else request.method,
            unprocessed_statuses=request.unprocessed_statuses,
        )

    def _read(self, url: str, params: Query | None) -> Target:
        """Read the URL: a path belongs to the base, and never names a host."""
        try:
            target = read_url(url if self._base is None else self._base.url_of(url))
        except RefusedAddress as error:
            raise InvalidParams.field("url", str(error)) from None
        if not params:
            return target
        query = encode_query(params)
        return replace(target, query=f"{target.query}&{query}" if target.query else query)

    def _copy(self) -> "HttpClient":
        client = HttpClient(self._pool, self.account, self._deadline, self._effects)
        client._base, client._tls, client._ends_at = self._base, self._tls, self._ends_at
        return client


def _ignore_call(reach: str, outcome: str, duration_s: float) -> None:
    """Count nothing: no metrics were asked for."""


def _ignore_quota(account: tuple[str, str, str], used: int, total: int) -> None:
    """Count nothing: no metrics were asked for."""
