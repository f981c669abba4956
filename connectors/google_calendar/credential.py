"""The credential: Google's own JSON as downloaded, and the access tokens it gives."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.sdk.auth import Token, TokenEndpoint, TokenSource, sign_assertion
from connectors.sdk.http import read_url

if TYPE_CHECKING:
    from connectors.sdk.http import HttpClient

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

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What Google's token endpoint says beside the standard, and how to fix it.
_REASONS: Final = {
    "invalid_grant": "the refresh token or key is expired, revoked or not yet valid; authorize anew",
    "unauthorized_client": "the account is not allowed to ask for this; for a subject, the administrator "
    "must delegate these scopes to the service account: " + " ".join(SCOPES),
    "deleted_client": "the OAuth client was deleted",
    "disabled_client": "the OAuth client is disabled",
    "admin_policy_enforced": "an administrator's policy forbids it",
    "org_internal": "the OAuth client is for another organization",
}
#: The only entry of an OAuth client file as downloaded: a client, and no one who has logged in.
_CLIENT_FILES: Final = frozenset({"installed", "web"})


class GoogleCredential(TokenSource):
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

    @model_validator(mode="before")
    @classmethod
    def _recognise(cls, secret: Any) -> Any:
        """Read Google's own token file, which has no type; refuse a client file with the next step."""
        if not isinstance(secret, Mapping) or "type" in secret:
            return secret
        if _CLIENT_FILES & secret.keys():
            raise ValueError(
                "is an OAuth client file, with which no one has logged in yet: run "
                "`connectors connect google_calendar`, which stores the credential"
            )
        return {**secret, "type": "authorized_user"} if "refresh_token" in secret else secret

    @field_validator("token_uri")
    @classmethod
    def _check_token_uri(cls, token_uri: str) -> str:
        read_url(token_uri)
        return token_uri

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

    async def fetch_token(self, http: "HttpClient") -> Token:
        """Ask Google for an access token; one that every job of this credential uses."""
        endpoint = TokenEndpoint(self.token_uri, reasons=_REASONS)
        if self.refresh_token is not None and self.type == "authorized_user":
            client = {"client_id": _text(self.client_id), "client_secret": _text(self.client_secret)}
            return await endpoint.refresh(http, self.refresh_token, client)
        assert self.private_key is not None
        assertion = await sign_assertion(self.private_key, self._claims(), key_id=self.private_key_id)
        return await endpoint.ask(http, {"grant_type": _JWT_GRANT, "assertion": assertion})

    def _claims(self) -> dict[str, Any]:
        now_s = int(time.time())
        claims = {
            "iss": self.client_email,
            "scope": " ".join(SCOPES),
            "aud": self.token_uri,
            "iat": now_s,
            "exp": now_s + ASSERTION_LIFETIME_S,
        }
        return claims if self.subject is None else {**claims, "sub": self.subject}


def _text(part: object) -> str:
    if isinstance(part, SecretStr):
        return part.get_secret_value()
    return part if isinstance(part, str) else ""
