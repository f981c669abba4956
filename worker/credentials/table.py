"""The encrypted table of credentials: each document under its tenant's key, each tenant's key under a master key.

    master key     in the keyring's file (or a service), never in the database
    └── tenant key       one row a tenant; encrypted under a master key
        └── document     one row a version; under a key of its own, derived for that row

Every ciphertext is bound to its place: a row that is copied, rolled back or changed does not open. What does not open
is never data, and there is no clear text to fall back on.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final, NamedTuple

from pydantic import JsonValue

from connectors.sdk.errors import CredentialInvalid, CredentialNotFound
from worker.credentials import table_schema as schema
from worker.credentials.keyring import KeyWrapper, MasterKeyMissing, WrappedKey
from worker.credentials.sealing import KEY_BYTES, SealBroken, new_key, open_sealed, seal
from worker.credentials.source import CredentialName, SecretFields, SecretUnavailable
from worker.credentials.table_database import TableDatabase
from worker.credentials.table_schema import Deed, New, StoredRows, TenantKey
from worker.settings import SettingError

#: Bytes of a document, as JSON.
MAX_DOCUMENT_BYTES: Final = 256 * 1024
#: Tries to write a version while others write, too.
_MOST_COLLISIONS: Final = 10
#: Tenants' keys that are kept decrypted in memory.
_MOST_KEYS: Final = 1000
_SENTINEL: Final = b"connectors-service master key"


class Version(NamedTuple):
    """A document, and which version of it this is."""

    number: int
    fields: SecretFields


class CredentialTable:
    """Reads and writes sealed documents.

    Args:
        actor: who writes, in the audit.
    """

    def __init__(
        self,
        database: TableDatabase,
        wrapper: KeyWrapper,
        *,
        actor: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.database: Final = database
        self.wrapper: Final = wrapper
        self._actor = actor
        self._now = now
        #: Tenants' keys in the clear, by how they are stored: another row, another key.
        self._keys: dict[tuple[str, TenantKey], bytes] = {}
        #: The newest version seen, and the tenant key it was seen under.
        self._seen: dict[CredentialName, tuple[bytes, int]] = {}

    async def start(self) -> None:
        """Create the tables, and prove that the keyring opens what they hold.

        Raises:
            SettingError: a master key is missing, or is another one of the same id; the message names the id.
        """
        is_sqlite = self.database.is_sqlite
        await self.database.transact(partial(schema.create_tables, is_sqlite=is_sqlite))
        known = await self.database.transact(schema.sentinels)
        in_use = await self.database.transact(schema.count_by_master_key)
        for master_key, sentinel in known.items():
            await self._check_master_key(master_key, sentinel, in_use.get(master_key, 0))
        if (writing := self.wrapper.writing_key) not in known:
            _, sealed = await self._wrap_sentinel()
            await self.database.transact(lambda: schema.add_sentinel(writing, sealed))

    async def probe(self) -> None:
        """Return if the tables can be read.

        Raises:
            VaultUnavailable.
        """
        await self.database.transact(schema.sentinels)

    async def read(self, name: CredentialName) -> Version:
        """Read the newest version.

        Raises:
            CredentialNotFound: there is none.
            CredentialInvalid: what is stored does not open; it is never used.
            SecretUnavailable: a master key is missing here.
        """
        found = await self.database.transact(partial(schema.find, name))
        key = await self._open_key(name, found)
        if found.is_deleted:
            raise CredentialNotFound(
                f"no {name}; store one with: connectors credentials put {name.connector} FILE"
            )
        if found.document is None or key is None:
            raise _broken(name)
        try:
            plain = open_sealed(key, found.document, "document", *name, str(found.version))
        except SealBroken:
            raise _broken(name) from None
        return Version(found.version, SecretFields(json.loads(plain)))

    async def put(
        self, name: CredentialName, fields: Mapping[str, JsonValue], *, only_after: int | None = None
    ) -> int | None:
        """Store a document as the next version; return its number.

        Args:
            only_after: write nothing, and return None, unless this is the newest version.

        Raises:
            CredentialInvalid: it is too large, or an older version does not open.
        """
        plain = json.dumps(dict(fields), ensure_ascii=False, separators=(",", ":")).encode()
        if len(plain) > MAX_DOCUMENT_BYTES:
            raise CredentialInvalid(f"{name}: the document is larger than {MAX_DOCUMENT_BYTES} bytes")
        return await self._write(name, plain, only_after)

    async def delete(self, name: CredentialName) -> None:
        """Remove every version; the count goes on, so that an old row is never the newest one.

        Raises:
            CredentialNotFound: there is none.
        """
        await self._write(name, None, None)

    async def names(self) -> list[CredentialName]:
        """List every credential."""
        return await self.database.transact(schema.list_names)

    async def shred(self, tenant: str) -> bool:
        """Delete a tenant's key: whatever was stored for it, also in backups of the documents, opens no more.

        Returns whether there was a key.
        """
        deed = self._deed("shred", CredentialName(tenant, "", ""))
        return await self.database.transact(lambda: schema.shred(tenant, deed))

    async def note(self, deed: str, name: CredentialName, version: int | None = None) -> None:
        """Write down that a person read something."""
        row = self._deed(deed, name)._replace(version=version)
        await self.database.transact(lambda: schema.audit(row))

    async def _write(self, name: CredentialName, plain: bytes | None, only_after: int | None) -> int | None:
        for _ in range(_MOST_COLLISIONS):
            found = await self.database.transact(partial(schema.find, name))
            key = await self._open_key(name, found)
            if plain is None and found.is_deleted:
                raise CredentialNotFound(f"no {name}")
            if only_after is not None and (found.is_deleted or found.version != only_after):
                return None
            stored = found.key
            if key is None or stored is None:
                key = new_key()
                stored = TenantKey(*await self.wrapper.wrap(key, "tenant", name.tenant))
            version = found.version + 1
            document = None if plain is None else seal(key, plain, "document", *name, str(version))
            state = "deleted" if plain is None else "present"
            head = seal(key, b"", "head", *name, str(version), state)
            deed = self._deed("delete" if plain is None else "put", name)
            write = partial(schema.store, name, found, New(stored, document, head), deed)
            if await self.database.transact(write):
                self._seen[name] = (key, version)
                return version
        raise SecretUnavailable(f"{name} is being changed by others all the time")

    async def _open_key(self, name: CredentialName, found: StoredRows) -> bytes | None:
        """Return the tenant's key if the head opens with it; None if nothing was stored so far.

        Raises:
            CredentialInvalid: something does not open, or an older state was put back.
        """
        if found.key is None:
            if found.version:
                raise _broken(name)
            return None
        key = await self._tenant_key(name, found.key)
        if found.version:
            state = "deleted" if found.is_deleted else "present"
            try:
                open_sealed(key, found.seal, "head", *name, str(found.version), state)
            except SealBroken:
                raise _broken(name) from None
        seen_key, seen_version = self._seen.get(name, (b"", 0))
        if seen_key == key and found.version < seen_version:
            raise CredentialInvalid(
                f"{name}: version {found.version} was put back in the place of version {seen_version}; it is not used"
            )
        if found.version:
            self._seen[name] = (key, found.version)
        return key

    async def _tenant_key(self, name: CredentialName, stored: TenantKey) -> bytes:
        known = self._keys.get((name.tenant, stored))
        if known is not None:
            return known
        try:
            key = await self.wrapper.unwrap(WrappedKey(*stored), "tenant", name.tenant)
        except SealBroken:
            raise CredentialInvalid(
                f"the key of tenant {name.tenant!r} does not open: its row was copied or changed"
            ) from None
        except MasterKeyMissing as missing:
            raise SecretUnavailable(
                f"the master key {str(missing)!r} is not in this worker's keyring, and the key of tenant "
                f"{name.tenant!r} is under it"
            ) from None
        while len(self._keys) >= _MOST_KEYS:
            self._keys.pop(next(iter(self._keys)))
        self._keys[name.tenant, stored] = key
        return key

    async def _check_master_key(self, master_key: str, sentinel: bytes, tenants: int) -> None:
        try:
            await self.wrapper.unwrap(WrappedKey(master_key, sentinel), "sentinel")
        except MasterKeyMissing:
            if tenants:
                raise SettingError(
                    f"CONNECTORS_KEYRING_FILE lacks the master key {master_key!r}, which the keys of "
                    f"{tenants} tenants are under; add its line"
                ) from None
        except SealBroken:
            raise SettingError(
                f"CONNECTORS_KEYRING_FILE: {master_key!r} is another key than the one of that id which wrote "
                "the table; put that one back"
            ) from None

    async def _wrap_sentinel(self) -> WrappedKey:
        return await self.wrapper.wrap(_SENTINEL.ljust(KEY_BYTES, b"."), "sentinel")

    def _deed(self, deed: str, name: CredentialName) -> Deed:
        return Deed(self._now().isoformat(timespec="seconds"), self._actor, deed, name, None)


def _broken(name: CredentialName) -> CredentialInvalid:
    return CredentialInvalid(
        f"{name} does not open: its row was copied, rolled back or changed; it is not used. "
        "Put it anew, and look who can write the table"
    )
