"""The credential: how to log in to an org."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from connectors.salesforce.login import SalesforceLogin
from connectors.sdk.http import read_url

if TYPE_CHECKING:
    from connectors.sdk.auth import TokenAuth
    from connectors.sdk.http import HttpClient

DEFAULT_LOGIN_URL: Final = "https://login.salesforce.com"
#: The version of the API that is spoken unless the credential names another.
DEFAULT_API_VERSION: Final = "62.0"
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
#: The fields that each way to log in needs.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "jwt": ("client_id", "username", "private_key"),
    "client_credentials": ("client_id", "client_secret"),
    "refresh_token": ("client_id", "refresh_token"),
    "password": ("client_id", "client_secret", "username", "password"),
}


class SalesforceCredential(BaseModel):
    """How to log in, and which fields of the org may hold the job's mark."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    auth: Literal["jwt", "client_credentials", "refresh_token", "password"]
    login_url: str = Field(
        default=DEFAULT_LOGIN_URL,
        description="https://login.salesforce.com, https://test.salesforce.com, or the org's My Domain.",
    )
    audience: str | None = Field(default=None, description="The JWT's audience if it is not login_url.")
    client_id: str
    client_secret: SecretStr | None = None
    username: str | None = None
    private_key: SecretStr | None = Field(default=None, description="For jwt: PEM.")
    password: SecretStr | None = None
    security_token: SecretStr | None = None
    refresh_token: SecretStr | None = None
    api_version: str = Field(default=DEFAULT_API_VERSION, pattern=r"^[0-9]{2,3}\.0$")
    lead_external_id_field: str | None = Field(
        default=None,
        description="A text field of at least 32 characters, unique and an external id: makes creates KEYED.",
        examples=["Connectors_Key__c"],
    )
    contact_external_id_field: str | None = None
    case_external_id_field: str | None = None
    external_id_fields: dict[str, str] = Field(default={}, description="The same for other objects.")
    lead_key_field: str | None = Field(
        default=None,
        description="A text field of at least 32 characters by which an uncertain create is found again.",
    )
    contact_key_field: str | None = None
    case_key_field: str | None = None
    task_key_field: str | None = None
    key_fields: dict[str, str] = Field(default={}, description="The same for other objects.")

    @field_validator("login_url", "audience")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        target = read_url(url)
        if target.query or "#" in url or target.path != "/":
            raise ValueError("must be https:// and a host, without a path")
        return url.rstrip("/")

    @field_validator("private_key")
    @classmethod
    def _read_pem(cls, pem: SecretStr | None) -> SecretStr | None:
        """Return a PEM with real line breaks instead of the letters \\n, which environments leave."""
        return None if pem is None else SecretStr(pem.get_secret_value().replace("\\n", "\n"))

    @field_validator("*", mode="after")
    @classmethod
    def _check_fields(cls, value: Any, info: Any) -> Any:
        if info.field_name.endswith("_field") and value is not None and not _FIELD.fullmatch(value):
            raise ValueError("must be a field's API name")
        if info.field_name.endswith("_fields"):
            for name in (*value, *value.values()):
                if not _FIELD.fullmatch(name):
                    raise ValueError("must map objects' to fields' API names")
        return value

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        missing = [name for name in _NEEDED[self.auth] if not text_of(getattr(self, name))]
        if missing:
            raise ValueError(f"auth {self.auth} needs {', '.join(missing)}")
        if self.auth == "client_credentials" and self.login_url == DEFAULT_LOGIN_URL:
            raise ValueError("auth client_credentials needs login_url: the org's My Domain")
        if self.private_key is not None and "-----BEGIN" not in self.private_key.get_secret_value():
            raise ValueError("private_key must be a key in PEM")
        return self

    def external_id_field(self, object_name: str) -> str | None:
        """Return the external-id field by which records of this object are created once."""
        return self._named(object_name, "external_id_field", self.external_id_fields)

    def key_field(self, object_name: str) -> str | None:
        """Return the field in which a created record carries its job's mark."""
        return self._named(object_name, "key_field", self.key_fields)

    def mark_fields(self, object_name: str) -> list[tuple[str, str]]:
        """Return the settings that name a field of this object for the job's mark, and the fields."""
        found = []
        for kind in ("external_id_field", "key_field"):
            own = f"{object_name.lower()}_{kind}"
            field = self._named(object_name, kind, getattr(self, f"{kind}s"))
            if field is not None:
                found.append((own if getattr(self, own, None) is not None else f"{kind}s", field))
        return found

    def digest(self) -> bytes:
        """Tell this credential from any other, and from itself after a change."""
        parts = {name: text_of(getattr(self, name)) for name in type(self).model_fields}
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def auth_for(self, http: "HttpClient") -> "TokenAuth":
        """Return the authentication of a request; this tenant's jobs share its tokens."""
        return self._login().auth(http)

    def _login(self) -> SalesforceLogin:
        return SalesforceLogin(
            base_url=self.login_url,
            token_url=f"{self.login_url}/services/oauth2/token",
            grant=self.auth,
            client_id=self.client_id,
            client_secret=self.client_secret,
            refresh_token=self.refresh_token,
            private_key=self.private_key,
            subject=self.username,
            audience=(self.audience or self.login_url) if self.auth == "jwt" else None,
            password=self.password,
            security_token=self.security_token,
        )

    def _named(self, object_name: str, kind: str, others: Mapping[str, str]) -> str | None:
        own = getattr(self, f"{object_name.lower()}_{kind}", None)
        if own is not None:
            return str(own)
        return next((field for name, field in others.items() if name.lower() == object_name.lower()), None)


def text_of(part: object) -> str:
    """Give a part of the credential as text; a missing one as none."""
    if isinstance(part, SecretStr):
        return part.get_secret_value()
    if isinstance(part, dict):
        return json.dumps(part, sort_keys=True)
    return part if isinstance(part, str) else ""
