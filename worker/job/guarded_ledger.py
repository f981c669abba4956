"""A ledger that claims nothing until it is proven to be the one that all workers keep."""

import asyncio
from typing import Any, cast

from connectors.sdk.runtime.ledger import (
    Claim,
    Claimed,
    Identity,
    InProgress,
    Ledger,
    LedgerUnavailable,
    Undone,
)
from worker.broker.ledger_guard import LedgerGuard


def guarded(ledger: Ledger, guard: LedgerGuard) -> Ledger:
    """Return the ledger, its claims held back while nothing is proven."""
    return cast(Ledger, _GuardedLedger(ledger, guard))


class _GuardedLedger:
    """Passes everything on but claims."""

    def __init__(self, ledger: Ledger, guard: LedgerGuard) -> None:
        self._ledger = ledger
        self._guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the ledger is proven and believed to answer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._guard.proven.wait()
                return await self._ledger.wait_available(timeout_s)
        except TimeoutError:
            return False

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Claim the effect, or return what is known of it."""
        self._check()
        return await self._ledger.claim(identity, fingerprint)

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Claim the undo of an effect."""
        self._check()
        return await self._ledger.claim_undo(identity)

    def _check(self) -> None:
        if (fault := self._guard.fault) is not None:
            raise LedgerUnavailable(fault)
