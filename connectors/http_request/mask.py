"""Remove the credential from an answer, should the API echo what it was sent.

What is read is masked, not what came: JSON's escapes and a text's charset are undone by then. Left to find are
the spellings inside a text: percent-encoded, as HTML, as JSON in a string, and as base64.
"""

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

_ESCAPE: Final = re.compile(r"%[0-9A-F]{2}")


class Mask:
    """Replace secrets, in the spellings in which an API may echo them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {spelling for secret in secrets for spelling in _spellings_of(secret)}
        # The longest first: one spelling may hold another. Not one pattern: that takes seconds for 10 MiB.
        self._spellings = sorted(spellings, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for spelling in self._spellings:
            text = text.replace(spelling, "***")
        return text

    def bytes(self, content: bytes) -> bytes:
        """Return bytes that are no text without the secrets."""
        for spelling in self._spellings:
            content = content.replace(spelling.encode("utf-8", "surrogatepass"), b"***")
        return content

    def value(self, value: Any) -> Any:
        """Return a JSON value without the secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            return {self.text(name): self.value(item) for name, item in value.items()}
        return value


def _spellings_of(secret: str) -> Iterable[str]:
    inner, percent = json.dumps(secret)[1:-1], quote(secret, safe="")
    yield from (secret, secret.lower(), inner, inner.replace("/", "\\/"), html.escape(secret))
    yield from (
        percent,
        _ESCAPE.sub(lambda escape: escape[0].lower(), percent),
        quote(secret),
        quote_plus(secret),
    )
    encoded = secret.encode("utf-8", "surrogatepass")
    for offset in range(3):
        # In base64 three bytes are four characters: what stands before decides how a secret is spelt. The
        # characters at both ends belong to its neighbours, too.
        spelt = base64.b64encode(bytes(offset) + encoded).decode().rstrip("=")
        yield spelt[4 if offset else 0 : len(spelt) - 1]
