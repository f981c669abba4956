"""The jobs of a queue in memory: one tenant fills most of it, never all, and its further jobs go round."""

import asyncio
from collections import Counter
from datetime import timedelta

from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.testing import FakeClock
from worker.broker.topology import RETRY_DELAYS_S
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.waiting_room import RETURN_S, RETURNS_PER_S, WaitingRoom


class StillClock(FakeClock):
    """A clock that moves only when it is skipped: a rate by the second must not depend on this machine's speed."""

    def monotonic(self) -> float:
        return self.skipped_s


CLOCK = StillClock()
NO_DEADLINE = Deadline(None, CLOCK)


def _room(total: int = 100, clock: FakeClock = CLOCK, max_bytes: int = 10**9) -> WaitingRoom:
    return WaitingRoom(ConcurrencyLimiter(total, clock=clock), max_bytes=max_bytes)


def _fill(room: WaitingRoom, tenant: str) -> int:
    """Let jobs of a tenant come until there is no room for one; return how many stay."""
    for count in range(room.capacity + 1):
        place = room.enter(tenant, 1)
        if room.is_full_for(tenant):
            place.leave()
            return count
    raise AssertionError("it is never full")


def test_more_jobs_are_in_memory_than_slots() -> None:
    room = _room(100)

    assert 400 == room.capacity
    assert 300 == _fill(room, "a")


def test_a_tenant_finds_room_beside_any_flood() -> None:
    room = _room(100)
    for tenant in "abcdefgh":
        _fill(room, tenant)

    assert _fill(room, "quiet") >= 400 // 16


def test_a_room_of_four_lets_another_tenants_job_through() -> None:
    room = _room(1)

    assert 3 == _fill(room, "a")
    assert 1 == _fill(room, "b")


def test_large_bodies_fill_the_room_earlier_but_for_one_of_each_tenant() -> None:
    room = _room(max_bytes=100)
    room.enter("a", 60)
    room.enter("a", 60)

    assert room.is_full_for("a")
    room.enter("b", 60)
    assert not room.is_full_for("b")


def test_who_left_makes_room_once() -> None:
    room = _room(1)
    places = [room.enter("a", 1) for _ in range(4)]
    assert room.is_full_for("a")

    for _ in range(2):
        places[0].leave()

    assert not room.is_full_for("a")


async def test_the_more_jobs_are_delayed_the_later_they_come_back() -> None:
    clock = StillClock()
    room = _room(clock=clock)
    room.delay_s("a", NO_DEADLINE)
    clock.skip(2)  # now it is known that the tenant starts nearly nothing

    delays = [room.delay_s("a", NO_DEADLINE) for _ in range(20_000)]

    assert 1.0 == delays[0]
    assert set(RETURN_S) == set(delays)
    by_step = Counter(delays[-1000:])
    returns_per_s = sum(20 * count / (step_s or 1) for step_s, count in by_step.items())
    assert RETURNS_PER_S / 2 < returns_per_s < RETURNS_PER_S * 3
    assert 1.0 == room.delay_s("b", NO_DEADLINE)
    assert set(RETURN_S) <= {float(seconds) for seconds in RETRY_DELAYS_S.values()}


async def test_a_tenant_whose_jobs_are_quick_has_them_back_sooner() -> None:
    clock = StillClock()
    slow, quick = _room(clock=clock), _room(clock=clock)
    for _ in range(2000):
        quick.started("a")
    slow.started("a")
    clock.skip(1)

    of_slow, of_quick = ([room.delay_s("a", NO_DEADLINE) for _ in range(4000)] for room in (slow, quick))

    assert {5.0, 30.0} == set(of_slow[-500:])
    assert {1.0} == set(of_quick[-500:])


async def test_a_job_is_not_sent_round_past_its_deadline() -> None:
    clock = StillClock()
    room = _room(clock=clock)
    room.delay_s("a", NO_DEADLINE)
    clock.skip(2)
    for _ in range(5000):
        room.delay_s("a", NO_DEADLINE)

    def delay_s(seconds: float) -> float | None:
        return room.delay_s("a", Deadline(clock.now() + timedelta(seconds=seconds), clock))

    assert [None, 1.0, 5.0] == [delay_s(0.2), delay_s(4), delay_s(20)]


async def test_returned_jobs_are_forgotten() -> None:
    room = _room()
    room.enter("a", 1).leave()
    room.delay_s("a", NO_DEADLINE)
    room._count_back("a")

    assert not room._rates
    assert not room._delayed
    await asyncio.sleep(0)
