"""Credentials ready to use: an API's address, and how requests are authenticated.

    ApiCredential         an address; `api(ctx)` returns the client that is authenticated
    ├── ApiKey            a key in a header
    ├── Basic             a user's name and password
    └── TokenCredential   a bearer token that is fetched: override `fetch_token` for a way of your own
        └── OAuth2        refresh token, client credentials, or a signed assertion (JWT)
    TokenSource           the same for a credential that names no API, such as one that learns its address at login
    TokenEndpoint         asks a token endpoint, uses and writes back rotated refresh tokens, reads its refusals
    sign_assertion        signs a JWT with an RSA key

Subclass one to fix what is the same for every tenant (`base_url: str = "https://api.acme.example"`), and
to add fields. A token is fetched once for all jobs that wait for it, kept until shortly before it
expires, and renewed once if the API refuses it. What the login gave beside the token is kept as its facts.
A refresh token that the provider exchanges is used from then on, and written back to the vault if the
worker may write there.
"""

import base64
import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.sdk.context import Context
from connectors.sdk.http.address import read_url
from connectors.sdk.http.request import header_fault
from connectors.sdk.http.tokens import Token, TokenAuth
from connectors.sdk.jwt_assertion import sign_assertion
from connectors.sdk.token_endpoint import TokenEndpoint

if TYPE_CHECKING:
    from connectors.sdk.http.call import Auth
    from connectors.sdk.http.client import HttpClient

__all__ = [
    "ApiCredential",
    "ApiKey",
    "Basic",
    "OAuth2",
    "Token",
    "TokenAuth",
    "TokenCredential",
    "TokenEndpoint",
    "TokenSource",
    "sign_assertion",
]

#: Seconds for which a signed assertion is good; endpoints take five minutes, some an hour.
ASSERTION_LIFETIME_S: Final = 180

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class ApiCredential(BaseModel):
    """An API without authentication; the base of the others."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(examples=["https://api.example.com/v1"])

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: str) -> str:
        read_url(base_url)
        return base_url

    @model_validator(mode="after")
    def _check_headers(self) -> Self:
        for name, value in self.headers().items():
            if (issue := header_fault(name, value.get_secret_value())) is not None:
                raise ValueError(issue)
        return self

    def headers(self) -> Mapping[str, SecretStr]:
        """Return the headers that authenticate a request; sent to this API alone."""
        return {}

    def auth(self, http: "HttpClient") -> "Auth | None":
        """Return where a request gets its bearer token; None if it needs none."""
        return None

    def api(self, ctx: Context[Any]) -> "HttpClient":
        """Return the client for this API: paths (`/orders/17`) are relative to `base_url`."""
        return ctx.http.at(self.base_url, headers=self.headers(), auth=self.auth(ctx.http))


class ApiKey(ApiCredential):
    """A key that is sent in a header.

    A subclass names the header: `header: ClassVar[str] = "Authorization"; scheme: ClassVar[str] = "Bearer"`.
    Deliberately absent: a key in the query, which ends in other people's logs.
    """

    header: ClassVar[str] = "X-Api-Key"
    #: Stands before the key: `Bearer`, for example.
    scheme: ClassVar[str] = ""

    key: SecretStr

    def headers(self) -> Mapping[str, SecretStr]:
        """Return the header with the key."""
        return {self.header: SecretStr(f"{self.scheme} {self.key.get_secret_value()}".strip())}


class Basic(ApiCredential):
    """A user's name and password (RFC 7617)."""

    username: str
    password: SecretStr

    @field_validator("username")
    @classmethod
    def _check_username(cls, username: str) -> str:
        if ":" in username:
            raise ValueError("has a colon, which basic authentication cannot carry")
        return username

    def headers(self) -> Mapping[str, SecretStr]:
        """Return the header with both."""
        return {"Authorization": _basic(self.username, self.password)}


