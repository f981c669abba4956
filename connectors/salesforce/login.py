"""Log in to an org: the SDK's OAuth 2, and what Salesforce does differently."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from pydantic import SecretStr

from connectors.sdk.auth import OAuth2, Token, TokenEndpoint
from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    Detail,
    RateLimited,
    Unavailable,
)
from connectors.sdk.http import RefusedAddress, read_url, status_error

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http import HttpClient

#: Seconds by which clocks may differ before a refusal is explained by the difference.
CLOCK_TOLERANCE_S: Final = 45.0
#: Seconds to wait once a user logged in too often: Salesforce counts the logins of an hour.
LOGIN_RATE_WAIT_S: Final = 60.0

#: Temporary errors: `unknown_error` comes with "retry your request".
_TEMPORARY: Final = frozenset(
    {"unknown_error", "server_error", "temporarily_unavailable", "rate_limit_exceeded"}
)


@dataclass(frozen=True, slots=True)
class _Meaning:
    """The meaning of a refused login, and the credential's field to fix."""

    text: str
    field: str | None = None


#: The token endpoint's error codes.
_TOKEN_ERRORS: Final[Mapping[str, _Meaning]] = {
    "invalid_grant": _Meaning("the login is wrong, expired, revoked or not approved"),
    "invalid_client": _Meaning("the client secret is wrong", "client_secret"),
    "invalid_client_id": _Meaning("the client id is wrong", "client_id"),
    "invalid_app_access": _Meaning("an administrator has not approved the connected app for this user"),
    "unauthorized_client": _Meaning("the connected app does not allow this way to log in", "auth"),
    "unsupported_grant_type": _Meaning("the org does not allow this way to log in", "auth"),
    "inactive_user": _Meaning("the user is not active", "username"),
    "inactive_org": _Meaning("the org is locked or closed"),
    "invalid_request": _Meaning("the credential is incomplete"),
    "invalid_scope": _Meaning("the connected app does not allow access to the API"),
    "access_denied": _Meaning("an administrator does not allow it"),
    "redirect_uri_mismatch": _Meaning("the connected app has another redirect URI"),
}
#: Salesforce distinguishes the reasons of an invalid_grant only in the text.
_GRANT_HINTS: Final = (
    ("approved this consumer", _Meaning("the user has not approved the connected app; pre-authorize it")),
    ("audience", _Meaning("login_url (or audience) is not the login host of this org", "login_url")),
    (
        "expired access/refresh token",
        _Meaning("the refresh token is expired or revoked; authorize anew", "refresh_token"),
    ),
    (
        "authentication failure",
        _Meaning("user name, password or security token is wrong, or the address is not trusted", "password"),
    ),
    (
        "invalid assertion",
        _Meaning("the private key does not belong to the connected app's certificate", "private_key"),
    ),
    ("inactive user", _Meaning("the user is not active", "username")),
    ("inactive org", _Meaning("the org is locked or closed")),
    ("ip restricted", _Meaning("the org does not admit this address")),
    ("no client credentials user", _Meaning("the connected app names no user to run as", "client_id")),
)


class SalesforceLogin(OAuth2):
    """An OAuth 2 login at Salesforce; the token's `instance_url` is the address of the org's API."""

    #: A few wrong logins lock the user out.
    cool_down_s: ClassVar[float] = 60.0
    #: Salesforce accepts 3 minutes, and clocks differ.
    assertion_lifetime_s: ClassVar[int] = 120

    grant: Literal["refresh_token", "client_credentials", "jwt", "password"]  # type: ignore[assignment]  # one more
    password: SecretStr | None = None
    security_token: SecretStr | None = None

    async def fetch_token(self, http: "HttpClient") -> Token:
        """Return a token with the `instance_url` that it is for."""
        token = await (
            self._log_in_by_password(http) if self.grant == "password" else super().fetch_token(http)
        )
        return replace(token, facts={"instance_url": _origin(token.facts["instance_url"])})

    def endpoint(self) -> TokenEndpoint:
        """Return where tokens come from, with Salesforce's meanings of a refusal."""
        return TokenEndpoint(self.token_url, explain=self._explain, required=("instance_url",))

    async def _log_in_by_password(self, http: "HttpClient") -> Token:
        parts = (part.get_secret_value() for part in (self.password, self.security_token) if part is not None)
        user = {"grant_type": "password", "username": self.subject or "", "password": "".join(parts)}
        return await self.endpoint().ask(http, {**self.client_form(), **user})

    def _explain(self, response: "httpx.Response", answer: Mapping[str, Any]) -> ConnectorError:
        """Return the error of a refused login, with the credential's field to fix."""
        host, code = response.url.host, str(answer.get("error"))
        description = str(answer.get("error_description", "")).lower()
        if code in _TEMPORARY:
            return Unavailable(f"{host} cannot log in anyone at the moment ({code})", data={"reason": code})
        if "login rate exceeded" in description:
            return RateLimited(
                f"{host} refuses the login: the user logged in too often within the hour",
                retry_after_s=LOGIN_RATE_WAIT_S,
                data={"reason": "login_rate_exceeded"},
            )
        if code in _TOKEN_ERRORS:
            return _refused(host, self._meaning(response, code, description), code)
        return _error_without_code(response, is_json=bool(answer) or _is_json(response))

    def _meaning(self, response: "httpx.Response", code: str, description: str) -> _Meaning:
        if code != "invalid_grant":
            return _TOKEN_ERRORS[code]
        ahead_s = _clock_ahead_s(response) if self.grant == "jwt" else 0.0
        if abs(ahead_s) > CLOCK_TOLERANCE_S:
            way = "ahead of" if ahead_s > 0 else "behind"
            return _Meaning(f"this machine's clock is {abs(ahead_s):.0f} s {way} the server's; correct it")
        return next((hint for text, hint in _GRANT_HINTS if text in description), _TOKEN_ERRORS[code])


def _error_without_code(response: "httpx.Response", *, is_json: bool) -> ConnectorError:
    host, status = response.url.host, response.status_code
    if status >= 500 or status in {408, 429}:
        return status_error(status, host=host, headers=response.headers)
    if not is_json:
        issue = f"is not the address of a Salesforce login host: it answered with status {status}"
        return _refused(host, _Meaning(f"login_url {issue}", "login_url"))
    if status < 300:
        return Unavailable(f"{host} did not return an access token")
    return _refused(host, _Meaning(f"status {status}"))


def _refused(host: str, meaning: _Meaning, code: str | None = None) -> CredentialInvalid:
    details = [] if meaning.field is None else [Detail(field=meaning.field, issue=meaning.text)]
    return CredentialInvalid(
        f"{host} refuses the login: {meaning.text}" + (f" ({code})" if code else ""),
        details=details,
        data={"reason": code} if code else None,
    )


def _clock_ahead_s(response: "httpx.Response") -> float:
    try:
        return time.time() - parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return 0.0


def _is_json(response: "httpx.Response") -> bool:
    return response.content.lstrip()[:1] in {b"{", b"["}


def _origin(instance_url: str) -> str:
    """Return the origin of the org's own address: data calls go there and nowhere else."""
    try:
        target = read_url(instance_url)
    except RefusedAddress as error:
        raise CredentialInvalid(f"the login returned an instance_url that {error}") from None
    return f"{target.scheme}://{target.netloc}"
