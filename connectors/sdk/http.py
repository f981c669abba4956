"""The HTTP client that actions are handed.

One `HttpPool` a process holds what all jobs share; each job gets an `HttpClient`, bound to its
tenant, connector, credential and deadline. One call goes through these steps:

1. the URL is read and checked (`address`): https, unless a credential or a setting names the host
2. the account's budget lets it through, or says when to come again (`budget`)
3. the request is written by aiohttp (`transport`); names are resolved once and checked
4. redirects are followed where asked for, each hop through 1 and 3; a 401 renews the token once
5. the answer is read whole, decoded and capped; 400 and more become an error (`status`)

All within one total deadline. Each error says in `sent` how far the job had come:

    NO          nothing that could change the provider has left: safe to repeat, whatever it does
    ANSWERED    the provider has answered; its word counts
    UNCERTAIN   cut off, timed out, or lost by a gateway (502, 504) after it may have been processed

GET and HEAD change nothing, so a broken one is NO; but once a job's earlier request has changed
something, none of its later failures is NO.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urljoin

import httpx
from pydantic import SecretStr

from connectors.sdk.address import Reach, RefusedAddress, Target, check_target, read_url
from connectors.sdk.budget import Budget, Budgets
from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    InvalidParams,
    Rejected,
    Sent,
    Timeout,
)
from connectors.sdk.status import is_error, status_error, wait_asked_s
from connectors.sdk.tokens import Token, TokenCache
from connectors.sdk.transport import Flight, Lookup, Outgoing, Transport
from schemas.error import Detail

QueryValue = str | int | float | bool
Query = Mapping[str, QueryValue | Sequence[QueryValue]]
#: Told of each call: how far inside the host lies, how it ended (`2xx` to `5xx`, or a word), seconds.
OnCall = Callable[[str, str, float], None]

#: Methods that change nothing at the provider.
_SAFE: Final = frozenset({"GET", "HEAD"})
_METHODS: Final = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS: Final = 5
#: All that follows a redirect to another host; what else was given may be a secret.
_CROSSING_HEADERS: Final = frozenset({"accept", "accept-language", "user-agent", "accept-encoding"})
#: Headers of the connection rather than of the request: writing them is the transport's business.
_TRANSPORT_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
)
_TOKEN_CHARS: Final = frozenset(
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """What an operator's settings say about outbound calls."""

    #: CONNECTORS_PLAINTEXT_HOSTS: plain http and private addresses are allowed where a credential or
    #: a setting names one of these.
    allow_plaintext_hosts: frozenset[str] = frozenset()
    #: CONNECTORS_CA_FILE: trusted beside the public authorities.
    ca_file: Path | None = None
    max_connections_per_host: int = 100
    #: Seconds a call gets in all, unless it says otherwise.
    timeout_s: float = 30.0
    #: Most decoded bytes of an answer, unless a call says otherwise.
    max_response_bytes: int = 10 * 1024 * 1024


class Auth(Protocol):
    """Where a request gets its bearer token; `TokenAuth` is one."""

    async def token(self) -> Token:
        """Give the token, fetched where need be."""

    def drop(self, refused: Token) -> None:
        """Forget a token that the provider refused."""


class HttpPool:
    """What all jobs of a process share: connections, budgets, breakers and tokens.

    The worker makes one and closes it; connections are made when the first call needs them.

    Args:
        on_call: told of each call, for the metrics; must not block.
        lookup: resolves names, for tests.

    Raises:
        ValueError: the CA file cannot be read.
    """

    def __init__(
        self, policy: HttpPolicy, *, on_call: OnCall | None = None, lookup: Lookup | None = None
    ) -> None:
        self.policy = policy
        self.internal = frozenset(host.strip().lower() for host in policy.allow_plaintext_hosts)
        self.tokens = TokenCache()
        self.budgets = Budgets()
        self.on_call = on_call or _ignore_call
        self.transport = Transport(
            internal=self.internal,
            ca_file=policy.ca_file,
            per_host=policy.max_connections_per_host,
            lookup=lookup,
        )

    def client(
        self, *, tenant: str, connector: str, credential: str, deadline: float | None = None
    ) -> "HttpClient":
        """Make the client of one job; costs next to nothing.

        Args:
            deadline: of `time.monotonic()`; no call outlives it.
        """
        return HttpClient(self, (tenant, connector, credential), deadline, _Trail())

    async def close(self) -> None:
        """Stop token fetches and close every connection."""
        await self.tokens.close()
        await self.transport.close()


