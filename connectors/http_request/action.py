"""The connector `http`: any HTTP API, within what one credential allows: its base URL, its authentication.

A job names a path, never a host. Refused before a byte leaves: anything but a path that begins with
`/` (so no scheme, host, userinfo or numeric address), `..` however encoded, backslashes, control
characters, URLs over 4096 characters, methods beyond the six, and headers that belong to the
connection, the credential or a proxy.

The answer's body is
    null        if there is none (HEAD, 204), or if a write's answer is too large (`body_truncated`)
    JSON        if the content type says so or the job asks for it, and it can be read (no NaN, no infinity)
    text        by its byte order mark, its charset, its XML declaration, else as UTF-8
    {"base64"}  what is no text

Redirects of GET and HEAD are answered as they are, unless the credential names `allowed_hosts`: then they
are followed to the API's own origin and to those hosts, which never get the credential. A write follows 307
and 308 within its origin; another redirect is REJECTED.

What a refusal means depends on what was sent before (contract, section 4): see `repeat`.
"""

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pydantic_core import to_json

from connectors.http_request.answer import MAX_ANSWER_BYTES, HttpResult, quote_body, read_body
from connectors.http_request.body import bytes_of, encode_multipart
from connectors.http_request.credential import MIN_SECRET_CHARS, HttpCredential
from connectors.http_request.mask import Mask
from connectors.http_request.params import MAX_TIMEOUT_S, RequestParams
from connectors.http_request.path import PATH_SAFE
from connectors.http_request.repeat import error_on_repeat
from connectors.sdk import Connector, ConnectorError, Context, Effect, InvalidParams
from connectors.sdk.errors import Code
from connectors.sdk.http import TRANSPORT_HEADERS, is_cut, is_error, status_error

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.auth import TokenAuth
    from connectors.sdk.http import HttpClient

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
    """Return what a request does, by its method and the API's knowledge of keys."""
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
    headers = _headers(params, ctx)
    tokens = _tokens_of(ctx)
    is_read = effect_of(params, credential) is Effect.READ
    response = await _api(ctx, tokens).request(
        params.method,
        params.url,
        headers=headers,
        timeout_s=params.timeout_s,
        follow_redirects=bool(credential.allowed_hosts),
        raise_for_status=False,
        unprocessed_statuses=credential.unprocessed_statuses,
        cut_answer=not is_read,
        **_body(params, headers),
    )
    mask = _mask(credential, tokens)
    if is_error(response.status_code, params.method):
        refused = _refusal(response, params, credential, mask)
        error = error_on_repeat(refused, params, credential) if ctx.is_repeat else refused
        if error is not None:
            raise error
    return _result(response, mask, params, is_read=is_read)


@http.check
async def ask_for_the_base(ctx: Context[HttpCredential]) -> None:
    """Ask for the base address: a refused credential shows, even if nothing is there."""
    response = await _api(ctx, _tokens_of(ctx)).request(
        "HEAD", "/", follow_redirects=bool(ctx.credential.allowed_hosts), raise_for_status=False
    )
    # Only the API's author knows whether there is anything at its base: a 404 is no refusal.
    if response.status_code in {401, 403, 407} or response.status_code >= 500:
        raise status_error(
            response.status_code, host=response.url.host, headers=response.headers, method="HEAD"
        )


def _tokens_of(ctx: Context[HttpCredential]) -> "TokenAuth | None":
    client = ctx.credential.oauth2()
    return None if client is None else client.auth(ctx.http.with_tls(ctx.credential.tls()))


def _api(ctx: Context[HttpCredential], tokens: "TokenAuth | None") -> "HttpClient":
    credential = ctx.credential
    return ctx.http.with_tls(credential.tls()).at(
        credential.base_url,
        headers=credential.headers(),
        query=credential.query(),
        auth=tokens,
        allowed_hosts=credential.allowed_hosts,
    )


def _headers(params: RequestParams, ctx: Context[HttpCredential]) -> dict[str, str]:
    """Return the headers of a request: the job's own and its key.

    Raises:
        InvalidParams: the job names what is the credential's.
    """
    credential, headers = ctx.credential, dict(params.headers)
    given = {name.lower() for name in headers}
    if credential.header is not None and credential.header.lower() in given:
        raise InvalidParams.field("headers", f"{credential.header} is the credential's")
    if credential.parameter is not None and credential.parameter in params.query:
        raise InvalidParams.field("query", f"{credential.parameter} is the credential's")
    if params.method in {"POST", "PATCH"}:
        name = credential.idempotency_header or "Idempotency-Key"
        if name.lower() in given:
            raise InvalidParams.field("headers", f"{name} is made of the job's idempotency_key")
        headers[name] = _header_of(ctx.idempotency_key)
    return headers


def _body(params: RequestParams, headers: dict[str, str]) -> dict[str, Any]:
    """Return the body as the client takes it; a type that only the body knows goes into the headers."""
    if params.form is not None:
        return {"data": params.form}
    if params.base64 is not None:
        return {"content": bytes_of(params.base64)}
    if params.multipart is not None:
        content, content_type = encode_multipart(params.multipart)
        for name in [name for name in headers if name.lower() == "content-type"]:
            del headers[name]  # the boundary is part of it
        headers["Content-Type"] = content_type
        return {"content": content}
    if params.has_json and params.json_body is None:
        # JSON's null is a body, too; to the client None is none.
        if "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json"
        return {"content": b"null"}
    return {"json": params.json_body} if params.has_json else {"content": params.body}


def _mask(credential: HttpCredential, tokens: "TokenAuth | None") -> Mask:
    held = None if tokens is None else tokens.held()
    secrets = credential.secrets() + ([] if held is None else [held.value.get_secret_value()])
    return Mask(secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS)


def _refusal(
    response: "httpx.Response", params: RequestParams, credential: HttpCredential, mask: Mask
) -> ConnectorError:
    error = status_error(
        response.status_code,
        host=response.url.host,
        headers=response.headers,
        method=params.method,
        unprocessed_statuses=credential.unprocessed_statuses,
    )
    data = error.data or {}
    if isinstance(data.get("location"), str):
        data["location"] = mask.text(data["location"])
    else:
        data["body"] = quote_body(response, mask, parse_json=params.parse_json)
    error.data = data
    return error


def _result(response: "httpx.Response", mask: Mask, params: RequestParams, *, is_read: bool) -> HttpResult:
    headers = {
        name: mask.text(value) for name, value in response.headers.items() if name not in _DROPPED_HEADERS
    }
    result = HttpResult(status=response.status_code, headers=headers, body=None)
    if not is_cut(response):
        body = read_body(response, mask, parse_json=params.parse_json)
        # A reply holds so much; what a write has done is not to be lost for its answer.
        if is_read or len(to_json(body)) <= MAX_ANSWER_BYTES:
            return result.model_copy(update={"body": body})
    return result.model_copy(update={"body_truncated": True})


def _header_of(key: str) -> str:
    """Write a key as a header: its outer spaces, which a server would strip, escaped."""
    return key if key == key.strip() else quote(key, safe=PATH_SAFE.replace("%", ""))
