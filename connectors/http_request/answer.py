"""What `http.request` answers, and how a body is read."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field
from pydantic_core import from_json

from connectors.http_request.mask import Mask
from connectors.sdk.http import decode_text

if TYPE_CHECKING:
    import httpx

#: How much of a body a reply holds beside the headers: 1 MiB in all.
MAX_ANSWER_BYTES: Final = 2**20 - 65_536
#: How much of a refusal's body `error.data` quotes.
MAX_QUOTED_BYTES: Final = 8192

_JSON_TYPE: Final = re.compile(r"application/([a-z0-9.+-]*\+)?json|text/json")
_TEXT_TYPE: Final = re.compile(
    r"text/.*|application/([a-z0-9.+-]*\+)?(xml|yaml)|application/(javascript|x-www-form-urlencoded|graphql)"
)
#: Digits or an exponent that a float cannot hold.
_HUGE_NUMBER: Final = re.compile(r"[0-9][eE]\+?[0-9]{3}|[0-9]{300}")


class HttpResult(BaseModel):
    """What the API answered."""

    status: int
    headers: dict[str, str] = Field(description="Names in lower case, repeated ones joined by commas.")
    body: Any = Field(description="JSON, text, {base64} or null.")
    body_truncated: bool = Field(
        default=False, description="The write succeeded, and its answer was too large to be passed on."
    )


def read_body(response: "httpx.Response", mask: Mask, *, parse_json: bool = False) -> Any:
    """Return a body as JSON, text or base64, without secrets; None if there is none.

    Args:
        parse_json: read it as JSON whatever its type says.
    """
    content = response.content
    if not content:
        return None
    content_type = response.headers.get("content-type", "").lower()
    media_type = content_type.partition(";")[0].strip()
    text = decode_text(content, content_type)
    is_json = _JSON_TYPE.fullmatch(media_type) is not None
    if text is not None and (parse_json or is_json):
        try:
            value = _read_json(mask.text(text))
            # Only an escape can hide a secret from the text.
            return mask.value(value) if "\\" in text else value
        except ValueError:
            return mask.text(text)
    is_text = is_json or _TEXT_TYPE.fullmatch(media_type) or "charset=" in content_type
    if text is None or (not is_text and "\0" in text):
        return _as_base64(mask.bytes(content))
    return mask.text(text)


def quote_body(response: "httpx.Response", mask: Mask, *, parse_json: bool = False) -> Any:
    """Return a refusal's body as it is, or as text cut short; without secrets."""
    if len(response.content) <= MAX_QUOTED_BYTES:
        return read_body(response, mask, parse_json=parse_json)
    text = decode_text(response.content, response.headers.get("content-type", ""))
    if text is None:
        return _as_base64(mask.bytes(response.content)[: MAX_QUOTED_BYTES * 3 // 4])
    return mask.text(text).encode()[:MAX_QUOTED_BYTES].decode(errors="ignore")


def _as_base64(content: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(content).decode()}


def _read_json(text: str) -> Any:
    """Read JSON that can be written again: no NaN, no infinity (`1e999` would become one)."""
    value = from_json(text, allow_inf_nan=False)
    if _HUGE_NUMBER.search(text):
        json.dumps(value, allow_nan=False)
    return value
