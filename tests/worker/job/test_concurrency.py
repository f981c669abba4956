"""The slots of a connector: who runs next, and who only waits without one."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.testing import FakeClock
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.job_slot import JobSlot, SlotState


class Slots:
    """A limiter, and jobs that ask it for slots."""

    def __init__(self, total: int, tenant_total: int | None = None) -> None:
        self.clock = FakeClock()
        self.limiter = ConcurrencyLimiter(total, tenant_total=tenant_total, clock=self.clock)
        self.asking: dict[JobSlot, asyncio.Task[bool]] = {}

    async def ask(self, tenants: str, *, bulk: bool = False, seconds: float | None = None) -> list[JobSlot]:
        """Let a job of each tenant ask for a slot, in this order."""
        slots = [self.limiter.slot(tenant, bulk=bulk) for tenant in tenants]
        at = None if seconds is None else self.clock.now() + timedelta(seconds=seconds)
        for slot in slots:
            self.asking[slot] = asyncio.create_task(slot.take(Deadline(at, self.clock)))
            await asyncio.sleep(0)
        return slots

    @property
    def running(self) -> Counter[str]:
        """How many jobs of each tenant run."""
        return Counter(slot.tenant for slot in self.asking if slot.state is SlotState.RUNNING)

    def end_one(self, tenant: str) -> None:
        """Let a running job of a tenant end."""
        next(each for each in self.asking if each.tenant == tenant and each.state is SlotState.RUNNING).end()


def states(slots: Sequence[JobSlot]) -> list[str]:
    return [slot.state.name for slot in slots]


async def test_one_tenant_alone_holds_every_slot_of_few() -> None:
    slots = Slots(20, tenant_total=10)

    await slots.ask("a" * 25)

    assert {"a": 20} == slots.running


async def test_one_tenant_alone_leaves_a_small_reserve_of_many() -> None:
    slots = Slots(100, tenant_total=50)

    await slots.ask("a" * 120)

    assert {"a": 97} == slots.running


async def test_another_tenants_first_job_starts_at_once_from_the_reserve() -> None:
    slots = Slots(100, tenant_total=50)
    await slots.ask("a" * 120)

    (other,) = await slots.ask("b")

    assert SlotState.RUNNING is other.state


async def test_few_slots_keep_a_reserve_once_another_tenant_was_seen() -> None:
    slots = Slots(4, tenant_total=2)
    (other,) = await slots.ask("b")
    other.end()

    await slots.ask("a" * 6)

    assert {"a": 3} == slots.running


async def test_slots_that_come_free_go_to_the_tenant_below_its_share() -> None:
    slots = Slots(4, tenant_total=2)
    await slots.ask("aaaaaa")
    await slots.ask("bbb")

    for _ in range(2):
        slots.end_one("a")

    assert {"a": 2, "b": 2} == slots.running


async def test_waiting_tenants_take_turns() -> None:
    slots = Slots(1)
    (first,) = await slots.ask("x")
    waiting = await slots.ask("aaabbc")
    order = []

    first.end()
    while (now := next((each for each in waiting if each.state is SlotState.RUNNING), None)) is not None:
        order.append(now.tenant)
        now.end()

    assert list("abcaba") == order


async def test_a_job_that_waits_for_a_slot_is_told_at_its_deadline() -> None:
    slots = Slots(1)
    await slots.ask("a")
    (late,) = await slots.ask("b", seconds=2)

    slots.clock.skip(2)

    assert not await slots.asking[late]
    assert SlotState.NONE is late.state


async def test_bulk_work_holds_a_quarter_of_the_slots() -> None:
    slots = Slots(8)

    bulk = await slots.ask("bbbb", bulk=True)

    assert ["RUNNING", "RUNNING", "WAITING", "WAITING"] == states(bulk)


async def test_calls_go_before_bulk_work_that_came_earlier() -> None:
    slots = Slots(4)
    await slots.ask("aaaa")
    (bulk,) = await slots.ask("b", bulk=True)
    (call,) = await slots.ask("c")

    slots.end_one("a")

    assert ["WAITING", "RUNNING"] == states([bulk, call])


async def test_a_paused_job_lets_another_run_and_resumes_first_of_its_tenant() -> None:
    slots = Slots(1)
    paused, *waiting = await slots.ask("aaa")

    assert paused.pause()
    resuming = asyncio.create_task(paused.resume())
    await asyncio.sleep(0)
    assert ["WAITING", "RUNNING", "WAITING"] == states([paused, *waiting])
    waiting[0].end()
    await resuming

    assert ["RUNNING", "NONE", "WAITING"] == states([paused, *waiting])


async def test_a_resume_ends_at_the_deadline() -> None:
    slots = Slots(1)
    paused, _ = await slots.ask("ab", seconds=5)
    paused.pause()
    resuming = asyncio.create_task(paused.resume())
    await asyncio.sleep(0)

    slots.clock.skip(5)
    await resuming

    assert SlotState.NONE is paused.state


async def test_no_more_jobs_are_paused_than_there_are_slots() -> None:
    slots = Slots(2)
    for _ in range(2):
        first, *_rest = await slots.ask("a")
        assert first.pause()
    (third,) = await slots.ask("a")

    assert not third.pause()
    assert SlotState.RUNNING is third.state


async def test_a_write_past_its_deadline_holds_no_slot() -> None:
    slots = Slots(2, tenant_total=1)
    late, _other = await slots.ask("ab")
    (waiting,) = await slots.ask("c")

    late.release()

    assert ["FINISHING", "RUNNING"] == states([late, waiting])


async def test_late_writes_beyond_a_tenants_share_keep_their_slots() -> None:
    slots = Slots(4, tenant_total=1)
    late = await slots.ask("aaa")

    for each in late:
        each.release()

    assert ["FINISHING", "RUNNING", "RUNNING"] == states(late)


async def test_a_stopping_worker_starts_no_job_that_waits() -> None:
    slots = Slots(1)
    (running,) = await slots.ask("a")
    (waiting,) = await slots.ask("a")

    slots.limiter.close()
    running.end()

    assert not await slots.asking[waiting]


async def test_a_cancelled_job_frees_its_place_in_the_queue() -> None:
    slots = Slots(1)
    (running,) = await slots.ask("a")
    gone, waiting = await slots.ask("aa")

    slots.asking[gone].cancel()
    await asyncio.wait([slots.asking[gone]])
    running.end()

    assert ["NONE", "RUNNING"] == states([gone, waiting])


_STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "bulk", "end", "pause", "resume", "release"]), st.integers(0, 30)),
    max_size=60,
)


@pytest.mark.parametrize("total", [1, 5, 40])
@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_no_slot_is_ever_lost_or_lies_idle(total: int, steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        slots = Slots(total, tenant_total=max(1, total // 2))
        for step, number in steps:
            jobs = list(slots.asking)
            if step in {"ask", "bulk"}:
                await slots.ask("abc"[number % 3], bulk=step == "bulk")
            elif jobs:
                slot = jobs[number % len(jobs)]
                if step == "resume":
                    slots.asking[slot] = asyncio.create_task(_resume(slot))
                    await asyncio.sleep(0)
                else:
                    {"end": slot.end, "pause": slot.pause, "release": slot.release}[step]()
            limiter = slots.limiter
            assert slots.running.total() == limiter.used <= total
            callers = [each for each in slots.asking if each.state is SlotState.WAITING and not each.bulk]
            reserve = max(1, total // 20) if total > 1 else 0
            assert not callers or total - limiter.used <= reserve, "a slot lies idle"
        for slot in list(slots.asking):
            slot.end()
        await asyncio.gather(*slots.asking.values())
        assert 0 == slots.limiter.used

    asyncio.run(play())


async def _resume(slot: JobSlot) -> bool:
    await slot.resume()
    return slot.state is SlotState.RUNNING
