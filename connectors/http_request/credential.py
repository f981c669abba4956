"""The credential of `http`: the API's address, and how requests are authenticated."""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.http_request.path import check_path
from connectors.sdk.auth import OAuth2
from connectors.sdk.http import TlsIdentity, header_fault, read_host, read_url

#: Shorter values are not masked: they would be found everywhere.
MIN_SECRET_CHARS: Final = 8
#: Statuses that can be declared as unprocessed: those of which nothing else is known.
_OPEN_STATUSES: Final = frozenset({408, *range(500, 600)})
#: What each kind of authentication needs, and what else it may have.
_PARTS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "none": ((), ()),
    "bearer": (("token",), ()),
    "basic": (("username", "password"), ()),
    "header": (("header", "value"), ()),
    "query": (("parameter", "value"), ()),
    "oauth2": (("token_url", "client_id"), ("client_secret", "refresh_token", "scope", "client_auth")),
}
_ALL_PARTS: Final = sorted({name for needed, others in _PARTS.values() for name in (*needed, *others)})


class HttpCredential(BaseModel):
    """The API, and how requests to it are authenticated."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(examples=["https://api.example.com/v1"])
    auth: Literal["none", "bearer", "basic", "header", "query", "oauth2"] = "none"
    token: SecretStr | None = Field(default=None, description="For bearer.")
    username: str | None = Field(default=None, description="For basic.")
    password: SecretStr | None = Field(default=None, description="For basic.")
    header: str | None = Field(default=None, description="For header: its name.", examples=["X-Api-Key"])
    parameter: str | None = Field(
        default=None, min_length=1, description="For query: its name.", examples=["api_key"]
    )
    value: SecretStr | None = Field(default=None, description="For header and query: its value.")
    token_url: str | None = Field(
        default=None, description="For oauth2.", examples=["https://login.example.com/oauth/token"]
    )
    client_id: str | None = Field(default=None, description="For oauth2.")
    client_secret: SecretStr | None = Field(
        default=None, description="For oauth2; needed unless there is a refresh_token."
    )
    refresh_token: SecretStr | None = Field(
        default=None, description="For oauth2: used in place of the client's own credentials."
    )
    scope: str | None = Field(default=None, description="For oauth2: separated by spaces.")
    client_auth: Literal["body", "basic"] | None = Field(
        default=None, description="For oauth2: where the client's id and secret are sent; body by default."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Further hosts that redirects may lead to; without any, none is followed."
    )
    idempotency_header: str | None = Field(
        default=None,
        description="The header by which the API knows a repeated POST or PATCH; makes them KEYED.",
        examples=["Idempotency-Key"],
    )
    unprocessed_statuses: tuple[int, ...] = Field(
        default=(),
        description="Statuses by which the API vows that it did nothing: a write is then retried.",
        examples=[[503]],
    )
    ca: str | None = Field(default=None, description="PEM: authorities to trust beside the public ones.")
    client_certificate: str | None = Field(default=None, description="PEM, with its chain.")
    client_key: SecretStr | None = Field(default=None, description="PEM, without a password.")

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: str) -> str:
        target = read_url(base_url)
        if target.query or "#" in base_url:
            raise ValueError("must have no query and no fragment")
        check_path(target.path)
        return base_url

    @field_validator("allowed_hosts", "unprocessed_statuses", mode="before")
    @classmethod
    def _split(cls, listed: Any) -> Any:
        # `vault kv put` knows text alone.
        if not isinstance(listed, str):
            return listed
        parts = [part for part in re.split(r"[,\s]+", listed) if part]
        return [int(part) if part.isascii() and part.isdigit() else part for part in parts]

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(read_host, hosts))

    @field_validator("unprocessed_statuses")
    @classmethod
    def _check_statuses(cls, statuses: tuple[int, ...]) -> tuple[int, ...]:
        if not _OPEN_STATUSES.issuperset(statuses):
            raise ValueError("must be 408 or from 500 to 599")
        return statuses

    @field_validator("header", "idempotency_header")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (issue := header_fault(name, "")) is not None:
            raise ValueError(issue)
        return name

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        needed, others = _PARTS[self.auth]
        for name in _ALL_PARTS:
            is_given = getattr(self, name) is not None
            if is_given and name not in {*needed, *others}:
                kinds = [kind for kind, parts in _PARTS.items() if name in {*parts[0], *parts[1]}]
                raise ValueError(f"{name} belongs to auth {' or '.join(kinds)}, and auth is {self.auth!r}")
            if not is_given and name in needed:
                raise ValueError(f"auth {self.auth!r} needs {name}")
        if self.auth == "oauth2":
            self.oauth2()
        if self.username is not None and ":" in self.username:
            raise ValueError("username has a colon, which basic authentication cannot carry")
        for name, value in self.headers().items():
            if (issue := header_fault(name, value.get_secret_value())) is not None:
                raise ValueError(issue)
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("client_certificate and client_key belong together")
        for name in ("ca", "client_certificate", "client_key"):
            pem = getattr(self, name)
            text = pem.get_secret_value() if isinstance(pem, SecretStr) else pem
            if text is not None and "-----BEGIN " not in text:
                raise ValueError(f"{name} is no PEM")
        return self

    def secrets(self) -> list[str]:
        """Return what must not come back in an answer."""
        held = [self.token, self.password, self.value, self.client_secret, self.refresh_token]
        texts = [secret.get_secret_value() for secret in held if secret is not None]
        if self.password is not None:
            texts.append(self.headers()["Authorization"].get_secret_value().removeprefix("Basic "))
        return [text for text in texts if len(text) >= MIN_SECRET_CHARS]

    def headers(self) -> dict[str, SecretStr]:
        """Return the headers that authenticate a request."""
        if self.token is not None:
            return {"Authorization": SecretStr(f"Bearer {self.token.get_secret_value()}")}
        if self.username is not None and self.password is not None:
            pair = f"{self.username}:{self.password.get_secret_value()}"
            return {"Authorization": SecretStr(f"Basic {base64.b64encode(pair.encode()).decode()}")}
        if self.header is not None and self.value is not None:
            return {self.header: self.value}
        return {}

    def query(self) -> dict[str, SecretStr]:
        """Return the query that authenticates a request."""
        return {} if self.parameter is None or self.value is None else {self.parameter: self.value}

    def oauth2(self) -> OAuth2 | None:
        """Return the OAuth 2 client that gets the tokens; None for another kind of authentication."""
        if self.token_url is None or self.client_id is None:
            return None
        return OAuth2(
            base_url=self.base_url,
            token_url=self.token_url,
            grant="client_credentials" if self.refresh_token is None else "refresh_token",
            client_id=self.client_id,
            client_secret=self.client_secret,
            refresh_token=self.refresh_token,
            scope=self.scope,
            client_auth=self.client_auth or "body",
        )

    def tls(self) -> TlsIdentity | None:
        """Return the authorities and the certificate of this API's connections."""
        if self.ca is None and self.client_certificate is None:
            return None
        return TlsIdentity(self.ca, self.client_certificate, self.client_key)
