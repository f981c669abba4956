"""The credential: how to log in to an org, and the access tokens that gives."""

import hashlib
import json
import re
import time
from asyncio import to_thread
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from google.auth import crypt, jwt
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Unavailable
from connectors.sdk.http.address import RefusedAddress, read_url
from connectors.sdk.http.status import status_error
from connectors.sdk.http.tokens import Token, TokenAuth

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http.client import HttpClient

DEFAULT_LOGIN_URL: Final = "https://login.salesforce.com"
#: The version of the API that is spoken unless the credential names another.
DEFAULT_API_VERSION: Final = "62.0"
#: Seconds for which an assertion is good; Salesforce takes 3 minutes, and clocks differ.
ASSERTION_LIFETIME_S: Final = 120
#: Seconds for which a refused login is not tried again: a few wrong ones lock the user out.
COOL_DOWN_S: Final = 60.0
TOKEN_TIMEOUT_S: Final = 15.0
#: Seconds by which clocks may differ before the difference is said to be the reason of a refusal.
CLOCK_TOLERANCE_S: Final = 45.0

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
#: What each way to log in needs; all else of `_LOGIN_PARTS` must not be there.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "jwt": ("client_id", "username", "private_key"),
    "client_credentials": ("client_id", "client_secret"),
    "refresh_token": ("client_id", "refresh_token"),
    "password": ("client_id", "client_secret", "username", "password"),
}
#: What Salesforce says at the token endpoint, and what it means for the operator who fixes it.
_TOKEN_ERRORS: Final[Mapping[str, str]] = {
    "invalid_grant": "the login is wrong, expired, revoked or not approved",
    "invalid_client": "the client secret is wrong",
    "invalid_client_id": "the client id is wrong",
    "invalid_app_access": "an administrator has not approved the connected app for this user",
    "unauthorized_client": "the connected app does not allow this way to log in",
    "unsupported_grant_type": "the org does not allow this way to log in",
    "inactive_user": "the user is not active",
    "inactive_org": "the org is locked or closed",
    "invalid_request": "the credential is incomplete",
    "invalid_scope": "the connected app does not allow access to the API",
    "access_denied": "an administrator does not allow it",
    "redirect_uri_mismatch": "the connected app is set up otherwise",
}
#: Salesforce tells the reasons of an invalid_grant apart in its text alone.
_GRANT_HINTS: Final = (
    ("approved this consumer", "the user has not approved the connected app; pre-authorize it"),
    ("audience", "login_url (or audience) is not the login host of this org"),
    ("expired access/refresh token", "the refresh token is expired or revoked; authorize anew"),
    (
        "authentication failure",
        "user name, password or security token is wrong, or the address is not trusted",
    ),
    ("invalid assertion", "the private key does not belong to the connected app's certificate"),
    ("inactive user", "the user is not active"),
    ("inactive org", "the org is locked or closed"),
    ("ip restricted", "the org does not let this address in"),
    ("no client credentials user", "the connected app names no user to run as"),
    ("login rate exceeded", "the user logged in too often within the hour"),
)
#: Errors that pass by themselves: `unknown_error` comes with "retry your request".
_PASSING: Final = frozenset(
    {"unknown_error", "server_error", "temporarily_unavailable", "rate_limit_exceeded"}
)