class TokenSource(BaseModel):
    """A credential that an access token is fetched with, whatever API it is for.

    A subclass overrides `fetch_token`; most hand their form to a `TokenEndpoint`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Seconds for which a refused login is not tried again: some providers lock an account after a few.
    cool_down_s: ClassVar[float] = 0.0
    #: The field whose token the provider may exchange; its old and new value are one credential.
    rotated_field: ClassVar[str] = "refresh_token"

    @abstractmethod
    async def fetch_token(self, http: "HttpClient") -> Token:
        """Ask for an access token.

        Args:
            http: without the job's deadline, because other jobs wait for the token, too.

        Raises:
            CredentialInvalid: the credential is refused.
            Unavailable, RateLimited, Timeout: there is no answer now.
        """

    def auth(self, http: "HttpClient") -> TokenAuth:
        """Return where requests get their token; shared by all jobs of this credential."""

        async def fetch() -> Token:
            return await self.fetch_token(http.detached())

        key = (http.account, type(self).__qualname__, self.identity(http))
        return TokenAuth(http.tokens, key, fetch, cool_down_s=self.cool_down_s)

    def identity(self, http: "HttpClient") -> str:
        """Return a digest of the content: a secret that was put anew does not go on with the old token."""
        parts = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        token = getattr(self, self.rotated_field, None)
        if isinstance(token, SecretStr):
            # Its line, not itself: a secret read before an exchange and one read after it are the same.
            parts[self.rotated_field] = http.rotations.line_of(http.account, token)
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class TokenCredential(TokenSource, ApiCredential):
    """A bearer token that is fetched for one API; a way of your own overrides `fetch_token`."""


class OAuth2(TokenCredential):
    """An OAuth 2 client: with a refresh token, with its own credentials, or with a signed assertion.

    A provider that deviates from RFC 6749 overrides `endpoint`.
    """

    grant: Literal["refresh_token", "client_credentials", "jwt"]
    token_url: str = Field(examples=["https://login.example.com/oauth/token"])
    client_id: str
    client_secret: SecretStr | None = None
    refresh_token: SecretStr | None = Field(default=None, description="For grant refresh_token.")
    private_key: SecretStr | None = Field(default=None, description="For grant jwt: an RSA key as PEM.")
    key_id: str | None = Field(default=None, description="For grant jwt: the key's name at the provider.")
    subject: str | None = Field(default=None, description="For grant jwt: the user it speaks for.")
    audience: str | None = Field(default=None, description="Who the token is for; for jwt, token_url.")
    scope: str | None = Field(default=None, description="Separated by spaces.")
    client_auth: Literal["body", "basic"] = Field(
        default="body", description="Where the client's id and secret are sent."
    )

    @field_validator("token_url")
    @classmethod
    def _check_token_url(cls, token_url: str) -> str:
        read_url(token_url)
        return token_url

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        needed = {
            "refresh_token": "refresh_token",
            "client_credentials": "client_secret",
            "jwt": "private_key",
        }
        for grant, name in needed.items():
            if grant == self.grant and not _plain(getattr(self, name)):
                raise ValueError(f"grant {grant!r} needs {name}")
        if self.client_auth == "basic" and self.client_secret is None:
            raise ValueError("client_auth 'basic' needs client_secret")
        return self

    async def fetch_token(self, http: "HttpClient") -> Token:
        """Ask the token endpoint; use the refresh token that it gives in exchange from now on."""
        endpoint, form = self.endpoint(), self.client_form()
        if self.grant == "refresh_token" and self.refresh_token is not None:
            return await endpoint.refresh(http, self.refresh_token, form)
        if self.grant == "jwt" and self.private_key is not None:
            assertion = await sign_assertion(self.private_key, self._claims(), key_id=self.key_id)
            return await endpoint.ask(http, {**form, "grant_type": _JWT_GRANT, "assertion": assertion})
        return await endpoint.ask(http, {**form, "grant_type": self.grant})

    def endpoint(self) -> TokenEndpoint:
        """Return where tokens come from."""
        headers = {}
        if self.client_auth == "basic" and self.client_secret is not None:
            headers["Authorization"] = _basic(self.client_id, self.client_secret)
        return TokenEndpoint(self.token_url, headers=headers)

    def client_form(self) -> dict[str, str]:
        """Return what a request for a token says of the client."""
        form: dict[str, str] = {}
        if self.client_auth == "body" and (self.grant != "jwt" or self.client_secret is not None):
            form["client_id"] = self.client_id
            if self.client_secret is not None:
                form["client_secret"] = self.client_secret.get_secret_value()
        if self.scope is not None:
            form["scope"] = self.scope
        if self.audience is not None and self.grant != "jwt":
            form["audience"] = self.audience
        return form

    def _claims(self) -> dict[str, Any]:
        now_s = int(time.time())
        return {
            "iss": self.client_id,
            "sub": self.subject or self.client_id,
            "aud": self.audience or self.token_url,
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFETIME_S,
            "jti": uuid4().hex,
            **({} if self.scope is None else {"scope": self.scope}),
        }


def _basic(username: str, password: SecretStr) -> SecretStr:
    pair = f"{username}:{password.get_secret_value()}".encode()
    return SecretStr(f"Basic {base64.b64encode(pair).decode()}")


def _plain(part: Any) -> Any:
    return part.get_secret_value() if isinstance(part, SecretStr) else part
