"""The parameters of `http.request`, checked before a byte leaves."""

import math
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from connectors.http_request.body import Part, Scalar, bytes_of
from connectors.http_request.path import encode_path
from connectors.sdk import Personal
from connectors.sdk.http import TRANSPORT_HEADERS, encode_query, header_fault

#: Seconds a job can ask for at most.
MAX_TIMEOUT_S: Final = 60.0
#: Characters of the whole URL: what every server takes.
MAX_URL_CHARS: Final = 4096
MAX_HEADERS: Final = 64
MAX_HEADER_CHARS: Final = 4096

#: Headers a job may not set: they decide who asks, through whom, or what the method means.
_RESERVED_HEADERS: Final = TRANSPORT_HEADERS | {
    "accept-encoding",
    "authorization",
    "cookie",
    "forwarded",
    "idempotency-key",
    "set-cookie",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
}
_RESERVED_PREFIXES: Final = ("proxy-", "x-forwarded-")
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class RequestParams(BaseModel):
    """One request to the credential's API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method = Field(examples=["GET"])
    path: str = Field(
        description="Begins with /, below base_url; a % stands for an escape.", examples=["/orders/17"]
    )
    # What is sent is somebody's business: what of it is personal is not known here.
    query: Personal[dict[str, Scalar | list[Scalar]]] = Field(default={}, examples=[{"limit": 10}])
    headers: dict[str, str] = {}
    json_body: Personal[Any] = Field(default=None, alias="json", description="A JSON value to send.")
    body: Personal[str | None] = Field(
        default=None, description="Text to send; its type by the header Content-Type."
    )
    form: Personal[dict[str, Scalar | list[Scalar]] | None] = Field(
        default=None, description="A form to send, as application/x-www-form-urlencoded."
    )
    multipart: Personal[dict[str, Scalar | Part | list[Scalar | Part]] | None] = Field(
        default=None,
        description="A form with files to send, as multipart/form-data: each name's text, file, or several.",
    )
    base64: Personal[str | None] = Field(
        default=None, description="Bytes to send, in base64; their type by the header Content-Type."
    )
    parse_json: bool = Field(default=False, description="Read the answer as JSON, whatever its type says.")
    timeout_s: float = Field(default=30.0, gt=0, le=MAX_TIMEOUT_S, description="Seconds for the whole call.")

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        return encode_path(path)

    @field_validator("query", "form", "multipart")
    @classmethod
    def _check_numbers(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        for value in (fields or {}).values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, float) and not math.isfinite(item):
                    raise ValueError("must have finite numbers")
        return fields

    @field_validator("base64")
    @classmethod
    def _check_base64(cls, text: str | None) -> str | None:
        if text is not None:
            bytes_of(text)
        return text

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        if len(headers) > MAX_HEADERS:
            raise ValueError(f"must have at most {MAX_HEADERS} headers")
        for name, value in headers.items():
            if (issue := header_fault(name, value)) is not None:
                raise ValueError(issue)
            if name.lower() in _RESERVED_HEADERS or name.lower().startswith(_RESERVED_PREFIXES):
                raise ValueError(f"{name} is not for a job to set")
            if len(value) > MAX_HEADER_CHARS:
                raise ValueError(f"the value of {name} is over {MAX_HEADER_CHARS} characters")
        if len({name.lower() for name in headers}) < len(headers):
            raise ValueError("must name each header once, whatever its case")
        return headers

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if len(self.url) > MAX_URL_CHARS:
            raise ValueError(f"path and query have more than {MAX_URL_CHARS} characters")
        given = [name for name in ("body", "form", "multipart", "base64") if getattr(self, name) is not None]
        given += ["json"] if self.has_json else []
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.method in {"GET", "HEAD"} and given:
            raise ValueError(f"{self.method} carries no body")
        return self

    @property
    def url(self) -> str:
        """The path and the query, encoded."""
        return f"{self.path}?{encode_query(self.query)}" if self.query else self.path

    @property
    def has_json(self) -> bool:
        """Return whether a JSON value is to be sent, null included."""
        return "json_body" in self.model_fields_set
