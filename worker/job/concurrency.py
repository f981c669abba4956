"""Concurrency limits: the slots of a queue, the share of bulk work and of one tenant."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

#: Jobs of one tenant over its limit that come back to the queue in a second, about: enough to keep its
#: slots busy, and few enough that another tenant's job finds next to nothing before it.
RETURNS_PER_S: Final = 200
#: Seconds after which a job over its tenant's share may come back, each the delay of a retry queue.
RETURN_S: Final = (1.0, 5.0, 30.0, 120.0)


class ConcurrencyLimiter:
    """The slots of one connector's queue, shared by its jobs and its bulk jobs.

    Bulk work holds a quarter at most, so that waiting callers get the rest. Waiters are served in order.
    """

    def __init__(
        self,
        total: int,
        *,
        tenant_total: int | None = None,
        on_change: Callable[[int, int], None] | None = None,
    ) -> None:
        self.total = total
        #: Slots that one tenant may hold; the rest is for the others.
        self.tenant_total = tenant_total or total
        self._by_tenant: Counter[str] = Counter()
        #: Jobs over their tenant's limit that are delayed now.
        self._delayed: Counter[str] = Counter()
        self.bulk_total = max(1, total // 4)
        self._free = asyncio.Semaphore(total)
        self._bulk_free = asyncio.Semaphore(self.bulk_total)
        self._used = 0
        self._on_change = on_change

    @property
    def used(self) -> int:
        """Slots that are held."""
        return self._used

    @asynccontextmanager
    async def hold(self, *, bulk: bool = False) -> AsyncIterator[None]:
        """Hold a slot; wait for one if all are taken."""
        if bulk:
            async with self._bulk_free, self._free:
                self._count(1)
                try:
                    yield
                finally:
                    self._count(-1)
        else:
            async with self._free:
                self._count(1)
                try:
                    yield
                finally:
                    self._count(-1)

    @contextmanager
    def admit(self, tenant: str) -> Iterator[bool]:
        """Return whether a tenant may run one more job here, and count it while it runs."""
        admitted = self._by_tenant[tenant] < self.tenant_total
        self._by_tenant[tenant] += admitted
        try:
            yield admitted
        finally:
            self._by_tenant[tenant] -= admitted
            if self._by_tenant[tenant] <= 0:
                del self._by_tenant[tenant]

    def delay_over_limit(self, tenant: str) -> float:
        """Return a jittered delay for a job over its tenant's limit; it grows with the number already delayed.

        Without jitter, jobs delayed together would come back together, and the slots would be empty in
        between.
        """
        self._delayed[tenant] += 1
        wanted_s = random.uniform(0, 2) * self._delayed[tenant] / RETURNS_PER_S  # noqa: S311  # no secret
        return_s = next((step_s for step_s in RETURN_S if step_s >= wanted_s), RETURN_S[-1])
        asyncio.get_running_loop().call_later(return_s, self._count_back, tenant)
        return return_s

    def _count_back(self, tenant: str) -> None:
        self._delayed[tenant] -= 1
        if self._delayed[tenant] <= 0:
            del self._delayed[tenant]

    def _count(self, change: int) -> None:
        self._used += change
        if self._on_change is not None:
            self._on_change(self._used, self.total - self._used)
