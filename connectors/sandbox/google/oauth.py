"""The accounts' way in: credential documents, the token endpoint, bearer tokens."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from secrets import token_urlsafe
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions, jwt

from connectors.sandbox.google.faults import Refusal
from connectors.sandbox.google.store import Actor, Store

TOKEN_LIFETIME_S: Final = 3599
_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: What google-auth writes into every assertion, wherever it sends it.
_GOOGLE_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
_ALL_SCOPES: Final = frozenset({"https://www.googleapis.com/auth/calendar"})


@cache
def _key_pair() -> tuple[str, bytes]:
    """Create the key of this process's service accounts; making one takes a moment."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public


class TokenRefused(Exception):
    """An error as the token endpoint answers it."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error
        self.description = description


@dataclass(slots=True)
class _Issued:
    actor: Actor
    expires_at: datetime


@dataclass(slots=True)
class _User:
    email: str
    client_id: str
    client_secret: str
    scopes: frozenset[str]


@dataclass(slots=True)
class _Service:
    email: str
    #: Whom it may speak for.
    delegated: frozenset[str]
    is_disabled: bool = False


@dataclass(slots=True)
class Authority:
    """Issues credentials and tokens, and knows them again."""

    store: Store
    token_url: str = ""
    #: Whether a refresh token is exchanged each time it is used; the old one is void then.
    rotates: bool = False
    _users: dict[str, _User] = field(default_factory=dict)
    _services: dict[str, _Service] = field(default_factory=dict)
    _tokens: dict[str, _Issued] = field(default_factory=dict)

    def service_account(self, email: str, *, subject: str | None = None) -> dict[str, Any]:
        """Create a service account's key file; with a `subject`, domain-wide delegation is set up, too."""
        private, _ = _key_pair()
        self._services[email] = _Service(email, frozenset([subject] if subject else []))
        document = {
            "type": "service_account",
            "project_id": "sandbox",
            "private_key_id": "sandbox-key",
            "private_key": private,
            "client_email": email,
            "client_id": "1000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": self.token_url,
            "universe_domain": "googleapis.com",
        }
        return document | ({"subject": subject} if subject else {})

    def authorized_user(self, email: str, *, scopes: frozenset[str] = _ALL_SCOPES) -> dict[str, Any]:
        """Create an authorized user's document."""
        refresh_token = f"1//sandbox-{token_urlsafe(24)}"
        user = _User(email, "client.apps.googleusercontent.com", f"GOCSPX-{token_urlsafe(12)}", scopes)
        self._users[refresh_token] = user
        return {
            "type": "authorized_user",
            "client_id": user.client_id,
            "client_secret": user.client_secret,
            "refresh_token": refresh_token,
            "token_uri": self.token_url,
        }

    def revoke(self, email: str) -> None:
        """Take an account's refresh tokens, key and access tokens back."""
        self._users = {token: user for token, user in self._users.items() if user.email != email}
        if email in self._services:
            self._services[email].is_disabled = True
        self._tokens = {name: held for name, held in self._tokens.items() if held.actor.email != email}

    def expire_tokens(self) -> None:
        """Expire every access token."""
        self._tokens.clear()

    def exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Answer the token endpoint.

        Raises:
            TokenRefused: the grant is not accepted.
        """
        grant = form.get("grant_type")
        if grant == "refresh_token":
            actor = self._by_refresh_token(form)
        elif grant == _JWT_GRANT:
            actor = self._by_assertion(form.get("assertion", ""))
        else:
            raise TokenRefused(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        token = f"ya29.sandbox-{token_urlsafe(24)}"
        now = self.store.now()
        self._tokens[token] = _Issued(actor, now + timedelta(seconds=TOKEN_LIFETIME_S))
        self.store.journal.write(now, "token", account=actor.email)
        answer = {
            "access_token": token,
            "expires_in": TOKEN_LIFETIME_S,
            "scope": " ".join(sorted(actor.scopes)),
            "token_type": "Bearer",
        }
        return answer | (
            self._exchange_refresh_token(form) if self.rotates and grant == "refresh_token" else {}
        )

    def _exchange_refresh_token(self, form: Mapping[str, str]) -> dict[str, str]:
        newest = f"1//sandbox-{token_urlsafe(24)}"
        self._users[newest] = self._users.pop(form["refresh_token"])
        return {"refresh_token": newest}

    def actor_of(self, authorization: str) -> Actor:
        """Return whose token this is.

        Raises:
            Refusal: it is none of ours, or has expired.
        """
        issued = self._tokens.get(authorization.removeprefix("Bearer "))
        if not authorization.startswith("Bearer ") or issued is None or issued.expires_at <= self.store.now():
            raise Refusal(
                401,
                "authError",
                "Invalid Credentials",
                headers={"WWW-Authenticate": 'Bearer realm="sandbox"'},
            )
        return issued.actor

    def _by_refresh_token(self, form: Mapping[str, str]) -> Actor:
        user = self._users.get(form.get("refresh_token", ""))
        if user is None:
            raise TokenRefused(400, "invalid_grant", "Token has been expired or revoked.")
        if (form.get("client_id"), form.get("client_secret")) != (user.client_id, user.client_secret):
            raise TokenRefused(401, "invalid_client", "Unauthorized")
        return Actor(user.email, user.scopes)

    def _by_assertion(self, assertion: str) -> Actor:
        _, public = _key_pair()
        audiences = [self.token_url, _GOOGLE_AUDIENCE]
        try:
            claims = jwt.decode(assertion, certs=public, audience=audiences)  # type: ignore[no-untyped-call]
        except (ValueError, exceptions.GoogleAuthError):
            raise TokenRefused(400, "invalid_grant", "Invalid JWT Signature.") from None
        claims = json.loads(json.dumps(claims))
        service = self._services.get(claims.get("iss", ""))
        if service is None or service.is_disabled:
            raise TokenRefused(400, "invalid_grant", "Invalid grant: account not found")
        if claims["exp"] - claims["iat"] > 3600:
            raise TokenRefused(400, "invalid_grant", "Invalid JWT: the token must be short-lived.")
        scopes = frozenset(claims.get("scope", "").split())
        if not scopes:
            raise TokenRefused(400, "invalid_scope", "Empty or missing scope not allowed.")
        subject = claims.get("sub", service.email)
        if subject == service.email:
            return Actor(service.email, scopes, is_bare_service_account=True)
        if subject not in service.delegated:
            raise TokenRefused(
                401,
                "unauthorized_client",
                "Client is unauthorized to retrieve access tokens using this method.",
            )
        return Actor(subject, scopes)
