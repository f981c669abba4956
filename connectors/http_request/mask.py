"""Remove the credential from an answer, should the API echo what it was sent."""

import json
from collections.abc import Iterable
from urllib.parse import quote


class Mask:
    """Replace secrets, in the forms in which an API may echo them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {
            form
            for secret in secrets
            for form in (secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1])
        }
        # The longest first: one form may hold another.
        self._forms = sorted(map(str.encode, forms), key=len, reverse=True)

    def bytes(self, content: bytes) -> bytes:
        """Return a body without the secrets."""
        for form in self._forms:
            content = content.replace(form, b"***")
        return content

    def text(self, text: str) -> str:
        """Return a header's value without the secrets."""
        return self.bytes(text.encode()).decode()