class HttpClient:
    """Make calls on behalf of one job; `ctx.http`.

    Example:
        api = ctx.http.at(credential.base_url, headers={"Authorization": credential.token})
        order = (await api.get(f"/orders/{quote(order_id, safe='')}")).json()
    """

    __slots__ = ("_account", "_base", "_deadline", "_headers", "_named", "_pool", "_trail")

    def __init__(
        self, pool: HttpPool, account: tuple[str, str, str], deadline: float | None, trail: "_Trail"
    ) -> None:
        self._pool = pool
        self._account = account
        self._deadline = deadline
        self._trail = trail
        self._base: Target | None = None
        self._headers: Mapping[str, str | SecretStr] = {}
        self._named: frozenset[str] = frozenset()

    @property
    def tokens(self) -> TokenCache:
        """The process's access tokens."""
        return self._pool.tokens

    def at(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str | SecretStr] | None = None,
        allowed_hosts: Iterable[str] = (),
    ) -> "HttpClient":
        """Give a client for the API that a credential or a setting names.

        Paths (`/orders`) are then relative to `base_url`; a host named so may be loopback. Never
        pass a URL that came from a job's parameters.

        Args:
            headers: sent to this origin alone, such as the credential's.
            allowed_hosts: further hosts (`host` or `host:port`) that redirects may lead to.

        Raises:
            CredentialInvalid: the URL cannot be one.
        """
        try:
            base = read_url(base_url)
        except RefusedAddress as error:
            raise CredentialInvalid(f"the API's URL {error}", sent=Sent.NO) from None
        client = self._copy()
        client._base = base
        client._headers = headers or {}
        client._named = frozenset({base.netloc, *(host.strip().lower() for host in allowed_hosts)})
        return client

    def detached(self) -> "HttpClient":
        """Give a client without the job's deadline, for work that other jobs wait for, too."""
        client = self._copy()
        client._deadline, client._trail = None, _Trail()
        return client

    def pause(self, url: str, wait_s: float) -> None:
        """Hold back this account's calls to a host that said in its own way to slow down."""
        self._budget(read_url(url)).pause(wait_s)

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Query | None = None,
        headers: Mapping[str, str | SecretStr] | None = None,
        json: Any = None,
        content: bytes | str | None = None,
        data: Mapping[str, QueryValue] | None = None,
        auth: Auth | None = None,
        timeout_s: float | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = False,
        raise_for_status: bool = True,
    ) -> httpx.Response:
        """Make one call and read its answer whole.

        Args:
            url: absolute, or a path where the client was made by `at`; percent-encoded already.
            params: the query, encoded here.
            json, content, data: the body: one of a JSON value, bytes or text, a form.
            auth: gives a bearer token; renewed once after a 401.
            timeout_s: for the call in all; the job's deadline cuts it short.
            max_bytes: most decoded bytes of the answer.
            follow_redirects: for GET and HEAD, at most 5, to this origin and the hosts that `at` was
                told of.
            raise_for_status: turn 400 and more into an error.

        Raises:
            InvalidParams: the URL, a header or the body cannot be sent; nothing was.
            CredentialInvalid: a URL that a credential names may not be called; or the provider says so.
            ConnectorError: one of `connectors.sdk.errors`; `sent` says how far it came.
        """
        target = self._read(url, params)
        reach = self._check(target)
        body, content_type = _encode_body(json, content, data)
        wanted = self._merge_headers(target, headers, content_type)
        if method not in _METHODS:
            raise _invalid("method", f"must be one of {', '.join(sorted(_METHODS))}")
        if body is not None and method in _SAFE:
            raise _invalid("method", f"{method} carries no body")
        size = self._pool.policy.max_response_bytes if max_bytes is None else max_bytes
        request = Outgoing(method, target, wanted, body, size)
        response = await self._within_budget(request, reach, auth, timeout_s, follow_redirects)
        if raise_for_status and is_error(response.status_code):
            raise self._trail.judge(
                method,
                status_error(
                    response.status_code, host=target.host, headers=response.headers, now=time.time()
                ),
            )
        return response

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """Make a GET; see `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """Make a POST; see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> httpx.Response:
        """Make a PUT; see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> httpx.Response:
        """Make a PATCH; see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> httpx.Response:
        """Make a DELETE; see `request`."""
        return await self.request("DELETE", url, **options)

    async def _within_budget(
        self,
        request: Outgoing,
        reach: Reach,
        auth: Auth | None,
        timeout_s: float | None,
        follow_redirects: bool,
    ) -> httpx.Response:
        """Take a permit, make the call within its time, and let the budget learn from its end."""
        budget = self._budget(request.target)
        started = time.monotonic()
        limit_s = self._pool.policy.timeout_s if timeout_s is None else timeout_s
        if self._deadline is not None:
            limit_s = min(limit_s, self._deadline - started)
        outcome = "held"
        permit = None
        try:
            permit = budget.enter()
            outcome = "left"
            response = await self._within(limit_s, request, auth, follow_redirects)
            outcome = f"{response.status_code // 100}xx"
            wait_s = wait_asked_s(response.headers, now=time.time())
            if response.status_code >= 500:
                budget.failed(permit, wait_s=wait_s)
            else:
                budget.answered(permit, is_limited=response.status_code == 429, wait_s=wait_s)
            if request.method not in _SAFE and not is_error(response.status_code):
                self._trail.has_effect = True
            permit = None
        except ConnectorError as error:
            if permit is not None:
                outcome = _word(error)
                if outcome in {"timeout", "unreachable", "cut"}:
                    budget.failed(permit)
                    permit = None
            raise self._trail.judge(request.method, error) from None
        finally:
            if permit is not None:
                budget.left(permit)
            self._pool.on_call(reach.value, outcome, time.monotonic() - started)
        response.elapsed = timedelta(seconds=time.monotonic() - started)
        return response

    async def _within(
        self, limit_s: float, request: Outgoing, auth: Auth | None, follow_redirects: bool
    ) -> httpx.Response:
        """Make the call, every hop of it, within so many seconds."""
        flight = Flight()
        host = request.target.host
        if limit_s <= 0:
            raise Timeout(f"no time was left to call {host}", sent=Sent.NO)
        try:
            async with asyncio.timeout(limit_s) as total:
                if auth is None:
                    return await self._follow(request, flight, follow_redirects)
                return await self._authenticated(request, flight, auth, follow_redirects)
        except TimeoutError:
            if not total.expired():
                raise
        raise Timeout(f"{host} did not answer within {limit_s:.3g} s", sent=flight.sent)

    async def _authenticated(
        self, request: Outgoing, flight: Flight, auth: Auth, follow_redirects: bool
    ) -> httpx.Response:
        token = await auth.token()
        response = await self._follow(_with_bearer(request, token), flight, follow_redirects)
        if response.status_code != 401:
            return response
        # Refused is answered, and not done: whatever the method, it may be sent once more.
        flight.sent = Sent.NO
        auth.drop(token)
        renewed = await auth.token()
        if renewed.value == token.value:
            return response
        return await self._follow(_with_bearer(request, renewed), flight, follow_redirects)

    async def _follow(self, request: Outgoing, flight: Flight, follow_redirects: bool) -> httpx.Response:
        """Send, and send again where the answer leads, if that was asked for."""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = await self._pool.transport.send(request, flight)
            except RefusedAddress as error:
                raise self._refused(request.target, error) from None
            if (
                not follow_redirects
                or response.status_code not in _REDIRECTS
                or request.method not in _SAFE
                or "location" not in response.headers
            ):
                return response
            request = self._hop(request, response.headers["location"])
        raise Rejected(f"{request.target.host} redirects more than {MAX_REDIRECTS} times")

    def _hop(self, request: Outgoing, location: str) -> Outgoing:
        """Check where a redirect leads, and leave behind what must not go there."""
        here = request.target
        try:
            there = read_url(urljoin(here.url, location))
            if here.scheme == "https" and there.scheme == "http":
                raise RefusedAddress("is plain http, from https")
            if there.origin == here.origin:
                is_named = self._is_named(here)
            elif is_named := self._is_named(there):
                pass
            else:
                raise RefusedAddress("names another host, which the credential does not allow")
            check_target(there, is_named=is_named, internal=self._pool.internal)
        except RefusedAddress as error:
            raise Rejected(f"{here.host} redirects to a URL that {error}") from None
        headers = request.headers
        if there.origin != here.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _CROSSING_HEADERS}
        return Outgoing(request.method, there, headers, None, request.max_bytes)

    def _read(self, url: str, params: Query | None) -> Target:
        """Read the URL: a path belongs to the base, and never names a host."""
        base = self._base
        if base is not None and not url.startswith(("https://", "http://")):
            if url and not url.startswith("/"):
                raise _invalid("url", "must be absolute, or a path that begins with /")
            url = _join(base, url)
        try:
            target = read_url(url)
        except RefusedAddress as error:
            raise _invalid("url", str(error)) from None
        if not params:
            return target
        query = encode_query(params)
        if target.query:
            query = f"{target.query}&{query}"
        return Target(target.scheme, target.host, target.port, target.path, query)

    def _check(self, target: Target) -> Reach:
        try:
            return check_target(target, is_named=self._is_named(target), internal=self._pool.internal)
        except RefusedAddress as error:
            raise self._refused(target, error) from None

    def _is_named(self, target: Target) -> bool:
        return target.netloc in self._named or target.host in self._named

    def _refused(self, target: Target, error: RefusedAddress) -> ConnectorError:
        if self._is_named(target):
            return CredentialInvalid(
                f"the host {target.host} {error}",
                details=[Detail(field="base_url", issue=str(error))],
                sent=Sent.NO,
            )
        return _invalid("url", str(error))

    def _merge_headers(
        self, target: Target, headers: Mapping[str, str | SecretStr] | None, content_type: str | None
    ) -> dict[str, str]:
        merged = {"User-Agent": "connectors-service", "Accept": "*/*"}
        if content_type is not None:
            merged["Content-Type"] = content_type
        if self._base is not None and target.origin == self._base.origin:
            _add_headers(merged, self._headers)
        if headers:
            _add_headers(merged, headers)
        return merged

    def _budget(self, target: Target) -> Budget:
        return self._pool.budgets.of((*self._account, target.netloc))

    def _copy(self) -> "HttpClient":
        client = HttpClient(self._pool, self._account, self._deadline, self._trail)
        client._base, client._headers, client._named = self._base, self._headers, self._named
        return client


