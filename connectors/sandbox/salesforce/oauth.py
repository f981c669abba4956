"""Credential documents, the token endpoint with its four grants, and sessions."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from secrets import token_urlsafe
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from connectors.sandbox.salesforce.faults import Refusal
from connectors.sandbox.salesforce.store import Store

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Seconds that an assertion may live.
MAX_ASSERTION_S: Final = 180


@cache
def _key() -> rsa.RSAPrivateKey:
    """Return the private key of this process's connected app, generated once."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def private_key_pem() -> str:
    """Return the private key as PEM."""
    pem = _key().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


def _new_refresh_token() -> str:
    return f"5Aep8.{token_urlsafe(24)}"


class TokenRefused(Exception):
    """An error of the token endpoint."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.status = 400
        self.error = error
        self.description = description


@dataclass(slots=True)
class Authority:
    """Issues credentials and sessions, and checks them."""

    store: Store
    login_url: str = ""
    instance_url: str = ""
    username: str = "integration@sandbox.example"
    client_id: str = field(default_factory=lambda: f"3MVG9.{token_urlsafe(24)}")
    client_secret: str = field(default_factory=lambda: token_urlsafe(24))
    password: str = field(default_factory=lambda: token_urlsafe(12))
    security_token: str = field(default_factory=lambda: token_urlsafe(18))
    refresh_token: str = field(default_factory=_new_refresh_token)
    #: Whether each login by refresh token returns a new one and voids the old one.
    rotates_refresh_tokens: bool = False
    #: Whether every login is refused.
    is_locked: bool = False
    _sessions: set[str] = field(default_factory=set)
    _voided: set[str] = field(default_factory=set)

    def document(self, auth: str = "jwt", **more: Any) -> dict[str, Any]:
        """Return the credential's secret fields for a way to log in."""
        parts: dict[str, dict[str, str]] = {
            "jwt": {"username": self.username, "private_key": private_key_pem()},
            "client_credentials": {"client_secret": self.client_secret},
            "refresh_token": {"client_secret": self.client_secret, "refresh_token": self.refresh_token},
            "password": {
                "client_secret": self.client_secret,
                "username": self.username,
                "password": self.password,
                "security_token": self.security_token,
            },
        }
        return {"auth": auth, "login_url": self.login_url, "client_id": self.client_id, **parts[auth], **more}

    def expire_sessions(self) -> None:
        """End every session."""
        self._sessions.clear()

    def exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the token endpoint's answer.

        Raises:
            TokenRefused: the grant is not accepted.
        """
        grant = form.get("grant_type")
        if grant not in {_JWT_GRANT, "client_credentials", "refresh_token", "password"}:
            raise TokenRefused("unsupported_grant_type", "grant type not supported")
        if self.is_locked:
            raise TokenRefused("invalid_grant", "authentication failure")
        if grant == _JWT_GRANT:
            self._check_assertion(form.get("assertion", ""))
        else:
            self._check_client(form)
        if grant == "refresh_token":
            self._check_refresh_token(form.get("refresh_token", ""))
        if grant == "password":
            wanted = (self.username, self.password + self.security_token)
            if (form.get("username"), form.get("password")) != wanted:
                raise TokenRefused("invalid_grant", "authentication failure")
        session = f"00DSb0000000001!{token_urlsafe(48)}"
        self._sessions.add(session)
        now = self.store.now()
        self.store.journal.write(now, "login", grant=grant)
        rotated = {}
        if grant == "refresh_token" and self.rotates_refresh_tokens:
            self._voided.add(self.refresh_token)
            rotated["refresh_token"] = self.refresh_token = _new_refresh_token()
        return {
            **rotated,
            "access_token": session,
            "instance_url": self.instance_url,
            "id": f"{self.login_url}/id/00DSb0000000001AAA/005Sb0000000001AAA",
            "token_type": "Bearer",
            "issued_at": str(int(now.timestamp() * 1000)),
        }

    def check(self, authorization: str) -> None:
        """Check the session of a request.

        Raises:
            Refusal: the session has expired, or is none of ours.
        """
        if authorization.removeprefix("Bearer ") not in self._sessions:
            raise Refusal(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def _check_refresh_token(self, refresh_token: str) -> None:
        """Check a refresh token; one that was exchanged before revokes its successor, and every session."""
        if refresh_token in self._voided:
            self.refresh_token = _new_refresh_token()
            self._sessions.clear()
        if refresh_token != self.refresh_token:
            raise TokenRefused("invalid_grant", "expired access/refresh token")

    def _check_client(self, form: Mapping[str, str]) -> None:
        if form.get("client_id") != self.client_id:
            raise TokenRefused("invalid_client_id", "client identifier invalid")
        if form.get("client_secret") != self.client_secret:
            raise TokenRefused("invalid_client", "invalid client credentials")

    def _check_assertion(self, assertion: str) -> None:
        try:
            signed, _, signature = assertion.rpartition(".")
            header, claims = (json.loads(_decode(part)) for part in signed.split("."))
            _key().public_key().verify(
                _decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            is_ours = header["alg"] == "RS256" and claims["iss"] == self.client_id
            expires_in_s = float(claims["exp"]) - self.store.now().timestamp()
        except (ValueError, LookupError, TypeError, InvalidSignature):
            raise TokenRefused("invalid_grant", "invalid assertion") from None
        if not is_ours:
            raise TokenRefused("invalid_client_id", "client identifier invalid")
        if claims.get("aud") != self.login_url:
            raise TokenRefused("invalid_grant", "audience is invalid")
        if not 0 < expires_in_s <= MAX_ASSERTION_S:
            raise TokenRefused("invalid_grant", "expired authorization code")
        if claims.get("sub") != self.username:
            raise TokenRefused("invalid_grant", "user hasn't approved this consumer")


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
