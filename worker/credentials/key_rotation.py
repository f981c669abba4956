"""Wrapping every tenant's key under the newest master key, while workers run."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from worker.credentials import table_schema as schema
from worker.credentials.keyring import KeyWrapper, MasterKeyMissing, WrappedKey
from worker.credentials.sealing import SealBroken
from worker.credentials.table_database import TableDatabase
from worker.credentials.table_schema import TenantKey

#: Keys that are wrapped anew in one transaction.
BATCH: Final = 100


@dataclass(slots=True)
class RotationState:
    """How far a rotation has come."""

    master_key: str
    #: Keys that are under the newest master key: wrapped now, and before.
    done: int = 0
    already: int = 0
    #: Keys that are not so far.
    left: int = 0
    #: Tenants whose key does not open, and why.
    failed: dict[str, str] = field(default_factory=dict)
    #: Master keys that no tenant's key is under any more.
    free: list[str] = field(default_factory=list)


class KeyRotation:
    """Wraps keys anew, in batches; what is done stays done, so that a rotation which died is begun again.

    A key is changed only where its row is still the one that was read. Documents are not touched: they are under
    their tenant's key, which stays the same.
    """

    def __init__(self, database: TableDatabase, wrapper: KeyWrapper) -> None:
        self._database = database
        self._wrapper = wrapper

    async def run(self, on_progress: Callable[[RotationState], None]) -> RotationState:
        """Wrap all keys, then read every one back and count what is under which master key."""
        rotation = RotationState(self._wrapper.writing_key)
        counts = await self._database.transact(schema.count_by_master_key)
        rotation.left = sum(counts.values()) - counts.get(rotation.master_key, 0)
        rotation.already = counts.get(rotation.master_key, 0)
        async for tenant_keys in self._batches():
            stale = [each for each in tenant_keys if each[1].master_key != rotation.master_key]
            await self._wrap(stale, rotation)
            on_progress(rotation)
        await self._verify(rotation)
        counts = await self._database.transact(schema.count_by_master_key)
        rotation.left = sum(counts.values()) - counts.get(rotation.master_key, 0)
        known = await self._database.transact(schema.sentinels)
        rotation.free = sorted(known.keys() - {*counts, rotation.master_key})
        for master_key in rotation.free:
            await self._database.transact(partial(schema.forget_sentinel, master_key))
        return rotation

    async def _batches(self) -> AsyncIterator[list[tuple[str, TenantKey]]]:
        """Read all tenants' keys, in the order of the tenants' names."""
        last = ""
        while True:
            found = await self._database.transact(partial(schema.tenant_keys_after, last, BATCH))
            if not found:
                return
            yield found
            last = found[-1][0]

    async def _wrap(self, stale: list[tuple[str, TenantKey]], rotation: RotationState) -> None:
        changes = []
        for tenant, old in stale:
            key = await self._opened(tenant, old, rotation)
            if key is not None:
                changes.append((tenant, old, TenantKey(*await self._wrapper.wrap(key, "tenant", tenant))))
        if changes:
            done = await self._database.transact(partial(schema.rewrap, changes))
            rotation.done += done
            rotation.left -= done

    async def _verify(self, rotation: RotationState) -> None:
        async for tenant_keys in self._batches():
            for tenant, stored in tenant_keys:
                await self._opened(tenant, stored, rotation)

    async def _opened(self, tenant: str, stored: TenantKey, rotation: RotationState) -> bytes | None:
        try:
            return await self._wrapper.unwrap(WrappedKey(*stored), "tenant", tenant)
        except SealBroken:
            rotation.failed[tenant] = "its row was copied or changed"
        except MasterKeyMissing as missing:
            rotation.failed[tenant] = f"its master key {str(missing)!r} is not in the keyring"
        return None
