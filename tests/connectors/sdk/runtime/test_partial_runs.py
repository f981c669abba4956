"""Steps: parts of one write, each recorded with its result and skipped by the next run."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.sdk import Connector, Context, Effect
from connectors.sdk.errors import Code, Timeout
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.steps import Steps
from connectors.sdk.testing import Answer, FakeProvider, Kit

shop = Connector("shop")


@shop.action(effect=Effect.WRITE)
async def order_and_pay(ctx: Context, url: str) -> str:
    """Order, then pay."""
    api = ctx.http.at(url)
    async with ctx.step("order") as ordered:
        if not ordered.is_done:
            ordered.result = (await api.post("/orders", json={})).json()["id"]
    await api.post("/payments", json={})
    return f"order {ordered.result}"


@order_and_pay.reconcile
async def find_payment(ctx: Context, url: str) -> str | None:
    """Find no payment: none was taken."""
    return None


@order_and_pay.undo
async def cancel_order(ctx: Context, params: Any) -> None:
    """Cancel the order that the run recorded."""
    async with ctx.step("order") as ordered:
        if ordered.is_done:
            await ctx.http.at(params.url).request("DELETE", f"/orders/{ordered.result}")


async def test_parts_that_run_at_once_are_all_recorded() -> None:
    recorded: list[Mapping[str, Any]] = []

    async def record(results: Mapping[str, Any]) -> None:
        for _ in range(3):  # a database lets the other part go on meanwhile
            await asyncio.sleep(0)
        recorded.append(results)

    steps = Steps(record=record)

    async def part(name: str) -> None:
        async with steps.step(name) as step:
            step.result = name

    await asyncio.gather(part("a"), part("b"))

    assert {"a": "a", "b": "b"} == recorded[-1] == steps.results


async def test_a_part_that_is_recorded_settles_no_other_part() -> None:
    effects = JobEffects()
    steps = Steps(on_recorded=effects.record_step)
    other_has_sent, first_is_recorded = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with steps.step("first"):
            effects.track().record_sent()
            await other_has_sent.wait()
        first_is_recorded.set()

    async def other() -> None:
        async with steps.step("other"):
            effects.track().record_sent()
            other_has_sent.set()
            await first_is_recorded.wait()
            raise Timeout("the answer was lost")

    await asyncio.gather(first(), other(), return_exceptions=True)

    assert effects.may_have_effect


@pytest.mark.integration
async def test_an_undo_takes_back_the_parts_of_a_run_that_never_ended() -> None:
    async with FakeProvider() as provider, Kit(shop) as kit:
        provider.on("POST", "/orders", Answer({"id": 17}))
        provider.on("POST", "/payments", Answer({}, status=422))
        provider.on("DELETE", "/orders/{id}", Answer(status=204, body=b""))
        params = {"url": provider.url}

        ran = await kit.run("order_and_pay", params, key="k")
        undone = await kit.run("order_and_pay", params, key="k", mode="undo")

    assert Code.REJECTED is ran.code
    assert {"undone": True} == undone.data
    assert "DELETE /orders/17" == provider.paths[-1]


@pytest.mark.integration
async def test_a_write_outside_of_the_steps_is_not_settled_by_them() -> None:
    mixed = Connector("mixed")

    @mixed.action(effect=Effect.WRITE)
    async def order(ctx: Context, url: str) -> str:
        api = ctx.http.at(url)
        await api.post("/first", json={})
        async with ctx.step("second") as second:
            if not second.is_done:
                await api.post("/second", json={})
        await api.post("/third", json={})
        return "all"

    async with FakeProvider() as provider, Kit(mixed) as kit:
        for path in ("/first", "/second"):
            provider.on("POST", path, Answer({}))
        provider.on("POST", "/third", Answer({}, status=429))

        ran = await kit.run("order", {"url": provider.url})

    assert Code.OUTCOME_UNKNOWN is ran.code
    assert ["POST /first", "POST /second", "POST /third"] == provider.paths
