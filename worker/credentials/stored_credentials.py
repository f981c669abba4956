"""The secrets of a store, Vault or table: a session that reads them, a cache that keeps them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

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

#: Seconds between tries to store a rotated token while the store is unavailable.
KEEP_AGAIN_S: Final = 10.0


def ignore_secret(value: str) -> None:
    """Register nothing."""


class SecretSession(Protocol):
    """One store, as long as a worker lives: a vault and the login there, or a table and its keys."""

    @property
    def unavailable_reason(self) -> str | None:
        """Why no secret can be had, in one phrase; None while they can."""
        ...

    async def start(self) -> None:
        """Begin; return even if the store is unavailable.

        Raises:
            SettingError: it can never serve.
        """
        ...

    async def close(self) -> None:
        """End."""
        ...

    async def read(self, name: CredentialName) -> SecretFields:
        """Read one secret.

        Raises:
            CredentialNotFound, CredentialDenied, CredentialInvalid: what the store says of it.
            VaultUnavailable: it says nothing.
        """
        ...

    async def replace(self, name: CredentialName, rotation: Rotation) -> bool:
        """Put a rotated token into its secret; False where somebody has put another one.

        Raises:
            As `read`.
        """
        ...

    async def may_write(self, name: CredentialName) -> bool:
        """Return whether a rotated token could be stored."""
        ...

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until secrets are believed to be had again; False when the time is over."""
        ...


class StoredCredentials:
    """Return secrets by name: the source of a worker with a store.

    Args:
        on_fetch: called with how each read and each answer from memory ended.
        on_secret: called with every value that must not show up in a log, as soon as it is known.
    """

    def __init__(
        self,
        session: SecretSession,
        *,
        policy: CachePolicy = CachePolicy(),  # noqa: B008  # frozen
        keep_again_s: float = KEEP_AGAIN_S,
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        on_secret: Callable[[str], None] = ignore_secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._on_secret = on_secret
        self._keep_again_s = keep_again_s
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
        return self._session.unavailable_reason

    @property
    def pending_writes(self) -> int:
        """Rotated tokens that wait for the store."""
        return len(self._keeping)

    async def start(self) -> None:
        """Begin; return even if the store is unavailable.

        Raises:
            SettingError: it can never serve, as a vault that refuses the login: exit 78.
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
            logger.warning(
                "rotated tokens not stored", count=len(keeping), reason="their store is unavailable"
            )
        await self._cache.close()
        await self._session.close()

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, JsonValue]:
        """Return the fields of one secret; errors as in the protocol."""
        return await self._cache.fetch(CredentialName.checked(tenant, connector, credential))

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Drop a secret that the provider refused, so that the next fetch reads the store."""
        self._cache.invalidate(CredentialName.checked(tenant, connector, credential), refused)

    async def keep(self, rotation: Rotation) -> None:
        """Store a rotated token; while the store is unavailable, keep retrying behind the job.

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
        """Wait until secrets are believed to be had again; False when the time is over."""
        return await self._session.wait_available(timeout_s)

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
