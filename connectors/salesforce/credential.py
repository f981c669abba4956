"""The credential: how to log in to an org."""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.salesforce.login import login_endpoint, with_origin
from connectors.sdk.auth import Token, TokenSource, sign_assertion
from connectors.sdk.http import read_url

if TYPE_CHECKING:
    from connectors.sdk.http import HttpClient

DEFAULT_LOGIN_URL: Final = "https://login.salesforce.com"
#: The version of the API that is spoken unless the credential names another.
DEFAULT_API_VERSION: Final = "62.0"
#: Seconds for which an assertion is valid; Salesforce accepts 3 minutes, and clocks differ.
ASSERTION_LIFETIME_S: Final = 120

_JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: Objects whose fields have settings of their own.
_OWN_OBJECTS: Final = ("Lead", "Contact", "Case", "Task")
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
#: The fields that each way to log in needs.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "jwt": ("client_id", "username", "private_key"),
    "client_credentials": ("client_id", "client_secret"),
    "refresh_token": ("client_id", "refresh_token"),
    "password": ("client_id", "client_secret", "username", "password"),
}


class SalesforceCredential(TokenSource):
    """How to log in, and which fields of the org may hold the job's mark."""

    #: A few wrong logins lock the user out.
    cool_down_s: ClassVar[float] = 60.0

    # `auth` in the secret; a method of that name returns what authenticates a request.
    grant: Literal["jwt", "client_credentials", "refresh_token", "password"] = Field(alias="auth")
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
        missing = [name for name in _NEEDED[self.grant] if not text_of(getattr(self, name))]
        if missing:
            raise ValueError(f"auth {self.grant} needs {', '.join(missing)}")
        if self.grant == "client_credentials" and self.login_url == DEFAULT_LOGIN_URL:
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

    def marked_objects(self) -> list[str]:
        """Return the objects for which a field for the job's mark is named."""
        named = [*_OWN_OBJECTS, *self.external_id_fields, *self.key_fields]
        return [name for name in dict.fromkeys(named) if self.mark_fields(name)]

    def digest(self) -> bytes:
        """Return what tells this credential from any other, and from itself after a change."""
        parts = {name: text_of(getattr(self, name)) for name in type(self).model_fields}
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    async def fetch_token(self, http: "HttpClient") -> Token:
        """Log in, and return a token with the `instance_url` of the org's API."""
        endpoint = login_endpoint(self.login_url, is_signed=self.grant == "jwt")
        if self.grant == "refresh_token" and self.refresh_token is not None:
            token = await endpoint.refresh(http, self.refresh_token, self._client_form())
        else:
            token = await endpoint.ask(http, await self._form())
        return with_origin(token)

    def _client_form(self) -> dict[str, str]:
        secret = {"client_secret": text_of(self.client_secret)} if self.client_secret else {}
        return {"client_id": self.client_id, **secret}

    async def _form(self) -> dict[str, str]:
        if self.grant == "jwt" and self.private_key is not None:
            return {
                "grant_type": _JWT_GRANT,
                "assertion": await sign_assertion(self.private_key, self._claims(time.time())),
            }
        if self.grant == "password":
            password = text_of(self.password) + text_of(self.security_token)
            user = {"username": text_of(self.username), "password": password}
            return {"grant_type": "password", **user, **self._client_form()}
        return {"grant_type": "client_credentials", **self._client_form()}

    def _claims(self, now_s: float) -> dict[str, Any]:
        return {
            "iss": self.client_id,
            "sub": self.username,
            "aud": self.audience or self.login_url,
            "exp": int(now_s) + ASSERTION_LIFETIME_S,
        }

    def _named(self, object_name: str, kind: str, others: Mapping[str, str]) -> str | None:
        own = getattr(self, f"{object_name.lower()}_{kind}", None)
        if own is not None:
            return str(own)
        return next((field for name, field in others.items() if name.lower() == object_name.lower()), None)


def text_of(part: object) -> str:
    """Return a part of the credential as text; an empty one if it is missing."""
    if isinstance(part, SecretStr):
        return part.get_secret_value()
    if isinstance(part, dict):
        return json.dumps(part, sort_keys=True)
    return part if isinstance(part, str) else ""
