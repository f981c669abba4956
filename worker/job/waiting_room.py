"""The jobs of one queue that are in memory: more than slots, bounded, and never those of one tenant alone."""

import asyncio
from collections import Counter
from itertools import pairwise
from typing import Final

from connectors.sdk.runtime.deadline import Deadline
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.job_slot import JobSlot

#: Jobs in memory for each slot: one runs, one waits for its turn, one for vault or ledger, one for its end's record.
PER_SLOT: Final = 4
#: Jobs in memory for each slot if they are quick; and the most of those, because each takes some 10 KB.
PER_SLOT_QUICK: Final = 30
MOST_QUICK: Final = 3000
#: Quick jobs are those that their tenant starts within so many seconds. More are not held: another worker may have
#: room for them.
HOLD_S: Final = 15.0
#: What the protocol can say.
MOST_PREFETCH: Final = 65_535
#: Bytes of bodies in memory, for each queue.
MAX_BYTES: Final = 64 * 1024 * 1024
#: A tenant may fill so many times what it leaves free: one alone three quarters of the room, two 43 % each.
GREED: Final = 3
#: One place in so many is any tenant's, however full the room is.
LEAST_SHARE: Final = 16
#: Delayed jobs of one tenant that come back to the queue in a second, at least; or a fifth more than it starts. Few
#: enough that another tenant's job finds next to nothing before it.
RETURNS_PER_S: Final = 50.0
RETURNS_PER_START: Final = 1.2
#: Jobs that each slot is believed to start in a second, until that is known.
FIRST_STARTS_PER_S: Final = 5.0
#: Seconds after which a delayed job may come back, each a retry queue of its own.
RETURN_S: Final = (1.0, 5.0, 30.0, 120.0)
#: How many times the jobs that find room after a step come back with it, if slots would lie idle until the next step.
#: More would hold up what is behind them (measured: a call of another tenant took 18 s without this bound).
BRIDGE: Final = 2
#: Seconds before its deadline in which a job is not delayed: it would come back too late to be answered in time.
DEADLINE_SLACK_S: Final = 0.5


class Place:
    """One job in the room."""

    def __init__(self, room: "WaitingRoom", tenant: str, size: int) -> None:
        self.room = room
        self.tenant = tenant
        self.size = size
        self.slot: JobSlot = room.slots.slot(tenant, bulk=room.bulk)
        #: There was no room for it.
        self.went_round = False
        self._is_in = True

    async def take(self, deadline: Deadline) -> bool:
        """Wait for a slot; return False if the deadline comes first, or the worker stops."""
        has_slot = await self.slot.take(deadline)
        if has_slot:
            self.room.started(self.tenant)
        return has_slot

    def leave(self) -> None:
        """Free the place, and give the slot back if it is still held."""
        self.slot.end()
        if self._is_in:
            self._is_in = False
            self.room.left(self)


