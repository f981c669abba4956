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

import base64
import json
import math
import re
import time
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote, unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import from_json

from connectors.sdk import Connector, Context, Effect, InvalidParams, Personal
from connectors.sdk.errors import Code
from connectors.sdk.http import (
    TRANSPORT_HEADERS,
    charset_of,
    encode_query,
    header_fault,
    is_error,
    read_host,
    read_url,
    status_error,
)

if TYPE_CHECKING:
    import httpx

#: Seconds a job can ask for at most.
MAX_TIMEOUT_S: Final = 60.0
#: What the action gets beyond: the call's own timeout comes first, and knows whether anything was sent.
GRACE_S: Final = 2.0
#: Characters of the whole URL: what every server takes.
MAX_URL_CHARS: Final = 4096
MAX_HEADERS: Final = 64
MAX_HEADER_CHARS: Final = 4096
#: How much of a refusal's body `error.data` quotes.
MAX_QUOTED_BYTES: Final = 8192
#: Shorter values are not masked: they would be found everywhere.
MIN_SECRET_CHARS: Final = 8

#: Headers a job may not set: they decide who asks, through whom, or what the method means.
_RESERVED_HEADERS: Final = TRANSPORT_HEADERS | {
    "accept-encoding",
    "authorization",
    "cookie",
    "forwarded",
    "idempotency-key",
    "set-cookie",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
}
_RESERVED_PREFIXES: Final = ("proxy-", "x-forwarded-")
#: Headers of an answer that concern the connection, or that only a browser would keep.
_DROPPED_HEADERS: Final = TRANSPORT_HEADERS | {
    "proxy-authenticate",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
}
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
#: Unescaped characters of a path, `%` of a valid escape included.
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~%"
_JSON_TYPE: Final = re.compile(r"application/([a-z0-9.+-]*\+)?json|text/json")
_TEXT_TYPE: Final = re.compile(
    r"text/.*|application/([a-z0-9.+-]*\+)?(xml|yaml)|application/(javascript|x-www-form-urlencoded|graphql)"
)
#: Digits or an exponent that a float cannot hold.
_HUGE_NUMBER: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Scalar = str | int | float | bool


class HttpCredential(BaseModel):
    """The API, and how to be let in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(examples=["https://api.example.com/v1"])
    auth: Literal["none", "bearer", "basic", "header"] = "none"
    token: SecretStr | None = Field(default=None, description="For bearer.")
    username: str | None = Field(default=None, description="For basic.")
    password: SecretStr | None = Field(default=None, description="For basic.")
    header: str | None = Field(default=None, description="For header: its name.", examples=["X-Api-Key"])
    value: SecretStr | None = Field(default=None, description="For header: its value.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Further hosts that redirects may lead to; without any, none is followed."
    )
    idempotency_header: str | None = Field(
        default=None,
        description="The header by which the API knows a repeated POST or PATCH; makes them KEYED.",
        examples=["Idempotency-Key"],
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: str) -> str:
        target = read_url(base_url)
        if target.query or "#" in base_url:
            raise ValueError("must have no query and no fragment")
        _check_path(target.path)
        return base_url

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: Any) -> Any:
        # `vault kv put` knows text alone.
        return [host for host in re.split(r"[,\s]+", hosts) if host] if isinstance(hosts, str) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(read_host, hosts))

    @field_validator("header", "idempotency_header")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (issue := header_fault(name, "")) is not None:
            raise ValueError(issue)
        return name

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        parts = {
            "bearer": ("token",),
            "basic": ("username", "password"),
            "header": ("header", "value"),
            "none": (),
        }
        for kind, names in parts.items():
            for name in names:
                is_given = getattr(self, name) is not None
                if is_given and kind != self.auth:
                    raise ValueError(f"{name} belongs to auth {kind!r}, and auth is {self.auth!r}")
                if not is_given and kind == self.auth:
                    raise ValueError(f"auth {kind!r} needs {name}")
        if self.username is not None and ":" in self.username:
            raise ValueError("username has a colon, which basic authentication cannot carry")
        for name, value in self.headers().items():
            if (issue := header_fault(name, value.get_secret_value())) is not None:
                raise ValueError(issue)
        return self

    def secrets(self) -> list[str]:
        """List what must not come back in an answer."""
        held = [self.token, self.password, self.value]
        texts = [secret.get_secret_value() for secret in held if secret is not None]
        if self.password is not None:
            texts.append(self.headers()["Authorization"].get_secret_value().removeprefix("Basic "))
        return [text for text in texts if len(text) >= MIN_SECRET_CHARS]

    def headers(self) -> dict[str, SecretStr]:
        """Make the headers that let a request in."""
        if self.token is not None:
            return {"Authorization": SecretStr(f"Bearer {self.token.get_secret_value()}")}
        if self.username is not None and self.password is not None:
            pair = f"{self.username}:{self.password.get_secret_value()}"
            return {"Authorization": SecretStr(f"Basic {base64.b64encode(pair.encode()).decode()}")}
        if self.header is not None and self.value is not None:
            return {self.header: self.value}
        return {}


class RequestParams(BaseModel):
    """One request to the credential's API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = Field(examples=["GET"])
    path: str = Field(
        description="Begins with /, below base_url; a % stands for an escape.", examples=["/orders/17"]
    )
    # What is sent is somebody's business: nobody here knows what of it is personal.
    query: Personal[dict[str, Scalar | list[Scalar]]] = Field(default={}, examples=[{"limit": 10}])
    headers: dict[str, str] = {}
    json_body: Personal[Any] = Field(default=None, alias="json", description="A JSON value to send.")
    body: Personal[str | None] = Field(
        default=None, description="Text to send; its type by the header Content-Type."
    )
    timeout_s: float = Field(default=30.0, gt=0, le=MAX_TIMEOUT_S, description="Seconds for the whole call.")

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        return _encode_path(path)

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: dict[str, Scalar | list[Scalar]]) -> dict[str, Scalar | list[Scalar]]:
        for value in query.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, float) and not math.isfinite(item):
                    raise ValueError("must have finite numbers")
        return query

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > MAX_HEADERS:
            raise ValueError(f"must have at most {MAX_HEADERS} headers")
        for name, value in headers.items():
            if (issue := header_fault(name, value)) is not None:
                raise ValueError(issue)
            if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
                raise ValueError(f"{name} is not for a job to set")
            if len(value) > MAX_HEADER_CHARS:
                raise ValueError(f"the value of {name} is over {MAX_HEADER_CHARS} characters")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("must name each header once, whatever its case")
        return headers

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if len(self.url) > MAX_URL_CHARS:
            raise ValueError(f"path and query have more than {MAX_URL_CHARS} characters")
        if self.has_json and self.body is not None:
            raise ValueError("json and body exclude each other")
        if self.method in {"GET", "HEAD"} and (self.has_json or self.body is not None):
            raise ValueError(f"{self.method} carries no body")
        return self

    @property
    def url(self) -> str:
        """The path and the query, encoded."""
        return f"{self.path}?{encode_query(self.query)}" if self.query else self.path

    @property
    def has_json(self) -> bool:
        """Whether a JSON value is to be sent, null included."""
        return "json_body" in self.model_fields_set


