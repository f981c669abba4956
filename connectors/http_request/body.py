"""The bodies that a job can send beside JSON and text: bytes, and forms with files."""

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from connectors.sdk.http import header_fault

Scalar = str | int | float | bool


class Part(BaseModel):
    """One part of a multipart body: a text or a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    base64: str | None = Field(default=None, description="Its bytes, in place of text.")
    filename: str | None = Field(default=None, max_length=255)
    content_type: str | None = Field(default=None, examples=["application/pdf"])

    @field_validator("content_type")
    @classmethod
    def _check_type(cls, content_type: str | None) -> str | None:
        if content_type is not None and (issue := header_fault("Content-Type", content_type)) is not None:
            raise ValueError(issue)
        return content_type

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("must have either text or base64")
        if self.base64 is not None:
            bytes_of(self.base64)
        return self

    def content(self) -> bytes:
        """Return what the part holds."""
        return (self.text or "").encode() if self.base64 is None else bytes_of(self.base64)


Parts = Mapping[str, Scalar | Part | list[Scalar | Part]]


def bytes_of(text: str) -> bytes:
    """Return the bytes that a text holds in base64.

    Raises:
        ValueError: it is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None


def encode_multipart(fields: Parts) -> tuple[bytes, str]:
    """Return the body and its content type (RFC 7578).

    The boundary is made of the content, so that a repeat sends the same bytes: an API that knows keys may
    compare them.
    """
    parts = [_encode_part(name, value) for name, value in _listed(fields)]
    boundary = hashlib.sha256(b"".join(head + content for head, content in parts)).hexdigest()[:48]
    lines = [b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head, content) for head, content in parts]
    body = b"".join(lines) + b"--%s--\r\n" % boundary.encode()
    return body, f"multipart/form-data; boundary={boundary}"


def _listed(fields: Parts) -> Iterator[tuple[str, Scalar | Part]]:
    for name, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            yield name, item


def _encode_part(name: str, value: Scalar | Part) -> tuple[bytes, bytes]:
    part = value if isinstance(value, Part) else Part(text=_text_of(value))
    head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
    if part.filename is not None:
        head += f'; filename="{_quoted(part.filename)}"'
    content_type = part.content_type or (None if part.base64 is None else "application/octet-stream")
    if content_type is not None:
        head += f"\r\nContent-Type: {content_type}"
    return head.encode(), part.content()


def _text_of(value: Scalar) -> str:
    # As in a query: true and false, and numbers as they are written.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(name: str) -> str:
    """Escape a name as browsers do."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
