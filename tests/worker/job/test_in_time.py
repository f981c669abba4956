"""A caller hears by its deadline, and no job waits for another's outage: the whole core with no broker, two slots."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.sdk.runtime.action_runner import CLEAN_UP_S
from connectors.sdk.runtime.lease import LeasePolicy
from tests.support.job_bench import SLOTS, Bench
from worker.job.headers import JobHeaders


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.close()


async def test_a_job_without_a_slot_is_answered_at_its_deadline(bench: Bench) -> None:
    for number, tenant in enumerate("ab"):
        bench.send("look", f"busy-{number}", tenant)
    await bench.started("busy-0", "busy-1")
    bench.send("quick", "read", "c", seconds=2)
    bench.send("order", "write", "c", seconds=2)
    await bench.until(lambda: bench.processor.in_flight == 4)

    bench.clock.skip(2)

    assert ["DEADLINE_EXCEEDED not_started"] * 2 == await bench.replied("read", "write")
    assert {"read", "write"}.isdisjoint(bench.shop.started)


async def test_a_job_without_a_slot_is_told_of_its_effect_at_its_deadline(bench: Bench) -> None:
    bench.shop.gate.set()
    bench.send("order", "first", idempotency_key="k")
    await bench.replied("first")
    bench.shop.gate.clear()
    for number, tenant in enumerate("ab"):
        bench.send("look", f"busy-{number}", tenant)
    await bench.started("busy-0", "busy-1")
    bench.send("order", "again", seconds=2, idempotency_key="k")
    await bench.until(lambda: bench.processor.in_flight == 3)

    bench.clock.skip(2)

    assert ["succeeded"] == await bench.replied("again")
    assert bench.replies["again"].replayed


async def test_one_tenant_alone_runs_on_every_slot(bench: Bench) -> None:
    for number in range(SLOTS):
        bench.send("look", str(number))

    await bench.started("0", "1")


async def test_a_slot_is_free_once_a_write_is_past_its_deadline(bench: Bench) -> None:
    for number in range(SLOTS):
        bench.send("order", f"late-{number}", tenant=f"t{number}", seconds=1)
    await bench.started("late-0", "late-1")
    bench.clock.skip(1)
    assert ["DEADLINE_EXCEEDED unknown"] * 2 == await bench.replied("late-0", "late-1")

    bench.send("quick", "read", "c", seconds=3)

    assert ["succeeded"] == await bench.replied("read")
    assert [] == [each for each in bench.acked if each.startswith("late")], "their ends are recorded first"
    bench.shop.gate.set()
    await bench.until(lambda: bench.processor.in_flight == 0)
    assert {"late-0", "late-1"} <= set(bench.acked)


async def test_a_sealed_vault_keeps_no_other_job_from_running(bench: Bench) -> None:
    bench.vault.sealed = {"a"}
    for number in range(SLOTS):
        bench.send("quick", f"waits-{number}")

    bench.send("quick", "runs", "b")

    assert ["succeeded"] == await bench.replied("runs")
    assert {"runs"} == bench.replies.keys()
    bench.vault.unsealed.set()
    assert ["succeeded"] * 2 == await bench.replied("waits-0", "waits-1")


async def test_more_jobs_than_may_wait_for_the_vault_come_back_later(bench: Bench) -> None:
    bench.vault.sealed = {"a"}

    for number in range(SLOTS + 1):
        bench.send("quick", f"waits-{number}")

    await bench.until(lambda: bench.delays)
    assert ["waits-2"] == list(bench.delays)


async def test_a_ledger_that_is_down_keeps_no_read_from_running(bench: Bench) -> None:
    bench.ledger.is_down = True
    for number in range(SLOTS):
        bench.send("order", f"waits-{number}")

    bench.send("quick", "runs", "b")

    assert ["succeeded"] == await bench.replied("runs")
    assert [] == [each for each in bench.shop.started if each.startswith("waits")]


async def test_a_vault_that_hangs_holds_no_slot_and_no_caller() -> None:
    bench = Bench(prompt_s=0)
    bench.vault.hanging = {"a"}
    for number in range(SLOTS):
        bench.send("quick", f"cold-{number}", seconds=5)

    bench.send("quick", "runs", "b")
    assert ["succeeded"] == await bench.replied("runs")
    bench.clock.skip(5)

    assert ["DEADLINE_EXCEEDED not_started"] * 2 == await bench.replied("cold-0", "cold-1")
    await bench.close()


async def test_more_jobs_than_may_wait_for_a_hanging_vault_come_back_later() -> None:
    bench = Bench(prompt_s=0)
    bench.vault.hanging = {"a"}

    for number in range(SLOTS + 1):
        bench.send("quick", f"cold-{number}")

    await bench.until(lambda: bench.delays)
    assert ["cold-2"] == list(bench.delays)
    bench.send("quick", "runs", "b")
    assert ["succeeded"] == await bench.replied("runs")
    await bench.close()


async def test_a_read_that_cleans_up_slowly_is_answered_at_its_deadline(bench: Bench) -> None:
    for number in range(SLOTS):
        bench.send("tidy", f"slow-{number}", tenant=f"t{number}", seconds=1)
    await bench.started("slow-0", "slow-1")

    bench.clock.skip(1)

    assert ["DEADLINE_EXCEEDED unknown"] * 2 == await bench.replied("slow-0", "slow-1")
    bench.send("quick", "next", "b")
    assert ["succeeded"] == await bench.replied("next"), "cleaning up holds no slot"


async def test_a_copy_that_waits_for_the_first_holds_no_slot(bench: Bench) -> None:
    bench.send("order", "first", idempotency_key="k")
    await bench.started("first")
    bench.send("order", "copy", idempotency_key="k")

    bench.send("quick", "runs", "b")

    assert ["succeeded"] == await bench.replied("runs")
    bench.shop.gate.set()
    assert ["succeeded"] * 2 == await bench.replied("first", "copy")
    assert ["first", "runs"] == bench.shop.started


async def test_a_job_that_waits_for_a_named_lease_holds_no_slot(bench: Bench) -> None:
    bench.send("book", "first")
    await bench.started("first")
    bench.send("book", "second")
    await bench.started("second")

    bench.send("quick", "runs", "b")

    assert ["succeeded"] == await bench.replied("runs")
    bench.shop.gate.set()
    assert ["succeeded"] * 2 == await bench.replied("first", "second")


async def test_a_flood_goes_round_but_for_jobs_whose_deadline_is_near(bench: Bench) -> None:
    for number in range(6):
        bench.send("look", f"flood-{number}")
    await bench.started("flood-0", "flood-1")

    bench.send("quick", "later", seconds=60)
    bench.send("quick", "near", seconds=0.2)
    await bench.until(lambda: "later" in bench.delays)
    bench.clock.skip(0.2)

    assert ["DEADLINE_EXCEEDED not_started"] == await bench.replied("near")
    assert "near" not in bench.delays


async def test_a_delay_of_five_seconds_goes_through_the_queue_of_five_seconds(bench: Bench) -> None:
    """Not five times through that of one second, because a moment of it had passed."""
    bench.vault.sealed = {"a"}
    for number in range(SLOTS + 1):
        bench.send("quick", str(number), headers=JobHeaders(bench.clock.now(), snoozes=6).write())

    await bench.until(lambda: bench.delays)
    assert {"2": "5s"} == bench.retry_queues


async def test_a_snoozed_job_whose_deadline_is_near_waits_here(bench: Bench) -> None:
    """In a retry queue it would stay for a second at least."""
    bench.send("order", "first", idempotency_key="k")
    await bench.started("first")
    bench.executor._idempotent._running.clear()  # as if another worker ran it

    bench.send("order", "again", "a", seconds=1, idempotency_key="k")
    await bench.until(lambda: bench.processor.in_flight == 2)
    bench.clock.skip(1)

    assert ["DEADLINE_EXCEEDED unknown"] == await bench.replied("again")
    assert not bench.delays


async def test_a_stopping_worker_delays_what_waits_for_a_slot(bench: Bench) -> None:
    for number, tenant in enumerate("aab"):
        bench.send("look", str(number), tenant)
    await bench.started("0", "1")

    draining = asyncio.create_task(bench.processor.drain(20))
    await bench.until(lambda: "2" in bench.acked)
    assert [("2", 0)] == [(id, headers.attempts) for id, headers in bench.delays.items()]
    bench.shop.gate.set()

    assert 0 == await draining
    assert {"0", "1"} == bench.replies.keys()


async def test_hung_threads_are_replaced_counted_and_named(bench: Bench) -> None:
    hung = [f"hung-{number}" for number in range(2 * SLOTS)]
    for pair in (hung[:SLOTS], hung[SLOTS:]):
        assert bench.executor.hung.fault is None
        for id in pair:
            bench.send("block", id, tenant=id, seconds=1)
        await bench.started(*pair)
        bench.clock.skip(1)
        await bench.replied(*pair)

    assert {"shop.block": 2 * SLOTS} == bench.executor.hung.by_action
    assert "4 calls of shop hang (block); restart the worker" == bench.executor.hung.fault
    assert b'connectors_hung_calls{connector="shop"} 4.0' in bench.metrics.render()
    bench.send("block", "next", "b")
    await bench.started("next")
    bench.shop.thread_gate.set()
    assert ["succeeded"] == await bench.replied("next")
    await bench.until(lambda: not bench.executor.hung.by_action)
    assert bench.executor.hung.fault is None


async def test_a_task_that_ignores_its_cancellation_is_counted_as_hung(bench: Bench) -> None:
    bench.send("tidy", "stubborn", seconds=1)
    await bench.started("stubborn")

    bench.clock.skip(1)
    await bench.replied("stubborn")
    bench.clock.skip(2)

    await bench.until(lambda: bench.executor.hung.by_action == {"shop.tidy": 1})
    bench.shop.gate.set()
    await bench.until(lambda: not bench.executor.hung.by_action)


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        ("stubborn_read", "DEADLINE_EXCEEDED unknown"),
        ("stubborn_keyed", "DEADLINE_EXCEEDED unknown"),
        ("stubborn_write", "DEADLINE_EXCEEDED unknown"),
    ],
)
async def test_a_call_that_swallows_its_cancellation_holds_no_job(
    bench: Bench, action: str, reply: str
) -> None:
    bench.send(action, "stubborn", seconds=1)
    await bench.started("stubborn")

    bench.clock.skip(1)
    replied = await bench.replied("stubborn")
    bench.clock.skip(CLEAN_UP_S)
    await bench.until(lambda: bench.executor.hung.by_action == {f"shop.{action}": 1})
    if action == "stubborn_write":
        assert [] == bench.acked, "it may land yet: its claim is kept"
        bench.clock.skip(LeasePolicy().hung_s)

    assert [reply] == replied
    await bench.until(lambda: bench.processor.in_flight == 0)
    assert ["stubborn"] == bench.acked
    assert {f"shop.{action}": 1} == bench.executor.hung.by_action
