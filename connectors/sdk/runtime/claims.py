"""What is done with a claim in every case: ask the ledger, hold the lease, give it back, store what came of it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

from connectors.sdk.context import JobLog
from connectors.sdk.effects import Effect
from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.answers import late
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.infrastructure import Infrastructure
from connectors.sdk.runtime.lease import HeldClaim, LeasePolicy, LeaseRenewer
from connectors.sdk.runtime.ledger import Claimed, Ledger, LedgerUnavailable
from connectors.sdk.runtime.outcome import Snooze
from connectors.sdk.runtime.slot import UNLIMITED, Slot

T = TypeVar("T")

_LOG: Final = JobLog(logging.getLogger("connectors.runtime"), {})


class ClaimKeeper:
    """Keeps the claims of this process true to the ledger. Shared by run and undo."""

    def __init__(
        self, ledger: Ledger, infrastructure: Infrastructure, policy: LeasePolicy, clock: Clock
    ) -> None:
        self.policy = policy
        self._ledger = ledger
        self._infrastructure = infrastructure
        self._clock = clock

    async def ask(self, question: Callable[[], Awaitable[T]], call: Call) -> T:
        """Ask the ledger, waiting while it is unavailable.

        Raises:
            Snooze: it was unavailable for too long, or the worker stops.
            ConnectorError: DEADLINE_EXCEEDED.
        """
        try:
            return await self._infrastructure.ask(question, self._ledger.wait_available, call.attempt)
        except ConnectorError:
            # What a copy or an earlier delivery of this job led to, only the ledger could tell.
            raise late(call, is_uncertain=True) from None

    async def ask_when(self, question: Callable[[], Awaitable[T]], call: Call) -> tuple[T, float]:
        """Ask like `ask`; return the answer, and when its question was put: it is no newer than that."""

        async def ask() -> tuple[T, float]:
            asked_at = self._clock.monotonic()
            return await question(), asked_at

        return await self.ask(ask, call)

    def bound(self, claimed: Claimed, call: Call) -> Claimed:
        """Return the claim with a believable time until an earlier call has landed.

        A database whose clock was set back by ten minutes says ten minutes more.
        """
        at_most_s = call.action.lands_within_s(Effect.WRITE) + self.policy.stall_s
        return replace(claimed, lands_within_s=min(claimed.lands_within_s, at_most_s))

    @asynccontextmanager
    async def hold(self, claim: HeldClaim) -> AsyncIterator[None]:
        """Renew the lease while the block runs; give the claim back if it is abandoned."""
        async with LeaseRenewer(self._ledger, claim, self.policy, self._clock):
            try:
                yield
            except BaseException:
                # The worker may be ending: a ledger that is slow just now must not hold it up.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.policy.release_s):
                        await self.release(claim)
                raise

    async def begin(self, claim: HeldClaim, call: Call, lands_within_s: float) -> None:
        """Look at the lease for the last time, and record that the call leaves now.

        Raises:
            Snooze: another worker has taken over, or this process stood still.
        """
        begin = self._ledger.begin
        await self._leave(
            claim,
            call,
            lambda: begin(claim.identity, claim.fence, lands_within_s=lands_within_s + self.policy.stall_s),
        )

    async def begin_undo(self, claim: HeldClaim, call: Call) -> None:
        """Look at the lease for the last time, and record that the call of the undo leaves now.

        Raises:
            Snooze: as `begin`.
        """
        await self._leave(claim, call, lambda: self._ledger.begin_undo(claim.identity, claim.fence))

    async def _leave(self, claim: HeldClaim, call: Call, record: Callable[[], Awaitable[bool]]) -> None:
        async def record_in_time() -> bool:
            asked_at = self._clock.monotonic()
            held = await record()
            if held:
                claim.holds_until = asked_at + self.policy.lease_s
            if (stalled_s := self._clock.monotonic() - asked_at) > self.policy.stall_s:
                raise Snooze(f"the worker stood still for {stalled_s:.0f} s right before the call")
            return held

        if not await self.ask(record_in_time, call):
            raise Snooze("another worker has taken the job over")

    async def give_back(self, claim: HeldClaim, *, may_retry: bool) -> None:
        """End an attempt that failed: keep what the next one must know, and forget the key if that is nothing."""
        if may_retry or claim.in_flight or claim.has_steps:
            await self.release(claim)
            return
        with suppress(LedgerUnavailable):
            await self._ledger.forget(claim.identity, claim.fence)

    async def release(self, claim: HeldClaim) -> None:
        """Release the claim for a later attempt."""
        with suppress(LedgerUnavailable):  # then the lease runs out by itself
            await self._ledger.release(
                claim.identity,
                claim.fence,
                in_flight=claim.in_flight,
                undo_in_flight=claim.undo_in_flight,
            )

    async def abort_undo(self, claim: HeldClaim) -> None:
        """Put back what the key was before its undo was claimed."""
        with suppress(LedgerUnavailable):  # then the undo's lease runs out, and the mark stays
            await self._ledger.abort_undo(claim.identity, claim.fence)

    async def record_steps(self, claim: HeldClaim, slot: Slot, steps: Mapping[str, Any]) -> None:
        """Store what the finished parts of an action returned.

        Raises:
            Snooze: another worker has taken the job over.
        """
        held = await self._store(lambda: self._ledger.record_step(claim.identity, claim.fence, steps), slot)
        await slot.resume()
        if not held:
            raise Snooze("another worker has taken the job over")
        claim.has_steps = True

    async def store_later(self, store: Callable[[], Awaitable[bool]]) -> None:
        """Go on storing a result whose caller was answered already."""
        with suppress(LedgerUnavailable):
            await self._store(store, UNLIMITED)
            return
        _LOG.warning("result not stored", reason="the ledger stayed unavailable")

    async def _store(self, store: Callable[[], Awaitable[bool]], slot: Slot) -> bool:
        until = self._clock.monotonic() + self.policy.store_s
        while True:
            try:
                return await store()
            except LedgerUnavailable:
                if self._clock.monotonic() >= until or self._infrastructure.is_stopping:
                    raise
            slot.pause()
            await self._ledger.wait_available(self.policy.renew_s)