class HttpResult(BaseModel):
    """What the API answered."""

    status: int
    headers: dict[str, str] = Field(description="Names in lower case, repeated ones joined by commas.")
    body: Any = Field(description="JSON, text, {base64} or null.")


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
    content = _mask(response.content, credential)
    if is_error(response.status_code):
        raise status_error(
            response.status_code,
            host=response.url.host,
            headers=response.headers,
            now=time.time(),
            data={"status": response.status_code, "body": _quote_body(content, response)},
        )
    return HttpResult(
        status=response.status_code,
        headers={
            name: _mask(value.encode(), credential).decode()
            for name, value in response.headers.items()
            if name not in _DROPPED_HEADERS
        },
        body=_read_body(content, response),
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


def _read_body(content: bytes, response: "httpx.Response") -> Any:
    if not content:
        return None
    content_type = response.headers.get("content-type", "").lower()
    media_type = content_type.partition(";")[0].strip()
    charset = charset_of(content_type)
    if _JSON_TYPE.fullmatch(media_type):
        try:
            return _read_json(content if charset == "utf-8" else content.decode(charset).encode())
        except ValueError:
            return content.decode(charset, "replace")
    if _TEXT_TYPE.fullmatch(media_type) or "charset=" in content_type:
        return content.decode(charset, "replace")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(content).decode()} if "\0" in text else text


def _quote_body(content: bytes, response: "httpx.Response") -> Any:
    """Give a refusal's body as it is, or as text cut short."""
    if len(content) <= MAX_QUOTED_BYTES:
        return _read_body(content, response)
    text = content[:MAX_QUOTED_BYTES].decode(charset_of(response.headers.get("content-type", "")), "ignore")
    return text.encode()[:MAX_QUOTED_BYTES].decode(errors="ignore")


def _read_json(content: bytes) -> Any:
    """Read JSON that can be written again: no NaN, no infinity (`1e999` would become one)."""
    value = from_json(content.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
    if _HUGE_NUMBER.search(content):
        json.dumps(value, allow_nan=False)
    return value


def _mask(content: bytes, credential: HttpCredential) -> bytes:
    """Take out the credential, should the API echo what it was sent."""
    for secret in credential.secrets():
        for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}:
            content = content.replace(form.encode(), b"***")
    return content


def _header_of(key: str) -> str:
    """Write a key as a header: its outer spaces, which a server would strip, escaped."""
    return key if key == key.strip() else quote(key, safe=_PATH_SAFE.replace("%", ""))


def _encode_path(path: str) -> str:
    """Percent-encode a path, leaving escapes that are there as they are."""
    if path and not path.startswith("/"):
        raise ValueError("must begin with /; the host is the credential's")
    if path.startswith("//"):
        raise ValueError("must begin with one /; the host is the credential's")
    if "?" in path or "#" in path:
        raise ValueError("has a ? or #; give the query as `query`, or write %3F and %23")
    if path.count("%") != len(_ESCAPE.findall(path)):
        raise ValueError("has a % that begins no escape; write %25")
    encoded = quote(path, safe=_PATH_SAFE)
    _check_path(encoded)
    return encoded


def _check_path(path: str) -> None:
    """Refuse what a server might read as another path, however often it decodes."""
    decoded = path.encode()
    for _ in range(8):
        if any(byte < 0x20 or byte == 0x7F for byte in decoded) or b"\\" in decoded:
            raise ValueError("has a control character or a backslash")
        # Some servers drop what follows a semicolon: `..;` is `..` to them.
        if any(segment.partition(b";")[0] in {b".", b".."} for segment in decoded.split(b"/")):
            raise ValueError("has a . or .. segment")
        decoded, before = unquote_to_bytes(decoded), decoded
        if decoded == before:
            return
    raise ValueError("is encoded too many times over")
