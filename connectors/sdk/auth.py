"""Credentials ready to use: an API's address, and how to be let in.

    ApiCredential         an address; `api(ctx)` gives the client that is let in
    ├── ApiKey            a key in a header
    ├── Basic             a user's name and password
    └── TokenCredential   a bearer token that is fetched: override `fetch_token` for a way of your own
        └── OAuth2        refresh token, client credentials, or a signed assertion (JWT)

Subclass one to fix what is the same for every tenant (`base_url: str = "https://api.acme.example"`), and
to add fields. A token is fetched once for all jobs that wait for it, kept until shortly before it
expires, and renewed once where the API refuses it. A refresh token that the provider exchanges is used
from then on, and written back to the vault where the worker may.
"""

import base64
import hashlib
import json
import time
from abc import abstractmethod
from asyncio import to_thread
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.sdk.context import Context
from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Unavailable
from connectors.sdk.http.address import read_url
from connectors.sdk.http.request import header_fault
from connectors.sdk.http.status import status_error
from connectors.sdk.http.tokens import Token, TokenAuth

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http.call import Auth
    from connectors.sdk.http.client import HttpClient

__all__ = ["ApiCredential", "ApiKey", "Basic", "OAuth2", "Token", "TokenAuth", "TokenCredential"]

#: Seconds for one request to a token endpoint.
TOKEN_TIMEOUT_S: Final = 15.0
#: Seconds for which a signed assertion is good; endpoints take five minutes, some an hour.
ASSERTION_LIFETIME_S: Final = 180

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What RFC 6749 lets a token endpoint say, and what it means for the operator who fixes it. Anything else
#: it says is not repeated.
_REFUSALS: Final = {
    "invalid_grant": "the refresh token, key or user is expired, revoked or wrong; authorize anew",
    "invalid_client": "the client id or secret is wrong",
    "unauthorized_client": "the client may not ask for a token this way",
    "invalid_scope": "the scopes are not allowed for this client",
    "access_denied": "access was refused by an administrator",
    "unsupported_grant_type": "the token endpoint does not know this grant",
    "invalid_request": "the credential is incomplete",
}
#: Parts of a token endpoint's answer that are secrets; the rest are facts of the token.
_SECRET_PARTS: Final = frozenset({"access_token", "refresh_token", "id_token"})


class ApiCredential(BaseModel):
    """An API that lets everybody in; the base of the others."""

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
        """Give the headers that let a request in; sent to this API alone."""
        return {}

    def auth(self, http: "HttpClient") -> "Auth | None":
        """Give where a request gets its bearer token; None where none is needed."""
        return None

    def api(self, ctx: Context[Any]) -> "HttpClient":
        """Give the client for this API: paths (`/orders/17`) are relative to `base_url`."""
        return ctx.http.at(self.base_url, headers=self.headers(), auth=self.auth(ctx.http))


class ApiKey(ApiCredential):
    """A key that is sent in a header.

    A subclass says in which: `header: ClassVar[str] = "Authorization"; scheme: ClassVar[str] = "Bearer"`.
    Deliberately absent: a key in the query, which ends in other people's logs.
    """

    header: ClassVar[str] = "X-Api-Key"
    #: A word before the key.
    scheme: ClassVar[str] = ""

    key: SecretStr

    def headers(self) -> Mapping[str, SecretStr]:
        """Give the header with the key."""
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
        """Give the header with both."""
        return {"Authorization": _basic(self.username, self.password)}


class TokenCredential(ApiCredential):
    """A bearer token that is fetched; a way of your own overrides `fetch_token`."""

    @abstractmethod
    async def fetch_token(self, http: "HttpClient") -> Token:
        """Ask for an access token.

        Args:
            http: without the job's deadline, for other jobs wait for the token, too.

        Raises:
            CredentialInvalid: the credential is refused.
            Unavailable, RateLimited, Timeout: there is no answer now.
        """

    def auth(self, http: "HttpClient") -> TokenAuth:
        """Give the token; shared by all jobs of this credential."""

        async def fetch() -> Token:
            return await self.fetch_token(http.detached())

        return TokenAuth(http.tokens, (http.account, type(self).__qualname__, self._identity(http)), fetch)

    def _identity(self, http: "HttpClient") -> str:
        """Make a key that changes with the content: a rotated secret does not go on with the old token."""
        return _digest({name: _plain(getattr(self, name)) for name in type(self).model_fields})