class _Trail:
    """What a job's calls have done so far: the same for all clients made from its own."""

    __slots__ = ("has_effect",)

    def __init__(self) -> None:
        self.has_effect = False

    def judge(self, method: str, error: ConnectorError) -> ConnectorError:
        """Say of an error what it means for the whole job rather than for one request."""
        if method in _SAFE and error.sent is Sent.UNCERTAIN:
            error.sent = Sent.NO
        if self.has_effect and error.sent is Sent.NO:
            error.sent = Sent.UNCERTAIN
        return error


def encode_query(params: Query) -> str:
    """Encode a query: every character but the unreserved ones, booleans as `true` and `false`.

    Raises:
        InvalidParams: a value is no text, number or boolean.
    """
    pairs = []
    for name, value in params.items():
        for item in [value] if isinstance(value, str) or not isinstance(value, Sequence) else value:
            if isinstance(item, bool):
                text = "true" if item else "false"
            elif isinstance(item, str | int | float):
                text = str(item)
            else:
                raise _invalid(f"query.{name}", "must be text, a number or a boolean")
            try:
                pairs.append(f"{quote(name, safe='')}={quote(text, safe='')}")
            except UnicodeEncodeError:
                raise _invalid("query", "has characters that cannot be encoded") from None
    return "&".join(pairs)


