"""Any HTTP API, within what one credential allows: its base URL, its authentication.

A job names a path, never a host. Refused before a byte leaves: anything but a path that begins with
`/` (so no scheme, host, userinfo or numeric address), `..` however encoded, backslashes, control
characters, URLs over 4096 characters, methods beyond the six, and headers that belong to the
connection, the credential or a proxy.

The answer's body is
    null        where there is none (HEAD, 204)
    JSON        where the content type says so and it can be read (no NaN, no infinity)
    text        by its charset, UTF-8 where none is known, what cannot be read replaced
    {"base64"}  what is neither said to be text nor valid UTF-8
and redirects are answered as they are, unless the credential names `allowed_hosts`: then GET and
HEAD follow them to the API's own origin and to those hosts, which never get the credential.
"""

import time
from typing import Final
from urllib.parse import quote

from connectors.http_request.answer import HttpResult, quote_body, read_body
from connectors.http_request.credential import HttpCredential
from connectors.http_request.mask import mask
from connectors.http_request.params import MAX_TIMEOUT_S, RequestParams
from connectors.http_request.path import PATH_SAFE
from connectors.sdk import Connector, Context, Effect, InvalidParams
from connectors.sdk.errors import Code
from connectors.sdk.http import TRANSPORT_HEADERS, is_error, status_error

#: What the action gets beyond: the call's own timeout comes first, and knows whether anything was sent.
GRACE_S: Final = 2.0

#: Headers of an answer that concern the connection, or that only a browser would keep.
_DROPPED_HEADERS: Final = TRANSPORT_HEADERS | {
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
}

http = Connector("http", title="HTTP", credential=HttpCredential)


def effect_of(params: RequestParams, credential: HttpCredential | None) -> Effect:
    """Say what a request does to the world, by its method and the API's knowledge of keys."""
    if params.method in {"GET", "HEAD"}:
        return Effect.READ
    if params.method in {"PUT", "DELETE"}:
        return Effect.KEYED
    is_keyed = credential is not None and credential.idempotency_header is not None
    return Effect.KEYED if is_keyed else Effect.WRITE


@http.action(
    effect=effect_of,
    timeout_s=MAX_TIMEOUT_S + GRACE_S,
    errors=(
        Code.CREDENTIAL_INVALID,
        Code.PERMISSION_DENIED,
        Code.NOT_FOUND,
        Code.CONFLICT,
        Code.REJECTED,
        Code.RATE_LIMITED,
        Code.UNAVAILABLE,
        Code.TIMEOUT,
    ),
)
async def request(params: RequestParams, ctx: Context[HttpCredential]) -> HttpResult:
    """Call an HTTP API at the address and with the authentication of the stored credential."""
    credential = ctx.credential
    admission = credential.headers()
    headers = dict(params.headers)
    if credential.header is not None and credential.header.lower() in {name.lower() for name in headers}:
        raise InvalidParams.field("headers", f"{credential.header} is the credential's")
    if params.method in {"POST", "PATCH"}:
        name = credential.idempotency_header or "Idempotency-Key"
        if name.lower() in {given.lower() for given in headers}:
            raise InvalidParams.field("headers", f"{name} is made of the job's idempotency_key")
        headers[name] = _header_of(ctx.idempotency_key)
    if params.has_json and "content-type" not in {given.lower() for given in headers}:
        headers["Content-Type"] = "application/json"
    api = ctx.http.at(credential.base_url, headers=admission, allowed_hosts=credential.allowed_hosts)
    response = await api.request(
        params.method,
        params.url,
        headers=headers,
        json=params.json_body,
        # JSON's null is a body, too; to the client None is none.
        content=b"null" if params.has_json and params.json_body is None else params.body,
        timeout_s=params.timeout_s,
        follow_redirects=bool(credential.allowed_hosts),
        raise_for_status=False,
    )
    content = mask(response.content, credential)
    if is_error(response.status_code):
        raise status_error(
            response.status_code,
            host=response.url.host,
            headers=response.headers,
            now=time.time(),
            data={"status": response.status_code, "body": quote_body(content, response)},
        )
    return HttpResult(
        status=response.status_code,
        headers={
            name: mask(value.encode(), credential).decode()
            for name, value in response.headers.items()
            if name not in _DROPPED_HEADERS
        },
        body=read_body(content, response),
    )


@http.check
async def ask_for_the_base(ctx: Context[HttpCredential]) -> None:
    """Ask for the base address; whatever is there, a credential that is refused shows."""
    credential = ctx.credential
    api = ctx.http.at(
        credential.base_url, headers=credential.headers(), allowed_hosts=credential.allowed_hosts
    )
    response = await api.request(
        "HEAD", "/", follow_redirects=bool(credential.allowed_hosts), raise_for_status=False
    )
    # Nothing but the API's author knows whether there is anything at its base: a 404 is no refusal.
    if response.status_code in {401, 403, 407} or response.status_code >= 500:
        raise status_error(
            response.status_code, host=response.url.host, headers=response.headers, now=time.time()
        )


def _header_of(key: str) -> str:
    """Write a key as a header: its outer spaces, which a server would strip, escaped."""
    return key if key == key.strip() else quote(key, safe=PATH_SAFE.replace("%", ""))
