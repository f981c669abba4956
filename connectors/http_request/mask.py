"""Take the credential out of an answer, should the API echo what it was sent."""

import json
from urllib.parse import quote

from connectors.http_request.credential import HttpCredential


def mask(content: bytes, credential: HttpCredential) -> bytes:
    """Take out the credential, should the API echo what it was sent."""
    for secret in credential.secrets():
        for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}:
            content = content.replace(form.encode(), b"***")
    return content