class OAuth2(TokenCredential):
    """An OAuth 2 client: with a refresh token, with its own credentials, or with a signed assertion."""

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
        """Ask the token endpoint; take over the refresh token that it gives in exchange."""
        used = None if self.refresh_token is None else http.rotations.newest(http.account, self.refresh_token)
        form, headers = await self._form(used), {}
        if self.client_auth == "basic" and self.client_secret is not None:
            headers = {"Authorization": _basic(self.client_id, self.client_secret)}
        response = await http.at(self.token_url, headers=headers).post(
            "", data=form, timeout_s=TOKEN_TIMEOUT_S, raise_for_status=False
        )
        answer = _read(response)
        value = answer.get("access_token")
        if response.status_code >= 300 or not isinstance(value, str) or not value:
            error = _refusal(response, answer)
            if used is not None and isinstance(error, CredentialInvalid):
                http.rotations.forget(http.account, used)
            raise error
        newest = answer.get("refresh_token")
        if used is not None and isinstance(newest, str) and newest not in {"", used.get_secret_value()}:
            await http.rotations.rotate(http.account, "refresh_token", used, SecretStr(newest))
        lifetime_s = answer.get("expires_in")
        return Token(
            SecretStr(value),
            float(lifetime_s) if isinstance(lifetime_s, int | float) and lifetime_s > 0 else None,
            {
                name: fact
                for name, fact in answer.items()
                if isinstance(fact, str) and name not in _SECRET_PARTS
            },
        )

    async def _form(self, refresh_token: SecretStr | None) -> dict[str, str]:
        form: dict[str, str] = {"grant_type": self.grant}
        if self.grant == "jwt":
            # Reading a key takes some 80 ms: not on the loop.
            form = {"grant_type": _JWT_GRANT, "assertion": await to_thread(self._assertion, int(time.time()))}
        elif self.grant == "refresh_token":
            form["refresh_token"] = _plain(refresh_token)
        if self.client_auth == "body" and (self.grant != "jwt" or self.client_secret is not None):
            form["client_id"] = self.client_id
            if self.client_secret is not None:
                form["client_secret"] = self.client_secret.get_secret_value()
        if self.scope is not None:
            form["scope"] = self.scope
        if self.audience is not None and self.grant != "jwt":
            form["audience"] = self.audience
        return form

    def _assertion(self, now_s: int) -> str:
        """Sign who we are (RFC 7523)."""
        header = {"alg": "RS256", "typ": "JWT", **({} if self.key_id is None else {"kid": self.key_id})}
        claims = {
            "iss": self.client_id,
            "sub": self.subject or self.client_id,
            "aud": self.audience or self.token_url,
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFETIME_S,
            "jti": uuid4().hex,
            **({} if self.scope is None else {"scope": self.scope}),
        }
        signed = b".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        return b".".join((signed, _url64(_sign(_plain(self.private_key).encode(), signed)))).decode()

    def _identity(self, http: "HttpClient") -> str:
        parts = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        if self.refresh_token is not None:
            # Its line, not itself: a secret read before an exchange and one read after it are the same.
            parts["refresh_token"] = http.rotations.line_of(http.account, self.refresh_token)
        return _digest(parts)


def _sign(pem: bytes, data: bytes) -> bytes:
    # Here, so that the base install does without: the extra [jwt] brings it.
    try:
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415
    except ImportError:
        raise CredentialInvalid(
            "grant 'jwt' needs the package cryptography: install connectors-service[jwt]", sent=Sent.NO
        ) from None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    except Exception:  # noqa: S110  # whatever the library says, it may quote the key
        pass
    raise CredentialInvalid(
        "private_key cannot be read as an RSA key in PEM without a password", sent=Sent.NO
    )


def _refusal(response: "httpx.Response", answer: Mapping[str, Any]) -> ConnectorError:
    host, status, reason = response.url.host, response.status_code, answer.get("error")
    if status < 300:
        return Unavailable(f"{host} answered without an access token")
    if isinstance(reason, str) and reason in _REFUSALS:
        return CredentialInvalid(
            f"{host} refuses the credential: {_REFUSALS[reason]} ({reason})", data={"reason": reason}
        )
    if 400 <= status < 500 and status not in {408, 429} and reason != "temporarily_unavailable":
        return CredentialInvalid(f"{host} refuses the credential (status {status})")
    if status < 400 or reason == "temporarily_unavailable":
        return Unavailable(f"{host} gives no access token now (status {status})")
    return status_error(status, host=host, headers=response.headers, now=time.time())


def _read(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _basic(username: str, password: SecretStr) -> SecretStr:
    pair = f"{username}:{password.get_secret_value()}".encode()
    return SecretStr(f"Basic {base64.b64encode(pair).decode()}")


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _plain(part: Any) -> Any:
    return part.get_secret_value() if isinstance(part, SecretStr) else part
