"""The secrets of a vault: a session that reads them, a cache that keeps them."""

import asyncio
import time
from collections.abc import Callable, Mapping

from loguru import logger
from pydantic import JsonValue

from connectors.sdk.errors import ConnectorError, CredentialDenied
from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.cache import CachePolicy, CredentialCache
from worker.credentials.source import (
    CredentialName,
    FetchOutcome,
    SecretFields,
    VaultUnavailable,
    ignore_outcome,
    secret_values,
)
from worker.credentials.vault_client import VaultClient
from worker.credentials.vault_config import VaultConfig
from worker.credentials.vault_policy import VAULT_POLICY, VaultPolicy
from worker.credentials.vault_session import THREADS, VaultSession, ignore_secret


class VaultCredentials:
    """Return secrets by name: the source of a worker with a vault.

    Args:
        on_fetch: called with how each read and each answer from memory ended.
        on_secret: called with every value that must not show up in a log, as soon as it is known.
    """

    def __init__(
        self,
        config: VaultConfig,
        *,
        policy: CachePolicy = CachePolicy(),  # noqa: B008  # frozen
        vault_policy: VaultPolicy = VAULT_POLICY,
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        on_secret: Callable[[str], None] = ignore_secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        client = VaultClient(config, connections=THREADS)
        self._session = VaultSession(
            client, timeout_s=config.timeout_s, policy=vault_policy, on_secret=on_secret
        )
        self._on_secret = on_secret
        self._keep_again_s = vault_policy.keep_again_s
        #: What is still to be stored, one task a secret: the newest token takes an older one's place.
        self._keeping: dict[CredentialName, asyncio.Task[None]] = {}
        self._cannot_write = False
        self._cache = CredentialCache(self._read, policy, on_fetch=on_fetch, clock=clock)

    @property
    def available(self) -> bool:
        """Whether a secret that is not cached can be had now."""
        return self.unavailable_reason is None

    @property
    def unavailable_reason(self) -> str | None:
        """Why not, in one phrase; None while available."""
        return self._session.availability.reason or self._session.mount_fault

    @property
    def pending_writes(self) -> int:
        """Rotated tokens that wait for the vault."""
        return len(self._keeping)

    async def start(self) -> None:
        """Log in; return even if the vault is unavailable.

        Raises:
            SettingError: the vault refuses the login: exit 78.
            VaultAuthError: a sign that a secret id was intercepted: exit 77.
        """
        try:
            await self._session.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop, and forget every secret."""
        keeping = list(self._keeping.values())
        for task in keeping:
            task.cancel()
        if keeping:
            await asyncio.wait(keeping)
            logger.warning("rotated tokens not stored", count=len(keeping), reason="the vault is unavailable")
        await self._cache.close()
        await self._session.close()

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, JsonValue]:
        """Return the fields of one secret; errors as in the protocol."""
        return await self._cache.fetch(CredentialName.checked(tenant, connector, credential))

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Drop a secret that the provider refused, so that the next fetch reads the vault."""
        self._cache.invalidate(CredentialName.checked(tenant, connector, credential), refused)

    async def keep(self, rotation: Rotation) -> None:
        """Store a rotated token; while the vault is unavailable, keep retrying behind the job.

        Without the right to write, the token lives on in memory, and one warning says what to grant.
        """
        self._on_secret(rotation.newest.get_secret_value())
        name = CredentialName.checked(*rotation.account)
        if (earlier := self._keeping.pop(name, None)) is not None:
            earlier.cancel()  # this rotation's older tokens include what that one stores
        if not await self._store(name, rotation):
            task = asyncio.create_task(self._store_later(name, rotation), name=f"keep {name.path}")
            self._keeping[name] = task

    async def may_write(self, name: CredentialName) -> bool:
        """Return whether a rotated token could be stored.

        Raises:
            VaultUnavailable.
        """
        return await self._session.may_write(name)

    async def is_stored(self, name: CredentialName, rotation: Rotation) -> bool:
        """Return whether the stored secret is past the older tokens, waiting for a store under way."""
        keeping = self._keeping.get(name)
        if keeping is not None:
            await asyncio.wait({keeping}, timeout=2 * self._keep_again_s)
        try:
            secret = await self.fetch(*name)
        except (ConnectorError, VaultUnavailable):
            return False
        return secret.get(rotation.field) not in {each.get_secret_value() for each in rotation.older}

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the vault is believed to answer again; False when the time is over."""
        return await self._session.availability.wait(timeout_s)

    async def _store_later(self, name: CredentialName, rotation: Rotation) -> None:
        while True:
            await asyncio.sleep(self._keep_again_s)
            if await self.wait_available(self._keep_again_s) and await self._store(name, rotation):
                self._keeping.pop(name, None)
                return

    async def _store(self, name: CredentialName, rotation: Rotation) -> bool:
        """Store once; True where there is nothing left to do."""
        try:
            stored = await self._session.replace(name, rotation)
        except VaultUnavailable as unavailable:
            logger.warning("rotated token not stored yet", secret=name.path, reason=unavailable.reason)
            return False
        except CredentialDenied as denied:
            if not self._cannot_write:
                self._cannot_write = True
                logger.warning(
                    "rotated token lives in memory alone",
                    secret=name.path,
                    reason=denied.message,
                    next="a restart needs it: grant the right, or authorize anew afterwards",
                )
            return True
        except ConnectorError as gone:
            logger.warning("rotated token not stored", secret=name.path, reason=gone.message)
            return True
        # What was read before holds a token that has been exchanged.
        self._cache.invalidate(name, None)
        logger.info("rotated token stored" if stored else "a newer secret was put", secret=name.path)
        return True

    async def _read(self, name: CredentialName) -> SecretFields:
        secret = await self._session.read(name)
        for value in secret_values(secret):
            self._on_secret(value)
        return secret
