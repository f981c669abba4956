"""The vault: it is away now and then, and its secret is rotated."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from connectors.sdk.runtime.infrastructure import InfrastructureUnavailable
from tests.simulation.loop import Host

#: Seconds between two looks at a vault that is away.
LOOK_S: Final = 0.5


class Vault:
    """One secret for all."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.away_until = 0.0
        self.version = 0

    @property
    def token(self) -> str:
        """The secret in force."""
        return f"token-{self.version}"


class SimulatedCredentials:
    """One worker's way to the vault, with a cache that a refusal empties."""

    def __init__(self, vault: Vault, host: Host, *, has_secret: bool) -> None:
        self._vault = vault
        self._host = host
        self._cached: dict[str, str] | None = {"token": vault.token} if has_secret else None

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, Any]:
        """Return the secret."""
        if self._cached is None:
            await asyncio.sleep(0.01)
            if self._host.loop.time() < self._vault.away_until:
                raise InfrastructureUnavailable("the vault is sealed")
            self._cached = {"token": self._vault.token}
        return self._cached

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, Any] | None = None
    ) -> None:
        """Drop what the provider refused."""
        if refused is None or refused == self._cached:
            self._cached = None

    async def wait_available(self, timeout_s: float) -> bool:
        """Look now and then whether it is back."""
        ends_at = self._host.loop.time() + timeout_s
        while self._host.loop.time() < ends_at:
            await asyncio.sleep(LOOK_S)
            if self._host.loop.time() >= self._vault.away_until:
                return True
        return False