class WaitingRoom:
    """Holds the jobs of one queue in memory while they wait, run and finish.

    A tenant whose jobs fill it has further ones sent round through a retry queue, so that the broker delivers what is
    behind them: the last resort, for floods.
    """

    def __init__(self, slots: ConcurrencyLimiter, *, bulk: bool = False, max_bytes: int = MAX_BYTES) -> None:
        self.slots = slots
        self.bulk = bulk
        #: Jobs in memory; the broker delivers no more before one is settled.
        total = slots.bulk_total if bulk else slots.total
        #: Of them, those that are held however slow they are.
        self._slow_capacity = min(PER_SLOT * total, MOST_PREFETCH)
        self.capacity = max(self._slow_capacity, min(PER_SLOT_QUICK * total, MOST_QUICK))
        self._max_bytes = max_bytes
        self._bytes = 0
        self._jobs: Counter[str] = Counter()
        #: Jobs that are on their way round: by tenant, by the second in which they come back.
        self._delayed: dict[str, Counter[int]] = {}
        self._rates: dict[str, _StartRate] = {}

    def enter(self, tenant: str, size: int) -> Place:
        """Count a job as in memory until it leaves."""
        self._jobs[tenant] += 1
        self._bytes += size
        return Place(self, tenant, size)

    def is_full_for(self, tenant: str) -> bool:
        """Return whether a tenant, its newest job counted, has more in memory than it may."""
        jobs, total = self._jobs[tenant], self._jobs.total()
        soon = (self._rate(tenant).per_s(self.slots.clock.monotonic()) or 0.0) * HOLD_S
        quick = min(soon, GREED * (self.capacity - total))
        if jobs > max(1, self._slow_capacity // LEAST_SHARE, GREED * (self._slow_capacity - total), quick):
            return True
        return self._bytes > self._max_bytes and jobs > 1

    def delay_s(self, tenant: str, deadline: Deadline) -> float | None:
        """Return when a job comes back that finds no room; None if its deadline is too near to be sent round.

        It comes back after the first step by which too few others do: there is room, or slots would lie idle.
        """
        now = self.slots.clock.monotonic()
        rate = self._rate(tenant).per_s(now)
        if rate is None:
            rate = FIRST_STARTS_PER_S * self.slots.total
        returns_per_s = max(RETURNS_PER_S, RETURNS_PER_START * rate)
        delayed = self._delayed.setdefault(tenant, Counter())
        delay_s = _first_step(delayed, now, returns_per_s, self._jobs[tenant] / returns_per_s)
        remaining_s = deadline.remaining_s()
        if remaining_s is not None:
            fitting = [each for each in RETURN_S if each <= min(delay_s, remaining_s - DEADLINE_SLACK_S)]
            if not fitting:
                return None
            delay_s = fitting[-1]
        if (back_at := int(now + delay_s)) not in delayed:
            asyncio.get_running_loop().call_later(delay_s + 1, self._forget_second, tenant, back_at)
        delayed[back_at] += 1
        return delay_s

    def started(self, tenant: str) -> None:
        """Take note that a job of a tenant runs."""
        self._rate(tenant).count(self.slots.clock.monotonic())

    def left(self, place: Place) -> None:
        """Count a job as no longer in memory."""
        self._bytes -= place.size
        self._jobs[place.tenant] -= 1
        if self._jobs[place.tenant] <= 0:
            del self._jobs[place.tenant]
        self._forget(place.tenant)

    def _forget_second(self, tenant: str, back_at: int) -> None:
        """Count no longer what came back."""
        self._delayed.get(tenant, Counter()).pop(back_at, None)
        self._forget(tenant)

    def _rate(self, tenant: str) -> "_StartRate":
        if tenant not in self._rates:
            self._rates[tenant] = _StartRate(self.slots.clock.monotonic())
        return self._rates[tenant]

    def _forget(self, tenant: str) -> None:
        if tenant not in self._jobs and not self._delayed.get(tenant):
            self._rates.pop(tenant, None)
            self._delayed.pop(tenant, None)


class _StartRate:
    """Jobs of one tenant that are started in a second, by the last whole second."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._count = 0
        self._per_s: float | None = None

    def count(self, now: float) -> None:
        """Count one start."""
        self._roll(now)
        self._count += 1

    def per_s(self, now: float) -> float | None:
        """Return the rate; None within the first second."""
        self._roll(now)
        return self._per_s

    def _roll(self, now: float) -> None:
        if (elapsed_s := now - self._since) >= 1.0:
            self._per_s, self._count, self._since = self._count / elapsed_s, 0, now


def _first_step(delayed: Counter[int], now: float, returns_per_s: float, lasts_s: float) -> float:
    """Return the first step by which fewer jobs come back than find room until the next step.

    Args:
        lasts_s: for how long the jobs in memory keep the slots busy.
    """
    for step_s, next_s in pairwise(RETURN_S):
        due = sum(count for second, count in delayed.items() if now <= second <= now + step_s)
        if due < returns_per_s * max(step_s, min(next_s - lasts_s, BRIDGE * step_s)):
            return step_s
    return RETURN_S[-1]
