"""The credential: Google's own JSON as downloaded, and the access tokens it gives."""

import hashlib
import json
import time
from asyncio import to_thread
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from google.auth import crypt, jwt
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Unavailable
from connectors.sdk.http.status import status_error
from connectors.sdk.http.tokens import Token, TokenAuth

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http.client import HttpClient

#: The least that all actions together need: events, who is free when, which calendars there are.
#: An administrator who delegates to the service account allows exactly these.
SCOPES: Final = (
    "https://www.googleapis.com/auth/calendar.events",
    "https://www.googleapis.com/auth/calendar.freebusy",
    "https://www.googleapis.com/auth/calendar.calendarlist.readonly",
)
DEFAULT_TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
#: Seconds for which an assertion is good; Google takes an hour at most.
ASSERTION_LIFETIME_S: Final = 3600
TOKEN_TIMEOUT_S: Final = 15.0

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What Google says at the token endpoint, and how to fix it.
_TOKEN_ERRORS: Final = {
    "invalid_grant": "the refresh token or key is expired, revoked or not yet valid; authorize anew",
    "invalid_client": "the client id or secret is wrong",
    "unauthorized_client": "the account is not allowed to ask for this; for a subject, the administrator "
    "must delegate these scopes to the service account: " + " ".join(SCOPES),
    "invalid_scope": "the scopes are not allowed for this account",
    "access_denied": "access was refused by an administrator",
    "deleted_client": "the OAuth client was deleted",
    "disabled_client": "the OAuth client is disabled",
    "admin_policy_enforced": "an administrator's policy forbids it",
    "org_internal": "the OAuth client is for another organization",
    "invalid_request": "the credential is incomplete",
    "unsupported_grant_type": "the token endpoint does not know this kind of credential",
}


class GoogleCredential(BaseModel):
    """A service-account key or an authorized user, as Google hands them out."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    type: Literal["service_account", "authorized_user"]
    client_email: str | None = Field(default=None, description="Of a service account.")
    private_key: SecretStr | None = Field(default=None, description="Of a service account: PEM.")
    private_key_id: str | None = None
    subject: str | None = Field(
        default=None,
        description="The user for whom a service account speaks, by domain-wide delegation.",
        examples=["desk@clinic.example"],
    )
    client_id: str | None = Field(default=None, description="Of an authorized user.")
    client_secret: SecretStr | None = Field(default=None, description="Of an authorized user.")
    refresh_token: SecretStr | None = Field(default=None, description="Of an authorized user.")
    token_uri: str = DEFAULT_TOKEN_URI

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        needed = {
            "service_account": ("client_email", "private_key"),
            "authorized_user": ("client_id", "client_secret", "refresh_token"),
        }[self.type]
        missing = [name for name in needed if not _text(getattr(self, name))]
        if missing:
            raise ValueError(f"type {self.type} needs {', '.join(missing)}")
        if self.subject is not None and self.type != "service_account":
            raise ValueError("subject belongs to a service account")
        if self.private_key is not None and "-----BEGIN" not in self.private_key.get_secret_value():
            raise ValueError("private_key is not a PEM key; store the file as Google issued it")
        return self

    def auth(self, http: "HttpClient") -> TokenAuth:
        """Return the authentication of a request; its tokens are shared by all jobs of this credential."""
        # The content decides: a rotated secret does not go on with the old one's token.
        parts = [_text(getattr(self, name)) for name in type(self).model_fields]
        digest = hashlib.sha256(json.dumps(parts).encode()).digest()

        async def fetch() -> Token:
            return await fetch_token(self, http.detached())

        return TokenAuth(http.tokens, ("google_calendar", digest), fetch)


async def fetch_token(credential: GoogleCredential, http: "HttpClient") -> Token:
    """Return an access token from the token endpoint.

    Raises:
        CredentialInvalid: the endpoint refuses the credential.
        Unavailable, RateLimited, Timeout: it cannot answer now.
    """
    form = await _form(credential)
    response = await http.at(credential.token_uri).post(
        "", data=form, timeout_s=TOKEN_TIMEOUT_S, raise_for_status=False
    )
    answer = _read(response)
    token = answer.get("access_token")
    if response.status_code == 200 and isinstance(token, str) and token:
        lifetime_s = answer.get("expires_in")
        return Token(SecretStr(token), float(lifetime_s) if isinstance(lifetime_s, int | float) else None)
    raise _refusal(response, answer)


async def _form(credential: GoogleCredential) -> dict[str, str]:
    if credential.type == "authorized_user":
        return {
            "grant_type": "refresh_token",
            "client_id": _text(credential.client_id),
            "client_secret": _text(credential.client_secret),
            "refresh_token": _text(credential.refresh_token),
        }
    # Reading and checking a key takes some 80 ms: not on the loop.
    return {"grant_type": _JWT_GRANT, "assertion": await to_thread(_assertion, credential, int(time.time()))}


def _assertion(credential: GoogleCredential, now: int) -> str:
    claims = {
        "iss": credential.client_email,
        "scope": " ".join(SCOPES),
        "aud": credential.token_uri,
        "iat": now,
        "exp": now + ASSERTION_LIFETIME_S,
    }
    if credential.subject is not None:
        claims["sub"] = credential.subject
    try:
        signer = crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
            _text(credential.private_key), credential.private_key_id
        )
    except Exception:  # the libraries below raise what they like, some with the key in it
        signer = None
    if signer is None:
        raise CredentialInvalid("private_key cannot be read as an RSA key in PEM", sent=Sent.NO)
    signed: bytes = jwt.encode(signer, claims)  # type: ignore[no-untyped-call]
    return signed.decode()


def _refusal(response: "httpx.Response", answer: dict[str, Any]) -> ConnectorError:
    host, status = response.url.host, response.status_code
    error = answer.get("error")
    if status == 200:
        return Unavailable(f"{host} answered without an access token")
    if isinstance(error, str) and error in _TOKEN_ERRORS:
        return CredentialInvalid(
            f"{host} refuses the credential: {_TOKEN_ERRORS[error]} ({error})", data={"reason": error}
        )
    if 400 <= status < 500 and status not in {408, 429} and error != "temporarily_unavailable":
        return CredentialInvalid(f"{host} refuses the credential (status {status})")
    return status_error(max(status, 400), host=host, headers=response.headers, now=time.time())


def _read(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _text(part: object) -> str:
    if isinstance(part, SecretStr):
        return part.get_secret_value()
    return part if isinstance(part, str) else ""
