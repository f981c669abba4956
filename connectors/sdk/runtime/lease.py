"""A claim on a key, held by a lease that is renewed while the work on it goes on."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from connectors.sdk.context import JobLog
from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.ledger import Claimed, Identity, Ledger, LedgerUnavailable

_LOG: Final = JobLog(logging.getLogger("connectors.runtime"), {})


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How long a claim holds, and what is done while it does."""

    #: Seconds a claim holds without being renewed. After a crash another worker takes over within this.
    lease_s: float = 15.0
    #: Seconds between renewals while an action runs.
    renew_s: float = 5.0
    #: Seconds that may pass around the last look at the lease before the call leaves. If it took longer, the
    #: process stood still, and another worker may have taken over. Added to the time in which a call can land.
    stall_s: float = 5.0
    #: Seconds for which a result is kept in memory while the ledger is unavailable: below the broker's
    #: consumer_timeout of 30 minutes.
    store_s: float = 1200.0
    #: Seconds that giving a claim back may take when the worker ends; then the lease runs out by itself.
    release_s: float = 2.0
    #: Seconds for which a call is waited for that cannot be stopped, before its outcome is unknown.
    hung_s: float = 600.0


@dataclass(slots=True, eq=False)
class HeldClaim:
    """A claim as the worker that holds it sees it.

    `in_flight` is the fact that answers are made of. Its default is True from the last look at the lease on; only a
    proof makes it False: nothing left, the provider refused it, or the result is stored.
    """

    identity: Identity
    claimed: Claimed
    #: How often the action was started, by any worker; for an undo, how often that was.
    attempts: int
    #: Until then no other worker can have taken over, by this process's monotonic clock.
    holds_until: float
    #: An effect may be there that no stored result tells of.
    in_flight: bool = field(init=False)
    #: What `in_flight` was before this attempt's call: an earlier attempt may have had its effect.
    is_repeat: bool = field(init=False)
    #: Parts of the action are recorded as done: the key is never forgotten.
    has_steps: bool = field(init=False)
    #: The call of an undo may have taken the effect back; a proof makes it False, as above.
    undo_in_flight: bool = field(init=False)

    def __post_init__(self) -> None:
        self.in_flight = self.is_repeat = self.claimed.in_flight
        self.undo_in_flight = self.claimed.undo_in_flight
        self.has_steps = bool(self.claimed.steps)

    def forget_call(self) -> None:
        """Take note that this attempt's call certainly did nothing; what an earlier one did stays open."""
        self.in_flight = self.is_repeat

    def may_have_effect(self, now: float) -> bool:
        """Return whether the effect, or a part of it, may be there; no one here knows once the lease is over."""
        return self.in_flight or self.has_steps or now >= self.holds_until

    @property
    def fence(self) -> int:
        """The claim's place in the order of claims."""
        return self.claimed.fence


class LeaseRenewer:
    """Renews a lease for as long as its block runs."""

    def __init__(self, ledger: Ledger, claim: HeldClaim, policy: LeasePolicy, clock: Clock) -> None:
        self._ledger = ledger
        self._claim = claim
        self._policy = policy
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._renew())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._policy.renew_s)
            asked_at = self._clock.monotonic()
            try:
                held = await self._ledger.renew(self._claim.identity, self._claim.fence)
            except LedgerUnavailable:
                continue
            if not held:
                _LOG.warning("lease lost", key=self._claim.identity.key)
                return
            self._claim.holds_until = asked_at + self._policy.lease_s
