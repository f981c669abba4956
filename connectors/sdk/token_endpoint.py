"""A token endpoint (RFC 6749): the form it is asked with, the token it gives, and what its refusals mean."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from connectors.sdk.errors import ConnectorError, CredentialInvalid, Unavailable
from connectors.sdk.http.request import Headers, QueryValue
from connectors.sdk.http.status import status_error
from connectors.sdk.http.tokens import Token

if TYPE_CHECKING:
    import httpx

    from connectors.sdk.http.client import HttpClient

#: Seconds for one request to a token endpoint.
TOKEN_TIMEOUT_S: Final = 15.0
#: Longest fact that is kept beside a token.
MAX_FACT_CHARS: Final = 4096

#: What RFC 6749 lets a token endpoint say, and how to fix it. Anything else it says is not repeated.
REASONS: Final = {
    "invalid_grant": "the refresh token, key or user is expired, revoked or wrong; authorize anew",
    "invalid_client": "the client id or secret is wrong",
    "unauthorized_client": "the client may not ask for a token this way",
    "invalid_scope": "the scopes are not allowed for this client",
    "access_denied": "access was refused by an administrator",
    "unsupported_grant_type": "the token endpoint does not know this grant",
    "invalid_request": "the credential is incomplete",
}
#: Errors that pass by themselves.
PASSING: Final = frozenset({"temporarily_unavailable", "server_error"})
#: Parts of the answer that are secrets; the rest are facts of the token.
_SECRET_PARTS: Final = frozenset({"access_token", "refresh_token", "id_token"})

#: Returns the error that a refusal means at this provider; None if the standard's meaning holds.
Explain = Callable[["httpx.Response", Mapping[str, Any]], ConnectorError | None]


def _no_explanation(response: "httpx.Response", answer: Mapping[str, Any]) -> ConnectorError | None:
    return None


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Where a credential gets its access tokens.

    endpoint = TokenEndpoint("https://login.example.com/oauth/token", required=("instance_url",))
    token = await endpoint.ask(http, {"grant_type": "client_credentials", …})
    token.facts["instance_url"]
    """

    url: str
    #: What this provider's errors mean, beside or in the place of the standard's.
    reasons: Mapping[str, str] = field(default_factory=dict)
    #: Tells refusals apart that have one name at this provider.
    explain: Explain = _no_explanation
    #: Facts without which a token is of no use.
    required: tuple[str, ...] = ()
    #: Sent with each request, such as the client's id and secret.
    headers: Headers = field(default_factory=dict, repr=False)

    async def ask(self, http: "HttpClient", form: Mapping[str, QueryValue]) -> Token:
        """Ask for a token, and keep what came beside it as its facts.

        Args:
            http: without the job's deadline (`HttpClient.detached`), because other jobs wait for the token.

        Raises:
            CredentialInvalid: the endpoint refuses the credential.
            Unavailable, RateLimited, Timeout: it does not answer now.
        """
        token, _ = await self._exchange(http, form)
        return token

    async def refresh(
        self,
        http: "HttpClient",
        refresh_token: SecretStr,
        form: Mapping[str, QueryValue],
        *,
        field: str = "refresh_token",
    ) -> Token:
        """Ask for a token with a refresh token; one that comes in exchange is used from now on, and written back.

        Args:
            refresh_token: as it is stored; the newest of its line is used.
            form: what is sent beside it, such as the client's id.
            field: the credential's field that holds it.

        Raises:
            ConnectorError: as `ask`.
        """
        rotations, account = http.rotations, http.account
        used = rotations.newest(account, refresh_token)
        whole = {**form, "grant_type": "refresh_token", "refresh_token": used.get_secret_value()}
        try:
            token, newest = await self._exchange(http, whole)
        except CredentialInvalid as refused:
            # Any other refusal says nothing of this token, and an older one must not be used again.
            if (refused.data or {}).get("reason") == "invalid_grant":
                rotations.forget(account, used)
            raise
        if newest is not None and newest.get_secret_value() != used.get_secret_value():
            await rotations.rotate(account, field, used, newest)
        return token

    async def _exchange(
        self, http: "HttpClient", form: Mapping[str, QueryValue]
    ) -> tuple[Token, SecretStr | None]:
        response = await http.at(self.url, headers=self.headers).post(
            "", data=form, timeout_s=TOKEN_TIMEOUT_S, raise_for_status=False
        )
        answer = _read(response)
        token, refresh_token = _token_of(answer), answer.get("refresh_token")
        if response.status_code >= 300 or token is None or not set(self.required) <= token.facts.keys():
            raise self._refusal(response, answer)
        is_given = isinstance(refresh_token, str) and refresh_token != ""
        return token, SecretStr(str(refresh_token)) if is_given else None

    def _refusal(self, response: "httpx.Response", answer: Mapping[str, Any]) -> ConnectorError:
        host, status, error = response.url.host, response.status_code, answer.get("error")
        reason = error if isinstance(error, str) else ""  # some APIs answer an object here
        if (explained := self.explain(response, answer)) is not None:
            return explained
        if status < 300:
            missing = " or ".join(("an access token", *self.required))
            return Unavailable(f"{host} answered without {missing}")
        if reason in PASSING:
            return Unavailable(f"{host} gives no access token now (status {status})")
        reasons = REASONS | dict(self.reasons)
        if reason in reasons:
            return CredentialInvalid(
                f"{host} refuses the credential: {reasons[reason]} ({reason})", data={"reason": reason}
            )
        return _refusal_of(response)


def _refusal_of(response: "httpx.Response") -> ConnectorError:
    """Return the error of a refusal that gives no reason."""
    host, status = response.url.host, response.status_code
    if status < 400:
        return CredentialInvalid(f"{host} redirects the request for a token (status {status}): a wrong URL")
    if status < 500 and status not in {408, 429}:
        return CredentialInvalid(f"{host} refuses the credential (status {status})")
    return status_error(status, host=host, headers=response.headers)


def _token_of(answer: Mapping[str, Any]) -> Token | None:
    value, lifetime_s = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(value, str) or not value:
        return None
    if not isinstance(lifetime_s, int | float) or isinstance(lifetime_s, bool) or lifetime_s <= 0:
        lifetime_s = None
    facts = {
        name: fact
        for name, fact in answer.items()
        if isinstance(fact, str) and name not in _SECRET_PARTS and len(fact) <= MAX_FACT_CHARS
    }
    return Token(SecretStr(value), None if lifetime_s is None else float(lifetime_s), facts)


def _read(response: "httpx.Response") -> dict[str, Any]:
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
