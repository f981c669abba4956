"""The credential of `http`: the API's address, and how requests are authenticated."""

import base64
import re
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.http_request.path import check_path
from connectors.sdk.http import header_fault, read_host, read_url

#: Shorter values are not masked: they would be found everywhere.
MIN_SECRET_CHARS: Final = 8


class HttpCredential(BaseModel):
    """The API, and how to be let in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str = Field(examples=["https://api.example.com/v1"])
    auth: Literal["none", "bearer", "basic", "header"] = "none"
    token: SecretStr | None = Field(default=None, description="For bearer.")
    username: str | None = Field(default=None, description="For basic.")
    password: SecretStr | None = Field(default=None, description="For basic.")
    header: str | None = Field(default=None, description="For header: its name.", examples=["X-Api-Key"])
    value: SecretStr | None = Field(default=None, description="For header: its value.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Further hosts that redirects may lead to; without any, none is followed."
    )
    idempotency_header: str | None = Field(
        default=None,
        description="The header by which the API knows a repeated POST or PATCH; makes them KEYED.",
        examples=["Idempotency-Key"],
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, base_url: str) -> str:
        target = read_url(base_url)
        if target.query or "#" in base_url:
            raise ValueError("must have no query and no fragment")
        check_path(target.path)
        return base_url

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: Any) -> Any:
        # `vault kv put` knows text alone.
        return [host for host in re.split(r"[,\s]+", hosts) if host] if isinstance(hosts, str) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(read_host, hosts))

    @field_validator("header", "idempotency_header")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (issue := header_fault(name, "")) is not None:
            raise ValueError(issue)
        return name

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        parts = {
            "bearer": ("token",),
            "basic": ("username", "password"),
            "header": ("header", "value"),
            "none": (),
        }
        for kind, names in parts.items():
            for name in names:
                is_given = getattr(self, name) is not None
                if is_given and kind != self.auth:
                    raise ValueError(f"{name} belongs to auth {kind!r}, and auth is {self.auth!r}")
                if not is_given and kind == self.auth:
                    raise ValueError(f"auth {kind!r} needs {name}")
        if self.username is not None and ":" in self.username:
            raise ValueError("username has a colon, which basic authentication cannot carry")
        for name, value in self.headers().items():
            if (issue := header_fault(name, value.get_secret_value())) is not None:
                raise ValueError(issue)
        return self

    def secrets(self) -> list[str]:
        """List what must not come back in an answer."""
        held = [self.token, self.password, self.value]
        texts = [secret.get_secret_value() for secret in held if secret is not None]
        if self.password is not None:
            texts.append(self.headers()["Authorization"].get_secret_value().removeprefix("Basic "))
        return [text for text in texts if len(text) >= MIN_SECRET_CHARS]

    def headers(self) -> dict[str, SecretStr]:
        """Make the headers that let a request in."""
        if self.token is not None:
            return {"Authorization": SecretStr(f"Bearer {self.token.get_secret_value()}")}
        if self.username is not None and self.password is not None:
            pair = f"{self.username}:{self.password.get_secret_value()}"
            return {"Authorization": SecretStr(f"Basic {base64.b64encode(pair.encode()).decode()}")}
        if self.header is not None and self.value is not None:
            return {self.header: self.value}
        return {}