def _ignore_call(reach: str, outcome: str, duration_s: float) -> None:
    """Count nothing: no metrics were asked for."""


def _join(base: Target, path: str) -> str:
    root = base.url.partition("?")[0]
    return f"{root.rstrip('/')}{path}" if path else root


def _encode_body(
    value: Any, content: bytes | str | None, data: Mapping[str, QueryValue] | None
) -> tuple[bytes | None, str | None]:
    if sum(part is not None for part in (value, content, data)) > 1:
        raise _invalid("body", "is given twice: use one of json, content and data")
    try:
        if value is not None:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            return text.encode(), "application/json"
        if data is not None:
            return encode_query(data).encode(), "application/x-www-form-urlencoded"
        if isinstance(content, str):
            return content.encode(), "text/plain; charset=utf-8"
    except (ValueError, TypeError, RecursionError):
        raise _invalid("body", "cannot be encoded") from None
    return content, None if content is None else "application/octet-stream"


def _add_headers(merged: dict[str, str], headers: Mapping[str, str | SecretStr]) -> None:
    """Add headers, each replacing one of the same name, whatever its case."""
    for name, secret in headers.items():
        value = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        if not name or not _TOKEN_CHARS.issuperset(name):
            raise _invalid("headers", "a name has characters that HTTP does not allow")
        if name.lower() in _TRANSPORT_HEADERS:
            raise _invalid(f"headers.{name}", "is written by the transport alone")
        if not value.isascii() or not value.replace("\t", " ").isprintable():
            raise _invalid(
                f"headers.{name}", "has a line break or another character that HTTP does not allow"
            )
        for present in [present for present in merged if present.lower() == name.lower()]:
            del merged[present]
        merged[name] = value


def _with_bearer(request: Outgoing, token: Token) -> Outgoing:
    headers = dict(request.headers)
    _add_headers(headers, {"Authorization": f"Bearer {token.value.get_secret_value()}"})
    return Outgoing(request.method, request.target, headers, request.body, request.max_bytes)


def _invalid(field: str, issue: str) -> InvalidParams:
    return InvalidParams(f"{field}: {issue}", details=[Detail(field=field, issue=issue)], sent=Sent.NO)


def _word(error: ConnectorError) -> str:
    """Name a failure for the metrics."""
    if isinstance(error, Timeout):
        return "timeout"
    if error.sent is Sent.ANSWERED or isinstance(error, CredentialInvalid | InvalidParams):
        return "refused"
    return "unreachable" if error.sent is Sent.NO else "cut"
