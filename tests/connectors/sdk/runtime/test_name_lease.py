"""`ctx.lease`: of all jobs of a tenant and connector, one at a time holds a name."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connectors.sdk import Unavailable
from connectors.sdk.errors import Sent
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claim, Identity, LedgerUnavailable
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.name_lease import WAIT_S, NameLeases
from connectors.sdk.runtime.slot import UNLIMITED
from connectors.sdk.testing import FakeClock
from schemas.job import Job


def _job(tenant: str = "acme", connector: str = "crm") -> Job:
    return Job(id="j", connector=connector, action="create", tenant=tenant)


class CountingSlot:
    """A slot that notes what its job does with it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.paused = asyncio.Event()

    def pause(self) -> bool:
        self.events.append("pause")
        self.paused.set()
        return True

    async def resume(self) -> None:
        self.events.append("resume")

    def release(self) -> None:
        self.events.append("release")


class DownLedger(MemoryLedger):
    """A ledger that is unavailable, for claims or for good."""

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        raise LedgerUnavailable("the disk is full")


class ForgetfulLedger(MemoryLedger):
    """A ledger that goes away before a lease ends."""

    async def forget(self, identity: Identity, fence: int) -> bool:
        raise LedgerUnavailable("the disk is full")


def _workers(count: int, clock: FakeClock, *, lease_s: float = 15.0) -> list[NameLeases]:
    """Return the leases of processes that share one ledger."""
    policy = LeasePolicy(lease_s=lease_s, renew_s=lease_s / 3)
    ledger = MemoryLedger(clock, policy)
    return [NameLeases(ledger, policy, clock) for _ in range(count)]


async def _most_at_once(leases: list[NameLeases], run: Callable[[], Awaitable[None]]) -> int:
    inside = most = 0

    async def hold(leases: NameLeases) -> None:
        nonlocal inside, most
        async with leases.hold(_job(), UNLIMITED, "row"):
            inside += 1
            most = max(most, inside)
            await run()
            inside -= 1

    await asyncio.gather(*(hold(each) for each in leases))
    return most


async def test_jobs_of_one_process_hold_a_name_one_by_one() -> None:
    (leases,) = _workers(1, FakeClock())

    assert 1 == await _most_at_once([leases] * 5, lambda: asyncio.sleep(0))


async def test_workers_that_share_a_ledger_hold_a_name_one_by_one() -> None:
    assert 1 == await _most_at_once(_workers(3, FakeClock()), lambda: asyncio.sleep(0))


@pytest.mark.parametrize(
    ("job", "name"), [(_job(), "other row"), (_job("beta"), "row"), (_job(connector="erp"), "row")]
)
async def test_another_name_tenant_or_connector_is_not_waited_for(job: Job, name: str) -> None:
    (leases,) = _workers(1, FakeClock())

    async with (
        leases.hold(_job(), UNLIMITED, "row"),
        asyncio.timeout(1),
        leases.hold(job, UNLIMITED, name),
    ):
        pass


async def test_a_name_is_free_again_after_a_failure() -> None:
    (leases,) = _workers(1, FakeClock())
    with pytest.raises(ValueError, match="mine"):
        async with leases.hold(_job(), UNLIMITED, "row"):
            raise ValueError("mine")

    async with asyncio.timeout(1), leases.hold(_job(), UNLIMITED, "row"):
        pass


async def test_a_job_that_waits_gives_its_slot_to_another() -> None:
    (leases,), slot, held = _workers(1, FakeClock()), CountingSlot(), asyncio.Event()

    async def wait_too() -> None:
        async with leases.hold(_job(), slot, "row"):
            held.set()

    async with leases.hold(_job(), UNLIMITED, "row"):
        waiting = asyncio.create_task(wait_too())
        await slot.paused.wait()
        assert not held.is_set()
    await waiting

    assert ["pause", "resume"] == slot.events


async def test_a_name_that_stays_taken_is_reported_and_nothing_was_sent() -> None:
    clock = FakeClock()
    one, other = _workers(2, clock, lease_s=1e9)

    async with one.hold(_job(), UNLIMITED, "row"):
        waiting = asyncio.create_task(other.hold(_job(), UNLIMITED, "row").__aenter__())
        while not clock._skips:
            await asyncio.sleep(0)
        clock.skip(WAIT_S)
        with pytest.raises(Unavailable, match="other jobs held the same record") as caught:
            await waiting

    assert Sent.NO is caught.value.sent


async def test_a_lease_outlives_its_time_while_it_is_held() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock, LeasePolicy(lease_s=3.0, renew_s=1.0))
    leases = NameLeases(ledger, LeasePolicy(lease_s=3.0, renew_s=1.0), clock)
    identity = Identity("acme", "crm", "#lease", "row")

    async with leases.hold(_job(), UNLIMITED, "row"):
        fence = ledger._rows[identity].fence
        for _ in range(6):
            before = ledger._rows[identity].lease_until
            clock.skip(1.0)
            async with asyncio.timeout(5):
                while ledger._rows[identity].lease_until == before:
                    await asyncio.sleep(0)
        assert fence == ledger._rows[identity].fence

    assert identity not in ledger._rows


async def test_a_name_of_a_dead_worker_is_free_when_its_lease_ends() -> None:
    clock = FakeClock()
    ledger = MemoryLedger(clock, LeasePolicy(lease_s=5.0))
    await ledger.claim(Identity("acme", "crm", "#lease", "row"), "")
    leases = NameLeases(ledger, LeasePolicy(), clock)
    clock.skip(5.1)

    async with asyncio.timeout(1), leases.hold(_job(), UNLIMITED, "row"):
        pass


async def test_without_a_ledger_no_name_is_given_and_nothing_was_sent() -> None:
    leases = NameLeases(DownLedger(), LeasePolicy(), FakeClock())

    with pytest.raises(Unavailable, match="disk is full") as caught:
        async with leases.hold(_job(), UNLIMITED, "row"):
            pass

    assert Sent.NO is caught.value.sent


async def test_a_ledger_that_goes_away_does_not_fail_the_holder() -> None:
    leases = NameLeases(ForgetfulLedger(), LeasePolicy(), FakeClock())

    async with leases.hold(_job(), UNLIMITED, "row"):
        pass

    assert {} == leases._locks
