"""The secrets of a vault: a session that reads them, a cache that keeps them."""

import time
from collections.abc import Callable, Mapping

from pydantic import JsonValue

from worker.credential_cache import CachePolicy, CredentialCache
from worker.credentials import (
    CredentialName,
    FetchOutcome,
    SecretDocument,
    ignore_outcome,
    secret_values,
)
from worker.vault import VaultClient
from worker.vault_config import VaultConfig
from worker.vault_session import PROBE_INTERVAL_S, THREADS, VaultSession, ignore_secret


class VaultCredentials:
    """Give secrets by name: the source of a worker with a vault.

    Args:
        on_fetch: told how each read and each answer from memory ended.
        on_secret: told every value that must not show up in a log, as soon as it is known.
    """

    def __init__(
        self,
        config: VaultConfig,
        *,
        policy: CachePolicy = CachePolicy(),  # noqa: B008  # frozen
        probe_interval_s: float = PROBE_INTERVAL_S,
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        on_secret: Callable[[str], None] = ignore_secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        client = VaultClient(config, connections=THREADS)
        self._session = VaultSession(
            client, timeout_s=config.timeout_s, probe_interval_s=probe_interval_s, on_secret=on_secret
        )
        self._on_secret = on_secret
        self._cache = CredentialCache(self._read, policy, on_fetch=on_fetch, clock=clock)

    @property
    def available(self) -> bool:
        """Whether a secret that is not cached can be had now."""
        return self._session.availability.reason is None

    @property
    def unavailable_reason(self) -> str | None:
        """Why not, in one phrase; None while available."""
        return self._session.availability.reason

    async def start(self) -> None:
        """Log in; return even where the vault is away.

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
        await self._cache.close()
        await self._session.close()

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, JsonValue]:
        """Give the fields of one secret; errors as in the protocol."""
        return await self._cache.fetch(CredentialName.checked(tenant, connector, credential))

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Drop a secret that the provider refused, so that the next fetch reads the vault."""
        self._cache.invalidate(CredentialName.checked(tenant, connector, credential), refused)

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the vault is believed to answer again; False when the time is over."""
        return await self._session.availability.wait(timeout_s)

    async def _read(self, name: CredentialName) -> SecretDocument:
        document = await self._session.read(name)
        for value in secret_values(document):
            self._on_secret(value)
        return document
