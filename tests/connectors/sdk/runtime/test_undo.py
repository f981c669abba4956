"""Undoing an effect: what was undone stays undone, and what was refused stays as it was."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from connectors.sdk import Connector, Context, Effect, PermissionDenied, Timeout
from connectors.sdk.errors import Code
from connectors.sdk.runtime.ledger import Identity, LedgerUnavailable
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.testing import Kit
from tests.support.runtime_bench import KEY, Bench, open_bench, said


class DyingWorkersLedger(MemoryLedger):
    """A ledger that no worker gives a claim back to: they die before."""

    async def release(self, identity: Identity, fence: int, **_: bool) -> bool:
        raise LedgerUnavailable("the worker is dead")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench


async def test_an_undo_that_is_refused_leaves_the_effect_as_it_was(bench: Bench) -> None:
    await bench.run("keyed")
    bench.shop.undo_error = PermissionDenied("no right to cancel")

    undone = await bench.run("keyed", mode="undo")
    again = await bench.run("keyed")

    assert Code.PERMISSION_DENIED is said(undone)[0]
    assert ("order 1", True) == (again.data, again.replayed)


async def test_an_undo_whose_answer_was_lost_is_tried_again_and_nothing_runs(bench: Bench) -> None:
    await bench.run("keyed")
    bench.shop.undo_error = Timeout("no answer")
    undone = await bench.run("keyed", mode="undo")
    run = await bench.run("keyed")
    bench.shop.undo_error = None

    again = await bench.run("keyed", mode="undo")

    assert (Code.TIMEOUT, True) == (said(undone)[0], undone.is_uncertain)
    assert (Code.CONFLICT, "undone") == said(run)
    assert ({"undone": True}, []) == (again.data, bench.shop.orders)


async def test_a_hook_that_ignores_its_cancellation_holds_no_one_up() -> None:
    shop = Connector("shop")
    released = asyncio.Event()

    @shop.action(effect=Effect.KEYED, timeout_s=0.05)
    async def order(ctx: Context) -> str:
        return "ordered"

    @order.undo
    async def cancel(ctx: Context) -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with Kit(shop, max_attempts=1) as kit:
        await kit.run("order", key=KEY)
        undo = asyncio.create_task(kit.run("order", key=KEY, mode="undo"))
        while not undo.done():
            await asyncio.sleep(0.01)
            kit.clock.skip(10)
        released.set()

        assert Code.TIMEOUT is (await undo).code


async def test_an_undo_is_answered_again_without_a_second_call(bench: Bench) -> None:
    await bench.run("keyed")
    first = await bench.run("keyed", mode="undo")
    bench.shop.undo_error = PermissionDenied("called again")

    again = await bench.run("keyed", mode="undo")

    assert [({"undone": True}, False), ({"undone": True}, True)] == [
        (first.data, first.replayed),
        (again.data, again.replayed),
    ]


async def test_an_undo_before_its_run_keeps_the_run_from_starting(bench: Bench) -> None:
    undone = await bench.run("keyed", mode="undo")

    run = await bench.run("keyed")

    assert {"undone": True} == undone.data
    assert (Code.CONFLICT, "undone") == said(run)
    assert [] == bench.shop.orders


async def test_a_refusal_unsays_no_undo_that_may_have_happened(bench: Bench) -> None:
    await bench.run("keyed")
    bench.shop.undo_error = Timeout("the answer was lost")
    await bench.run("keyed", mode="undo")
    bench.shop.undo_error = PermissionDenied("no right any more")

    refused = await bench.run("keyed", mode="undo")  # a job of its own: no header tells it of the first
    run = await bench.run("keyed")

    assert (Code.PERMISSION_DENIED, True) == (said(refused)[0], refused.is_uncertain)
    assert (Code.CONFLICT, "undone") == said(run)


async def test_what_the_undo_of_a_dead_worker_did_is_not_unsaid_by_a_refusal(bench: Bench) -> None:
    bench.ledger = DyingWorkersLedger(bench.clock)
    await bench.run("keyed")
    calling = asyncio.Event()

    async def wait_forever() -> None:
        calling.set()
        await asyncio.Event().wait()

    bench.shop.then_undo = wait_forever
    dying = bench.worker()
    undo = asyncio.create_task(bench.run("keyed", dying, mode="undo"))
    await calling.wait()
    await dying.close()
    undo.cancel()
    bench.clock.skip(60)
    bench.shop.undo_error = PermissionDenied("no right any more")

    refused = await bench.run("keyed", bench.worker(), mode="undo")

    assert (Code.PERMISSION_DENIED, True) == (said(refused)[0], refused.is_uncertain)
    assert (Code.CONFLICT, "undone") == said(await bench.run("keyed", bench.executors[-1]))
