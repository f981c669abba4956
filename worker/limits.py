"""Who may run how much at once: the slots of a lane, and the share of bulk work in them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager


class Slots:
    """The slots of one connector's lane, shared by its jobs and its bulk jobs.

    Bulk work holds a quarter at most, so that whoever waits on the line finds the rest. Waiters
    are served in order.
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
        """Hold a slot, waiting for one where all are taken."""
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
        """Say whether a tenant may run one more job here, and count it while it runs."""
        admitted = self._by_tenant[tenant] < self.tenant_total
        self._by_tenant[tenant] += admitted
        try:
            yield admitted
        finally:
            self._by_tenant[tenant] -= admitted
            if self._by_tenant[tenant] <= 0:
                del self._by_tenant[tenant]

    def _count(self, change: int) -> None:
        self._used += change
        if self._on_change is not None:
            self._on_change(self._used, self.total - self._used)
