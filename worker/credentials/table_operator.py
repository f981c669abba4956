"""What `connectors credentials` does to the encrypted table."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Self, TypeVar

from pydantic import JsonValue

from worker.credentials.key_rotation import KeyRotation, RotationState
from worker.credentials.source import CredentialName
from worker.credentials.table import CredentialTable

ResultT = TypeVar("ResultT")


class TableOperator:
    """Store, list and delete secrets; synchronous, for a command that does one thing and ends.

    Every method raises:
        SettingError: the keyring does not fit, or the database refuses us.
        CredentialNotFound, CredentialInvalid: the names cannot be, are not there, or do not open.
        VaultUnavailable: the database does not answer.
    """

    def __init__(self, table: Callable[[], CredentialTable]) -> None:
        self._table = table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""

    def put(self, tenant: str, connector: str, credential: str, secret: Mapping[str, JsonValue]) -> int:
        """Store a secret as a new version; return the version's number."""
        name = CredentialName.checked(tenant, connector, credential)
        return self._do(lambda table: table.put(name, secret)) or 0

    def names(self, tenant: str, connector: str) -> list[str]:
        """List the credentials that a tenant has for a connector."""
        return [each.credential for each in self._all() if each[:2] == (tenant, connector)]

    def connectors(self, tenant: str) -> list[str]:
        """List the connectors that a tenant has credentials for."""
        return sorted({each.connector for each in self._all() if each.tenant == tenant})

    def tenants(self) -> list[str]:
        """List the tenants that have credentials."""
        return sorted({each.tenant for each in self._all()})

    def delete(self, tenant: str, connector: str, credential: str) -> None:
        """Remove a secret with all its versions."""
        name = CredentialName.checked(tenant, connector, credential)
        self._do(lambda table: table.delete(name))

    def note(self, deed: str, tenant: str, connector: str, credential: str) -> None:
        """Write into the audit that a person read a secret, or had it read."""
        name = CredentialName.checked(tenant, connector, credential)
        self._do(lambda table: table.note(deed, name))

    def shred(self, tenant: str) -> bool:
        """Delete a tenant's key: its secrets open no more, nor do their backups. Return whether there was one."""
        return self._do(lambda table: table.shred(tenant))

    def rotate_key(self, on_progress: Callable[[RotationState], None]) -> RotationState:
        """Wrap every tenant's key under the first key of the keyring."""
        return self._do(lambda table: KeyRotation(table.database, table.wrapper).run(on_progress))

    def _all(self) -> list[CredentialName]:
        return self._do(lambda table: table.names())

    def _do(self, work: Callable[[CredentialTable], Awaitable[ResultT]]) -> ResultT:
        async def run() -> ResultT:
            table = self._table()
            try:
                await table.start()
                return await work(table)
            finally:
                await table.database.close()

        return asyncio.run(run())
