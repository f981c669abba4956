"""A signed statement of who asks for a token (RFC 7523): the JWT that a key of ours signs."""

import base64
import json
from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from connectors.sdk.errors import CredentialInvalid, Detail, Sent


async def sign_assertion(
    private_key: SecretStr,
    claims: Mapping[str, Any],
    *,
    key_id: str | None = None,
    field: str = "private_key",
) -> str:
    """Return the claims as a JWT, signed with RS256.

    Args:
        private_key: an RSA key as PEM, without a password; line breaks may be written as `\\n`.
        key_id: the key's name at the provider.
        field: the credential's field that holds the key, to be named if it is not one.

    Raises:
        CredentialInvalid: the key cannot be read as an RSA key; it is never quoted.
    """
    header = {"alg": "RS256", "typ": "JWT", **({} if key_id is None else {"kid": key_id})}
    signed = b".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
    # Reading a key takes some 80 ms: not on the loop.
    signature = await to_thread(_sign, private_key.get_secret_value(), signed, field)
    return b".".join((signed, _url64(signature))).decode()


def _sign(pem: str, data: bytes, field: str) -> bytes:
    # Here, so that the base install does without: the extra [jwt] brings it.
    try:
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: PLC0415
    except ImportError:
        raise CredentialInvalid(
            "a signed assertion needs the package cryptography: install connectors-service[jwt]", sent=Sent.NO
        ) from None
    try:
        key = serialization.load_pem_private_key(pem.replace("\\n", "\n").encode(), password=None)
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    except Exception:  # noqa: S110  # whatever the library says, it may quote the key
        pass
    issue = "cannot be read as an RSA key in PEM without a password"
    raise CredentialInvalid(f"{field} {issue}", details=[Detail(field=field, issue=issue)], sent=Sent.NO)


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
