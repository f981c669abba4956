"""What `http.request` answers, and how a body is read."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field
from pydantic_core import from_json

from connectors.sdk.http import charset_of

if TYPE_CHECKING:
    import httpx

#: How much of a refusal's body `error.data` quotes.
MAX_QUOTED_BYTES: Final = 8192

_JSON_TYPE: Final = re.compile(r"application/([a-z0-9.+-]*\+)?json|text/json")
_TEXT_TYPE: Final = re.compile(
    r"text/.*|application/([a-z0-9.+-]*\+)?(xml|yaml)|application/(javascript|x-www-form-urlencoded|graphql)"
)
#: Digits or an exponent that a float cannot hold.
_HUGE_NUMBER: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


class HttpResult(BaseModel):
    """What the API answered."""

    status: int
    headers: dict[str, str] = Field(description="Names in lower case, repeated ones joined by commas.")
    body: Any = Field(description="JSON, text, {base64} or null.")


def read_body(content: bytes, response: "httpx.Response") -> Any:
    if not content:
        return None
    content_type = response.headers.get("content-type", "").lower()
    media_type = content_type.partition(";")[0].strip()
    charset = charset_of(content_type)
    if _JSON_TYPE.fullmatch(media_type):
        try:
            return _read_json(content if charset == "utf-8" else content.decode(charset).encode())
        except ValueError:
            return content.decode(charset, "replace")
    if _TEXT_TYPE.fullmatch(media_type) or "charset=" in content_type:
        return content.decode(charset, "replace")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(content).decode()} if "\0" in text else text


def quote_body(content: bytes, response: "httpx.Response") -> Any:
    """Give a refusal's body as it is, or as text cut short."""
    if len(content) <= MAX_QUOTED_BYTES:
        return read_body(content, response)
    text = content[:MAX_QUOTED_BYTES].decode(charset_of(response.headers.get("content-type", "")), "ignore")
    return text.encode()[:MAX_QUOTED_BYTES].decode(errors="ignore")


def _read_json(content: bytes) -> Any:
    """Read JSON that can be written again: no NaN, no infinity (`1e999` would become one)."""
    value = from_json(content.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
    if _HUGE_NUMBER.search(content):
        json.dumps(value, allow_nan=False)
    return value
