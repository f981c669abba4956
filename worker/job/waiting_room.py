"""The jobs of one queue that are in memory: more than slots, bounded, and never those of one tenant alone."""

import asyncio
import random
from collections import Counter
from typing import Final

from connectors.sdk.runtime.deadline import Deadline
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.job_slot import JobSlot

#: Jobs in memory for each slot: one runs, one waits for its turn, one for vault or ledger, one for its end's record.
PER_SLOT: Final = 4
#: What the protocol can say.
MOST_PREFETCH: Final = 65_535
#: Bytes of bodies in memory, for each queue.
MAX_BYTES: Final = 64 * 1024 * 1024
#: A tenant may fill so many times what it leaves free: one alone three quarters of the room, two 43 % each.
GREED: Final = 3
#: One place in so many is any tenant's, however full the room is.
LEAST_SHARE: Final = 16
#: Delayed jobs of one tenant that come back to the queue in a second, at least; or a fifth more than it starts. Enough
#: to keep its slots busy, and few enough that another tenant's job finds next to nothing before it.
RETURNS_PER_S: Final = 200.0
RETURNS_PER_START: Final = 1.2
#: Jobs that each slot is believed to start in a second, until that is known.
FIRST_STARTS_PER_S: Final = 5.0
#: Seconds after which a delayed job may come back, each a retry queue of its own.
RETURN_S: Final = (1.0, 5.0, 30.0, 120.0)
#: Wanted delays below this take the shortest step, and none below the other takes the longest: the last jobs of a
#: flood would be away when there is room for them.
BRIEF_S: Final = 2.0
LONG_S: Final = 60.0
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
        self.capacity = min(PER_SLOT * (slots.bulk_total if bulk else slots.total), MOST_PREFETCH)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._jobs: Counter[str] = Counter()
        #: Jobs that are on their way round.
        self._delayed: Counter[str] = Counter()
        self._rates: dict[str, _StartRate] = {}

    def enter(self, tenant: str, size: int) -> Place:
        """Count a job as in memory until it leaves."""
        self._jobs[tenant] += 1
        self._bytes += size
        return Place(self, tenant, size)

    def is_full_for(self, tenant: str) -> bool:
        """Return whether a tenant, its newest job counted, has more in memory than it may."""
        jobs = self._jobs[tenant]
        free = self.capacity - self._jobs.total()
        if jobs > max(1, self.capacity // LEAST_SHARE, GREED * free):
            return True
        return self._bytes > self._max_bytes and jobs > 1

    def delay_s(self, tenant: str, deadline: Deadline) -> float | None:
        """Return when a job comes back that finds no room; None if its deadline is too near to be sent round.

        The more jobs of its tenant are on their way, the later: as they are started, about.
        """
        rate = self._rate(tenant).per_s(self.slots.clock.monotonic())
        if rate is None:
            rate = FIRST_STARTS_PER_S * self.slots.total
        wanted_s = (self._delayed[tenant] + 1) / max(RETURNS_PER_S, RETURNS_PER_START * rate)
        delay_s = _step_for(wanted_s, random.random())  # noqa: S311  # no secret
        remaining_s = deadline.remaining_s()
        if remaining_s is not None:
            fitting = [each for each in RETURN_S if each <= min(delay_s, remaining_s - DEADLINE_SLACK_S)]
            if not fitting:
                return None
            delay_s = fitting[-1]
        self._delayed[tenant] += 1
        asyncio.get_running_loop().call_later(delay_s, self._count_back, tenant)
        return delay_s

    def started(self, tenant: str) -> None:
        """Take note that a job of a tenant runs."""
        self._rate(tenant).count(self.slots.clock.monotonic())

    def left(self, place: Place) -> None:
        """Count a job as no longer in memory."""
        self._bytes -= place.size
        jobs = self._jobs[place.tenant] = self._jobs[place.tenant] - 1
        if jobs <= 0:
            del self._jobs[place.tenant]
            self._forget(place.tenant)

    def _count_back(self, tenant: str) -> None:
        self._delayed[tenant] -= 1
        if self._delayed[tenant] <= 0:
            del self._delayed[tenant]
        self._forget(tenant)

    def _rate(self, tenant: str) -> "_StartRate":
        if tenant not in self._rates:
            self._rates[tenant] = _StartRate(self.slots.clock.monotonic())
        return self._rates[tenant]

    def _forget(self, tenant: str) -> None:
        if tenant not in self._jobs and tenant not in self._delayed:
            self._rates.pop(tenant, None)


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


def _step_for(wanted_s: float, random_fraction: float) -> float:
    """Return one of the two steps around a delay, each so often that jobs come back at the rate that it stands for."""
    steps = RETURN_S[:1] if wanted_s < BRIEF_S else RETURN_S[:-1] if wanted_s < LONG_S else RETURN_S
    longer = next((step_s for step_s in steps if step_s >= wanted_s), steps[-1])
    shorter = max((step_s for step_s in RETURN_S if step_s < longer), default=longer)
    if wanted_s >= longer or shorter >= longer:
        return longer
    share = (1 / wanted_s - 1 / longer) / (1 / shorter - 1 / longer)
    return shorter if random_fraction < share else longer