class SalesforceCredential(BaseModel):
    """How to log in, and which fields of the org may hold our keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    auth: Literal["jwt", "client_credentials", "refresh_token", "password"]
    login_url: str = Field(
        default=DEFAULT_LOGIN_URL,
        description="https://login.salesforce.com, https://test.salesforce.com, or the org's My Domain.",
    )
    audience: str | None = Field(default=None, description="Of a JWT, where it is not login_url.")
    client_id: str
    client_secret: SecretStr | None = None
    username: str | None = None
    private_key: SecretStr | None = Field(default=None, description="For jwt: PEM.")
    password: SecretStr | None = None
    security_token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    api_version: str = Field(default=DEFAULT_API_VERSION, pattern=r"^[0-9]{2,3}\.0$")
    lead_external_id_field: str | None = Field(
        default=None,
        description="A text field of at least 32 characters, unique and an external id: makes creates KEYED.",
        examples=["Connectors_Key__c"],
    )
    contact_external_id_field: str | None = None
    case_external_id_field: str | None = None
    external_id_fields: dict[str, str] = Field(default={}, description="The same for other objects.")
    lead_key_field: str | None = Field(
        default=None,
        description="A text field of at least 32 characters by which an uncertain create is found again.",
    )
    contact_key_field: str | None = None
    case_key_field: str | None = None
    task_key_field: str | None = None
    key_fields: dict[str, str] = Field(default={}, description="The same for other objects.")

    @field_validator("login_url", "audience")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        target = read_url(url)
        if target.query or "#" in url or target.path != "/":
            raise ValueError("must be https:// and a host, without a path")
        return url.rstrip("/")

    @field_validator("*", mode="after")
    @classmethod
    def _check_fields(cls, value: Any, info: Any) -> Any:
        if info.field_name.endswith("_field") and value is not None and not _FIELD.fullmatch(value):
            raise ValueError("must be a field's API name")
        if info.field_name.endswith("_fields"):
            for name in (*value, *value.values()):
                if not _FIELD.fullmatch(name):
                    raise ValueError("must map objects' to fields' API names")
        return value

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        missing = [name for name in _NEEDED[self.auth] if not text_of(getattr(self, name))]
        if missing:
            raise ValueError(f"auth {self.auth} needs {', '.join(missing)}")
        if self.auth == "client_credentials" and self.login_url == DEFAULT_LOGIN_URL:
            raise ValueError("auth client_credentials needs login_url: the org's My Domain")
        if self.private_key is not None and "-----BEGIN" not in self.private_key.get_secret_value():
            raise ValueError("private_key is no PEM key")
        return self

    def external_id_field(self, object_name: str) -> str | None:
        """Name the external-id field through which records of this object are created once."""
        return self._named(object_name, "external_id_field", self.external_id_fields)

    def key_field(self, object_name: str) -> str | None:
        """Name the field in which a created record bears its job's mark."""
        return self._named(object_name, "key_field", self.key_fields)

    def digest(self) -> bytes:
        """Tell this credential from any other, and from itself after a change."""
        parts = {name: text_of(getattr(self, name)) for name in type(self).model_fields}
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def auth_for(self, tenant: str, http: "HttpClient") -> TokenAuth:
        """Give the authentication of a request; its tokens are shared by this tenant's jobs alone."""

        async def fetch() -> Token:
            return await fetch_token(self, http.detached())

        key = ("salesforce", tenant, self.digest())
        return TokenAuth(http.tokens, key, fetch, cool_down_s=COOL_DOWN_S)

    def _named(self, object_name: str, kind: str, others: Mapping[str, str]) -> str | None:
        own = getattr(self, f"{object_name.lower()}_{kind}", None)
        if own is not None:
            return str(own)
        return next((field for name, field in others.items() if name.lower() == object_name.lower()), None)


async def fetch_token(credential: SalesforceCredential, http: "HttpClient") -> Token:
    """Log in, once.

    Raises:
        CredentialInvalid: the org refuses the login.
        Unavailable, RateLimited, Timeout: it cannot answer now.
    """
    form = await _form(credential)
    response = await http.at(credential.login_url).post(
        "/services/oauth2/token", data=form, timeout_s=TOKEN_TIMEOUT_S, raise_for_status=False
    )
    answer = _read(response)
    token, instance_url = answer.get("access_token"), answer.get("instance_url")
    if response.status_code == 200 and isinstance(token, str) and token and isinstance(instance_url, str):
        lifetime_s = answer.get("expires_in")
        return Token(
            SecretStr(token),
            # Mostly there is none: a session lives while it is used, until the org refuses it.
            float(lifetime_s) if isinstance(lifetime_s, int | float) else None,
            {"instance_url": _origin(instance_url)},
        )
    raise _refusal(response, answer, clock_counts=credential.auth == "jwt")


