"""The keyring: the master keys of the table of credentials, in a file that lies apart from the database."""

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from worker.credentials.sealing import KEY_BYTES, SealBroken, open_sealed, seal
from worker.settings import SettingError

#: A keyring of a thousand keys is smaller.
_MAX_BYTES: Final = 64 * 1024
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HOW: Final = 'one line for each key, `id base64(32 bytes)`: echo "k1 $(openssl rand -base64 32)"'


class WrappedKey(NamedTuple):
    """A key encrypted under a master key."""

    master_key: str
    wrapped: bytes


class MasterKeyMissing(Exception):
    """A master key is not in the keyring; the message is its id."""


class KeyWrapper(Protocol):
    """What encrypts the tenants' keys: a keyring, or a service that gives its master key to no one."""

    @property
    def writing_key(self) -> str:
        """The id of the master key that new keys are wrapped under."""
        ...

    async def wrap(self, key: bytes, *place: str) -> WrappedKey:
        """Encrypt a key for its place.

        Raises:
            VaultUnavailable: it does not answer.
        """
        ...

    async def unwrap(self, wrapped: WrappedKey, *place: str) -> bytes:
        """Decrypt what `wrap` returned.

        Raises:
            SealBroken: it is not for this place, or was changed.
            MasterKeyMissing: its master key is not here.
            VaultUnavailable: it does not answer.
        """
        ...


class Keyring:
    """Master keys by their ids: the first wraps, all of them unwrap.

    The file is read again when a key is asked for that it did not hold: workers learn a new key without a restart.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys = read_keyring(file)

    @property
    def writing_key(self) -> str:
        """The id of the first key in the file."""
        return next(iter(self._keys))

    async def wrap(self, key: bytes, *place: str) -> WrappedKey:
        """Encrypt a key under the first master key."""
        master_key = self.writing_key
        return WrappedKey(master_key, seal(self._keys[master_key], key, "key", master_key, *place))

    async def unwrap(self, wrapped: WrappedKey, *place: str) -> bytes:
        """Decrypt a key."""
        master_key = wrapped.master_key
        if master_key not in self._keys:
            self._keys = read_keyring(self._file)
        if master_key not in self._keys:
            raise MasterKeyMissing(master_key)
        key = open_sealed(self._keys[master_key], wrapped.wrapped, "key", master_key, *place)
        if len(key) != KEY_BYTES:
            raise SealBroken
        return key


def read_keyring(file: Path) -> dict[str, bytes]:
    """Read the keys of a file, in its order.

    Raises:
        SettingError: it cannot be read, others may read it, or a line is no key; the line's number, not the line.
    """

    def fault(issue: str) -> SettingError:
        return SettingError(f"CONNECTORS_KEYRING_FILE: {file} {issue}")

    if file.exists() and not file.is_file():
        raise fault("is no file")
    try:
        with file.open("rb") as opened:
            found = os.fstat(opened.fileno())
            text = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}") from None
    if found.st_mode & 0o077:
        raise fault(f"may be read by others (mode {stat.S_IMODE(found.st_mode):04o}); chmod 600 it")
    if len(text) > _MAX_BYTES:
        raise fault("is too large for a keyring")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = _key(words[-1]) if len(words) == 2 and _ID.fullmatch(words[0]) else None
        if key is None:
            raise fault(f"has no key in line {number}; it holds {_HOW}")
        if words[0] in keys:
            raise fault(f"has the id {words[0]} twice, in line {number} again")
        if key in keys.values():
            raise fault(f"has one key under two ids, in line {number} again")
        keys[words[0]] = key
    if not keys:
        raise fault(f"has no key; it holds {_HOW}")
    return keys


def _key(text: str) -> bytes | None:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return key if len(key) == KEY_BYTES and any(key) else None
