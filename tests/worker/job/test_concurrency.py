"""The slots of a queue: bulk work and one tenant hold their share at most."""

import asyncio
from collections import Counter

from worker.broker.topology import RETRY_DELAYS_S
from worker.job.concurrency import RETURN_S, RETURNS_PER_S, ConcurrencyLimiter


async def test_bulk_work_holds_at_most_a_quarter_of_the_slots() -> None:
    slots = ConcurrencyLimiter(8, tenant_total=4)

    async with slots.hold(bulk=True), slots.hold(bulk=True):
        waiting = asyncio.ensure_future(_hold(slots))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with slots.hold():
            assert 3 == slots.used
    await waiting


async def _hold(slots: ConcurrencyLimiter) -> None:
    async with slots.hold(bulk=True):
        pass


async def test_the_more_jobs_over_a_tenants_limit_the_longer_the_delay() -> None:
    crowded, alone = ConcurrencyLimiter(4), ConcurrencyLimiter(4)

    few = [alone.delay_over_limit("a") for _ in range(5)]
    many = [crowded.delay_over_limit("a") for _ in range(10_000)]

    assert {1.0} == set(few)
    assert set(RETURN_S) == set(many)
    by_step = Counter(many[-1000:])
    a_second = sum(10 * count / step_s for step_s, count in by_step.items())
    assert RETURNS_PER_S / 2 < a_second < RETURNS_PER_S * 3
    assert crowded.delay_over_limit("b") == 1.0
    assert set(RETURN_S) <= {float(seconds) for seconds in RETRY_DELAYS_S.values()}


def test_one_tenant_is_admitted_up_to_its_limit() -> None:
    slots = ConcurrencyLimiter(4, tenant_total=1)

    with slots.admit("a") as first, slots.admit("a") as second, slots.admit("b") as other:
        assert (True, False, True) == (first, second, other)
    with slots.admit("a") as again:
        assert again