async def _form(credential: SalesforceCredential) -> dict[str, str]:
    form = {"client_id": credential.client_id}
    if credential.client_secret is not None:
        form["client_secret"] = text_of(credential.client_secret)
    match credential.auth:
        case "jwt":
            # Reading and checking a key takes some 80 ms: not on the loop.
            assertion = await to_thread(_assertion, credential, int(time.time()))
            return {"grant_type": _JWT_GRANT, "assertion": assertion}
        case "client_credentials":
            return {"grant_type": "client_credentials", **form}
        case "refresh_token":
            return {
                "grant_type": "refresh_token",
                "refresh_token": text_of(credential.refresh_token),
                **form,
            }
        case "password":
            return {
                "grant_type": "password",
                "username": text_of(credential.username),
                "password": text_of(credential.password) + text_of(credential.security_token),
                **form,
            }


def _assertion(credential: SalesforceCredential, now: int) -> str:
    claims = {
        "iss": credential.client_id,
        "sub": credential.username,
        "aud": credential.audience or credential.login_url,
        "exp": now + ASSERTION_LIFETIME_S,
    }
    try:
        signer = crypt.RSASigner.from_string(text_of(credential.private_key))  # type: ignore[no-untyped-call]
    except Exception:  # the libraries below raise what they like, some with the key in it
        signer = None
    if signer is None:
        raise CredentialInvalid("private_key cannot be read as an RSA key in PEM", sent=Sent.NO)
    signed: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
    return signed.decode()


def _refusal(response: "httpx.Response", answer: Mapping[str, Any], *, clock_counts: bool) -> ConnectorError:
    host, status, error = response.url.host, response.status_code, answer.get("error")
    if status == 200:
        return Unavailable(f"{host} answered without an access token or without instance_url")
    if error in _PASSING:
        return Unavailable(f"{host} cannot log anybody in just now ({error})", data={"reason": error})
    if 400 <= status < 500 and status not in {408, 429}:
        meaning = _TOKEN_ERRORS.get(str(error), f"status {status}")
        if error == "invalid_grant":
            said = str(answer.get("error_description", "")).lower()
            meaning = next((hint for text, hint in _GRANT_HINTS if text in said), meaning)
            ahead_s = _clock_ahead_s(response) if clock_counts else 0.0
            if abs(ahead_s) > CLOCK_TOLERANCE_S:
                way = "ahead of" if ahead_s > 0 else "behind"
                meaning = f"this machine's clock is {abs(ahead_s):.0f} s {way} the server's; set it right"
        known = {"reason": error} if error in _TOKEN_ERRORS else {}
        shown = f" ({error})" if known else ""
        return CredentialInvalid(f"{host} refuses the login: {meaning}{shown}", data=known)
    return status_error(max(status, 400), host=host, headers=response.headers, now=time.time())


def _clock_ahead_s(response: "httpx.Response") -> float:
    try:
        return time.time() - parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0.0


def _origin(instance_url: str) -> str:
    """Take the origin of the org's own address: data calls go there and nowhere else."""
    try:
        target = read_url(instance_url)
    except RefusedAddress as error:
        raise CredentialInvalid(f"the login gave an instance_url that {error}") from None
    return f"{target.scheme}://{target.netloc}"


def _read(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def text_of(part: object) -> str:
    """Give a part of the credential as text; a missing one as none."""
    if isinstance(part, SecretStr):
        return part.get_secret_value()
    if isinstance(part, dict):
        return json.dumps(part, sort_keys=True)
    return part if isinstance(part, str) else ""
