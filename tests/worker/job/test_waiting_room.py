"""The jobs of a queue in memory: one tenant fills most of it, never all, and its further jobs go round."""

import asyncio
from datetime import timedelta

from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.testing import FakeClock
from worker.broker.topology import RETRY_DELAYS_S
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.waiting_room import HOLD_S, RETURN_S, Place, WaitingRoom


class StillClock(FakeClock):
    """A clock that moves only when it is skipped: a rate by the second must not depend on this machine's speed."""

    def monotonic(self) -> float:
        return self.skipped_s


CLOCK = StillClock()
NO_DEADLINE = Deadline(None, CLOCK)


def _room(total: int = 100, clock: FakeClock = CLOCK, max_bytes: int = 10**9) -> WaitingRoom:
    return WaitingRoom(ConcurrencyLimiter(total, clock=clock), max_bytes=max_bytes)


class _Flood:
    """One tenant's jobs, a room that they find their way through, and slots that start so many a second."""

    def __init__(self, room: WaitingRoom, clock: StillClock, *, jobs: int, per_s: int) -> None:
        self.room, self.clock, self.per_s = room, clock, per_s
        self.queue, self.jobs = jobs, jobs
        self.inside: list[Place] = []
        self.away: list[float] = []
        self.started = self.delays = 0

    def run(self) -> float:
        """Return the seconds until the last job is started."""
        while self.started < self.jobs:
            for _ in range(self.per_s // 10):
                if self.inside:
                    self.room.started("a")
                    self.inside.pop().leave()
                    self.started += 1
            back = [at for at in self.away if at <= self.clock.monotonic()]
            self.away = [at for at in self.away if at > self.clock.monotonic()]
            self.queue += len(back)
            for _ in range(min(self.queue, 100)):  # what a worker receives in a tenth of a second
                self._receive()
            self.clock.skip(0.1)
        return self.clock.monotonic()

    def _receive(self) -> None:
        self.queue -= 1
        place = self.room.enter("a", 1)
        if not self.room.is_full_for("a"):
            self.inside.append(place)
            return
        delay_s = self.room.delay_s("a", NO_DEADLINE)
        assert delay_s is not None
        place.leave()
        self.delays += 1
        self.away.append(self.clock.monotonic() + delay_s)


def _started(room: WaitingRoom, clock: StillClock, tenant: str, per_s: int) -> None:
    """Let a second pass in which a tenant starts so many jobs."""
    for _ in range(per_s):
        room.started(tenant)
    clock.skip(1)


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

    assert 3000 == room.capacity
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


def test_a_tenant_whose_jobs_are_quick_holds_more_of_them() -> None:
    clock = StillClock()
    room = _room(100, clock)
    room.enter("a", 1)
    _started(room, clock, "a", 40)

    assert 40 * HOLD_S - 1 == _fill(room, "a"), "it starts these soon; others may be another worker's"
    _started(room, clock, "a", 2000)
    assert 2250 == 600 + _fill(room, "a"), "a quarter is left for what comes behind"
    assert 400 // 16 <= _fill(room, "b")


async def test_a_flood_leaves_no_slot_idle_and_goes_round_once_or_twice() -> None:
    clock = StillClock()
    flood = _Flood(_room(100, clock), clock, jobs=10_000, per_s=200)

    seconds = flood.run()

    assert seconds < 10_000 / 200 * 1.05
    assert flood.delays < 1.5 * 10_000


async def test_a_delayed_job_comes_back_when_there_is_room() -> None:
    clock = StillClock()
    room = _room(clock=clock)
    for _ in range(1200):
        room.enter("a", 1)
    _started(room, clock, "a", 200)

    delays = [room.delay_s("a", NO_DEADLINE) for _ in range(30_000)]

    # 240 find room in a second; twice as many bridge the time until the next step, if those in memory do not.
    assert [240, 2160, 12_000, 15_600] == [delays.count(step_s) for step_s in RETURN_S]
    assert 1.0 == room.delay_s("b", NO_DEADLINE)
    assert set(RETURN_S) <= {float(seconds) for seconds in RETRY_DELAYS_S.values()}


async def test_a_job_is_not_sent_round_past_its_deadline() -> None:
    clock = StillClock()
    room = _room(clock=clock)
    room.delay_s("a", NO_DEADLINE)
    for _ in range(3000):
        room.enter("a", 1)
    _started(room, clock, "a", 50)
    for _ in range(5000):
        room.delay_s("a", NO_DEADLINE)

    def delay_s(seconds: float) -> float | None:
        return room.delay_s("a", Deadline(clock.now() + timedelta(seconds=seconds), clock))

    assert [None, 1.0, 5.0] == [delay_s(0.2), delay_s(4), delay_s(20)]


async def test_returned_jobs_are_forgotten() -> None:
    room = _room()
    room.enter("a", 1).leave()
    room.delay_s("a", NO_DEADLINE)
    room._forget_second("a", 1)

    assert not room._rates
    assert not room._delayed
    await asyncio.sleep(0)
