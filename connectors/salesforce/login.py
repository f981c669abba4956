"""The login host of an org: its token endpoint, and the meaning of its refusals."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from connectors.sdk.auth import Token, TokenEndpoint
from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    Detail,
    RateLimited,
    Unavailable,
)
from connectors.sdk.http import RefusedAddress, read_url

if TYPE_CHECKING:
    import httpx

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


def login_endpoint(login_url: str, *, is_signed: bool) -> TokenEndpoint:
    """Return the token endpoint of a login host; its tokens come with the `instance_url` of the org's API.

    Args:
        is_signed: whether the login is an assertion, whose refusal may come from a wrong clock.
    """
    return TokenEndpoint(
        f"{login_url}/services/oauth2/token",
        required=("instance_url",),
        explain=partial(_explain, is_signed=is_signed),
    )


def with_origin(token: Token) -> Token:
    """Return a token whose `instance_url` is an origin: data calls go there and nowhere else.

    Raises:
        CredentialInvalid: it is not an address that may be called.
    """
    try:
        target = read_url(token.facts["instance_url"])
    except RefusedAddress as error:
        raise CredentialInvalid(f"the login returned an instance_url that {error}") from None
    return replace(token, facts={"instance_url": f"{target.scheme}://{target.netloc}"})


def _explain(
    response: "httpx.Response", answer: Mapping[str, Any], *, is_signed: bool
) -> ConnectorError | None:
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
        return _refused(host, _meaning(response, code, description, is_signed=is_signed), code)
    return _error_without_code(response)


def _meaning(response: "httpx.Response", code: str, description: str, *, is_signed: bool) -> _Meaning:
    if code != "invalid_grant":
        return _TOKEN_ERRORS[code]
    ahead_s = _clock_ahead_s(response) if is_signed else 0.0
    if abs(ahead_s) > CLOCK_TOLERANCE_S:
        way = "ahead of" if ahead_s > 0 else "behind"
        return _Meaning(f"this machine's clock is {abs(ahead_s):.0f} s {way} the server's; correct it")
    return next((hint for text, hint in _GRANT_HINTS if text in description), _TOKEN_ERRORS[code])


def _error_without_code(response: "httpx.Response") -> ConnectorError | None:
    """Return the error of a host that is no login host; None if the endpoint's own meaning holds."""
    host, status = response.url.host, response.status_code
    if status >= 500 or status in {408, 429} or _is_json(response):
        return None
    issue = f"is not the address of a Salesforce login host: it answered with status {status}"
    return _refused(host, _Meaning(f"login_url {issue}", "login_url"))


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
