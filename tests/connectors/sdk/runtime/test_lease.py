"""A claim held by a lease: renewed while it is worked on, and honest about what it knows."""

import asyncio

import pytest

from connectors.sdk.runtime.lease import HeldClaim, LeasePolicy, LeaseRenewer
from connectors.sdk.runtime.ledger import Claimed, Identity, LedgerUnavailable
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.testing import FakeClock

KEY = Identity("acme", "crm", "create", "k")
POLICY = LeasePolicy(lease_s=3.0, renew_s=1.0)


class Renewals(MemoryLedger):
    """A ledger that says when it is asked to renew, and may be unavailable."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, POLICY)
        self.asked: asyncio.Queue[None] = asyncio.Queue()
        self.is_down = False

    async def renew(self, identity: Identity, fence: int) -> bool:
        self.asked.put_nowait(None)
        if self.is_down:
            raise LedgerUnavailable("the disk is full")
        return await super().renew(identity, fence)


async def _claim(ledger: MemoryLedger, clock: FakeClock) -> HeldClaim:
    claimed = await ledger.claim(KEY, "")
    assert isinstance(claimed, Claimed)
    return HeldClaim(KEY, claimed, 0, clock.monotonic() + POLICY.lease_s)


async def _renewed(ledger: Renewals, clock: FakeClock) -> None:
    """Let the time to a renewal pass, and the renewal be answered."""
    while not clock._skips:
        await asyncio.sleep(0)
    clock.skip(POLICY.renew_s)
    await asyncio.wait_for(ledger.asked.get(), 5)
    await asyncio.sleep(0)


async def test_a_renewed_lease_holds_for_longer() -> None:
    clock = FakeClock()
    ledger = Renewals(clock)
    claim = await _claim(ledger, clock)
    before = claim.holds_until

    async with LeaseRenewer(ledger, claim, POLICY, clock):
        await _renewed(ledger, clock)

    assert claim.holds_until >= before + POLICY.renew_s


async def test_a_renewal_that_fails_is_tried_again() -> None:
    clock = FakeClock()
    ledger = Renewals(clock)
    claim = await _claim(ledger, clock)
    before = claim.holds_until

    async with LeaseRenewer(ledger, claim, POLICY, clock):
        ledger.is_down = True
        await _renewed(ledger, clock)
        while_down = claim.holds_until
        ledger.is_down = False
        await _renewed(ledger, clock)

    assert before == while_down
    assert claim.holds_until > before


async def test_a_lost_lease_is_not_renewed_again() -> None:
    clock = FakeClock()
    ledger = Renewals(clock)
    claim = await _claim(ledger, clock)
    before = claim.holds_until
    await ledger.forget(KEY, claim.fence)

    async with LeaseRenewer(ledger, claim, POLICY, clock):
        await _renewed(ledger, clock)
        clock.skip(10 * POLICY.renew_s)
        await asyncio.sleep(0)

    assert before == claim.holds_until
    assert ledger.asked.empty(), "it is not asked again"


async def test_a_claim_forgets_its_own_call_and_not_an_earlier_one() -> None:
    fresh = HeldClaim(KEY, Claimed(1, 0, False, 0.0, {}, False, None), 0, 10.0)
    again = HeldClaim(KEY, Claimed(2, 1, True, 0.0, {}, False, None), 1, 10.0)
    fresh.in_flight = again.in_flight = True

    fresh.forget_call()
    again.forget_call()

    assert (False, True) == (fresh.in_flight, again.in_flight)


@pytest.mark.parametrize(
    ("claimed", "now", "expected"),
    [
        (Claimed(1, 0, False, 0.0, {}, False, None), 9.0, False),
        (Claimed(1, 0, False, 0.0, {}, False, None), 10.0, True),
        (Claimed(1, 1, True, 0.0, {}, False, None), 9.0, True),
        (Claimed(1, 1, False, 0.0, {"order": 1}, False, None), 9.0, True),
    ],
    ids=["nothing left", "lease is over", "call in flight", "a step is done"],
)
def test_a_claim_tells_whether_an_effect_may_be_there(claimed: Claimed, now: float, expected: bool) -> None:
    assert expected is HeldClaim(KEY, claimed, 0, 10.0).may_have_effect(now)
