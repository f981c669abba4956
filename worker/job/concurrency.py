"""Which job runs next: the slots of a connector, shared fairly by its tenants and its bulk work."""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Final

from connectors.sdk.runtime.clock import Clock, SystemClock
from worker.job.job_slot import JobSlot, SlotState

#: One slot in so many is kept from a tenant that holds its share already: another tenant's first job then starts at
#: once. Fewer slots than that have no reserve while a tenant is alone.
RESERVE_ALONE: Final = 32
#: The same if another tenant was seen lately; then there is always one.
RESERVE_SHARED: Final = 20
#: Seconds for which another tenant counts as seen lately.
NEIGHBOUR_S: Final = 600.0


class ConcurrencyLimiter:
    """The slots of one connector, shared by the jobs of its queue and its bulk queue.

    A free slot goes to the first of these that waits, round robin over tenants:

    1. a tenant that holds less than `tenant_total`
    2. its bulk work: a quarter of the slots at most, because a caller who comes next must find room
    3. a tenant that holds more, as long as the reserve stays free; then its bulk work

    So one tenant may hold nearly all slots while no one else waits, and then each slot that comes free is another's.
    """

    def __init__(
        self,
        total: int,
        *,
        tenant_total: int | None = None,
        on_change: Callable[[int, int], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.total = total
        #: Slots that one tenant may hold while another tenant waits.
        self.tenant_total = tenant_total or total
        #: Slots of bulk work.
        self.bulk_total = max(1, total // 4)
        self.clock = clock or SystemClock()
        self.is_closed = False
        self._on_change = on_change
        #: By state, by tenant.
        self._held: dict[SlotState, Counter[str]] = {state: Counter() for state in SlotState}
        #: How many are in a state, for bulk work and for the rest.
        self._count = {(state, bulk): 0 for state in SlotState for bulk in (False, True)}
        #: By bulk, by tenant; the tenant that waited longest for its turn comes first.
        self._waiting: dict[bool, OrderedDict[str, deque[JobSlot]]] = {
            False: OrderedDict(),
            True: OrderedDict(),
        }
        #: The last two tenants, and when each was seen.
        self._seen: OrderedDict[str, float] = OrderedDict()

    @property
    def used(self) -> int:
        """Slots that are held."""
        return self._in(SlotState.RUNNING)

    def slot(self, tenant: str, *, bulk: bool = False) -> JobSlot:
        """Create the slot of a job that has come; it holds nothing yet."""
        self._seen[tenant] = self.clock.monotonic()
        self._seen.move_to_end(tenant)
        if len(self._seen) > 2:
            self._seen.popitem(last=False)
        return JobSlot(self, tenant, bulk=bulk)

    def close(self) -> None:
        """Start no job any more: the worker drains. Jobs that were started and paused still go on."""
        self.is_closed = True
        for tenants in self._waiting.values():
            for slot in [slot for waiting in tenants.values() for slot in waiting if not slot.was_started]:
                slot.end()

    def wait(self, slot: JobSlot, *, first: bool) -> None:
        """Grant the slot to a job as soon as it may run."""
        waiting = self._waiting[slot.bulk].setdefault(slot.tenant, deque())
        waiting.appendleft(slot) if first else waiting.append(slot)
        self._give_out()

    def may_become(self, slot: JobSlot, state: SlotState) -> bool:
        """Return whether one more job may be paused or finishing: as many as there are slots, all told.

        Of one tenant no more may be finishing than may run beside others: a provider that hangs is felt by its own.
        """
        if state is SlotState.FINISHING and self._held[state][slot.tenant] >= self.tenant_total:
            return False
        return self._in(state) < self.total

    def changed(self, slot: JobSlot, before: SlotState) -> None:
        """Count a slot's new state, and give out what it left."""
        is_started = slot.state is SlotState.RUNNING
        if before is SlotState.WAITING and not is_started:
            self._forget(slot)
        self._add(slot, before, -1)
        self._add(slot, slot.state, 1)
        if (before is SlotState.RUNNING or is_started) and self._on_change is not None:
            used = self.used
            self._on_change(used, self.total - used)
        if before is SlotState.RUNNING or (before is SlotState.WAITING and not is_started):
            self._give_out()

    def _add(self, slot: JobSlot, state: SlotState, change: int) -> None:
        if state is SlotState.NONE:
            return
        held = self._held[state]
        count = held[slot.tenant] = held.get(slot.tenant, 0) + change
        if count <= 0:
            del held[slot.tenant]
        self._count[state, slot.bulk] += change

    def _in(self, state: SlotState) -> int:
        return self._count[state, False] + self._count[state, True]

    def _forget(self, slot: JobSlot) -> None:
        """Remove a job that waits no more; one that starts was removed by who started it."""
        tenants = self._waiting[slot.bulk]
        waiting = tenants.get(slot.tenant)
        if waiting is not None and slot in waiting:
            waiting.remove(slot)
            if not waiting:
                del tenants[slot.tenant]

    def _give_out(self) -> None:
        """Start the jobs that may run now."""
        while any(self._waiting.values()) and self.used < self.total and (slot := self._next()) is not None:
            tenants = self._waiting[slot.bulk]
            waiting = tenants[slot.tenant]
            waiting.popleft()
            tenants.move_to_end(slot.tenant)
            if not waiting:
                del tenants[slot.tenant]
            slot.become(SlotState.RUNNING)

    def _next(self) -> JobSlot | None:
        for over_share in (False, True):
            for bulk, tenants in self._waiting.items():
                for tenant, waiting in tenants.items():
                    is_over = self._held[SlotState.RUNNING][tenant] >= self.tenant_total
                    if is_over is over_share and self._may_start(tenant, bulk=bulk, over_share=over_share):
                        return waiting[0]
        return None

    def _may_start(self, tenant: str, *, bulk: bool, over_share: bool) -> bool:
        if bulk and self._count[SlotState.RUNNING, True] >= self.bulk_total:
            return False
        if not bulk and not over_share:
            return True
        return self.total - self.used > self._reserve(tenant)

    def _reserve(self, tenant: str) -> int:
        since = self.clock.monotonic() - NEIGHBOUR_S
        if any(other != tenant and at > since for other, at in self._seen.items()):
            return min(max(1, self.total // RESERVE_SHARED), self.total - 1)
        return self.total // RESERVE_ALONE
