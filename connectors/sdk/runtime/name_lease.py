"""`ctx.lease`: one job at a time under a name of the connector's own, in all workers that share the ledger."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from connectors.sdk.errors import Sent, Unavailable
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.lease import HeldClaim, LeasePolicy, LeaseRenewer
from connectors.sdk.runtime.ledger import Claimed, Identity, Ledger, LedgerUnavailable
from connectors.sdk.runtime.slot import Slot
from schemas.job import Job

#: No action can have this name, so that no job's key meets a lease's.
_ACTION: Final = "#lease"
#: Seconds between looks whether the name is free.
POLL_S: Final = 0.1
#: Seconds after which the job is better tried again later.
WAIT_S: Final = 10.0


class NameLeases:
    """Grants leases on names. In one process jobs queue for a name; between processes the ledger decides."""

    def __init__(self, ledger: Ledger, policy: LeasePolicy, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._locks: dict[Identity, _SharedLock] = {}

    @asynccontextmanager
    async def hold(self, job: Job, slot: Slot, name: str) -> AsyncIterator[None]:
        """Hold a name of the job's tenant and connector; while it is another's, the slot is, too.

        Raises:
            Unavailable: it was not free for WAIT_S, or the ledger is unavailable; nothing was sent.
        """
        identity = Identity(job.tenant, job.connector, _ACTION, name[:255])
        async with self._here(identity, slot):
            claim = await self._claim(identity)
            try:
                async with LeaseRenewer(self._ledger, claim, self._policy, self._clock):
                    yield
            finally:
                with suppress(LedgerUnavailable):  # then the lease runs out by itself
                    await self._ledger.forget(identity, claim.fence)

    @asynccontextmanager
    async def _here(self, identity: Identity, slot: Slot) -> AsyncIterator[None]:
        """Queue behind the jobs of this process, in order."""
        lock = self._locks.setdefault(identity, _SharedLock())
        lock.users += 1
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    if lock.locked():
                        slot.pause()
                    await lock.acquire()
            except TimeoutError:
                raise _taken() from None
            try:
                await slot.resume()
                yield
            finally:
                lock.release()
        finally:
            lock.users -= 1
            if lock.users == 0:
                del self._locks[identity]

    async def _claim(self, identity: Identity) -> HeldClaim:
        ends_at = self._clock.monotonic() + WAIT_S
        while True:
            asked_at = self._clock.monotonic()
            try:
                claimed = await self._ledger.claim(identity, "")
            except LedgerUnavailable as unavailable:
                raise Unavailable(
                    f"the ledger is not available: {unavailable.reason}", sent=Sent.NO
                ) from None
            if isinstance(claimed, Claimed):
                return HeldClaim(identity, claimed, 0, asked_at + self._policy.lease_s)
            if self._clock.monotonic() >= ends_at:
                raise _taken()
            await self._clock.sleep(POLL_S)


class _SharedLock(asyncio.Lock):
    """A lock that counts who holds it or waits for it."""

    users = 0


def _taken() -> Unavailable:
    return Unavailable(f"other jobs held the same record for {WAIT_S:g} s", sent=Sent.NO)
