"""Sealing bytes to their place: AES-256-GCM under a key used once, with a commitment to that key."""

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
_FORMAT: Final = b"\x01"
_SALT_BYTES: Final = 32
_COMMITMENT_BYTES: Final = 32
#: As NIST SP 800-38D advises for GCM.
_NONCE_BYTES: Final = 12
_HEADER_BYTES: Final = len(_FORMAT) + _SALT_BYTES + _COMMITMENT_BYTES + _NONCE_BYTES


class SealBroken(Exception):
    """Sealed bytes do not open: another key, another place, or they were changed. Which one cannot be told."""


def new_key() -> bytes:
    """Return a random key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plain: bytes, *place: str) -> bytes:
    """Encrypt bytes so that they open with this key and at this place alone.

    Each call derives a key of its own from a random salt (HKDF, RFC 5869), so that no nonce ever repeats under a
    key. GCM by itself commits to no key: a ciphertext can be made that opens under two. The derived commitment,
    compared before anything is decrypted, rules that out.

    Args:
        key: 32 bytes.
        place: what the bytes are, and where they lie; bound as associated data.

    Returns: format (1), salt (32), commitment (32), nonce (12), then the ciphertext and its tag (16).
    """
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    once, commitment = _derive(key, salt)
    return _FORMAT + salt + commitment + nonce + AESGCM(once).encrypt(nonce, plain, _joined(place))


def open_sealed(key: bytes, sealed: bytes, *place: str) -> bytes:
    """Decrypt what `seal` returned.

    Raises:
        SealBroken.
    """
    if len(sealed) < _HEADER_BYTES or sealed[:1] != _FORMAT:
        raise SealBroken
    salt, rest = sealed[1 : 1 + _SALT_BYTES], sealed[1 + _SALT_BYTES :]
    commitment, rest = rest[:_COMMITMENT_BYTES], rest[_COMMITMENT_BYTES:]
    nonce, ciphertext = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
    once, expected = _derive(key, salt)
    if not hmac.compare_digest(commitment, expected):
        raise SealBroken
    try:
        return AESGCM(once).decrypt(nonce, ciphertext, _joined(place))
    except InvalidTag:
        raise SealBroken from None


def _derive(key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    length = KEY_BYTES + _COMMITMENT_BYTES
    derived = HKDF(hashes.SHA256(), length, salt, b"connectors-service sealed bytes, format 1").derive(key)
    return derived[:KEY_BYTES], derived[KEY_BYTES:]


def _joined(place: tuple[str, ...]) -> bytes:
    """Return the parts behind their lengths: no two places read alike."""
    parts = [part.encode() for part in place]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
