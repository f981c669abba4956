"""The connections to a host: no tenant fills them all, and those that wait are served in turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.errors import RateLimited, Sent, Unavailable
from connectors.sdk.http.adaptive_limit import AdaptiveLimit
from connectors.sdk.http.circuit_breaker import BreakerPolicy
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.host_room import HostRoom
from tests.support.http_servers import serve, serve_raw


class Calls:
    """Calls that hold their connection until they are told to end."""

    def __init__(self, most: int) -> None:
        self.room = HostRoom("a.example", most)
        self.entered: list[str] = []
        self._ends: list[tuple[str, asyncio.Event]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, tenant: str, count: int = 1, limit: AdaptiveLimit | None = None) -> AdaptiveLimit:
        """Start calls of one account, and let them come as far as they can."""
        limit = limit or AdaptiveLimit(1000)
        self._tasks += [asyncio.create_task(self._hold(tenant, limit)) for _ in range(count)]
        await self.settle()
        return limit

    async def end(self, tenant: str) -> None:
        """End the oldest call of a tenant."""
        index = next(index for index, (owner, _) in enumerate(self._ends) if owner == tenant)
        self._ends.pop(index)[1].set()
        await self.settle()

    async def settle(self) -> None:
        """Let every task run until it waits."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Cancel all calls."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, tenant: str, limit: AdaptiveLimit) -> None:
        async with self.room.enter(tenant, limit, 600):
            end = asyncio.Event()
            self.entered.append(tenant)
            self._ends.append((tenant, end))
            await end.wait()


@asynccontextmanager
async def calls_to(most: int) -> AsyncIterator[Calls]:
    calls = Calls(most)
    yield calls
    await calls.close()


async def test_a_tenant_that_hangs_leaves_a_quarter_to_the_others() -> None:
    async with calls_to(100) as calls:
        await calls.start("hangs", 300)
        await calls.start("other", 10)

        assert (75, 10) == tuple(calls.entered.count(tenant) for tenant in ("hangs", "other"))


async def test_tenants_that_wait_are_served_in_turn() -> None:
    async with calls_to(1) as calls:
        await calls.start("a")
        await calls.start("a", 3)
        await calls.start("b", 2)
        for _ in range(5):
            await calls.end(calls.entered[-1])

        assert ["a", "a", "b", "a", "b", "a"] == calls.entered


async def test_an_account_at_its_limit_keeps_no_other_of_its_tenant_out() -> None:
    async with calls_to(100) as calls:
        await calls.start("a", 10, AdaptiveLimit(4))
        await calls.start("a", 6)

        assert 10 == len(calls.entered)


async def test_an_account_at_its_limit_is_told_so() -> None:
    async with calls_to(100) as calls:
        limit = await calls.start("a", 4, AdaptiveLimit(4))
        with pytest.raises(RateLimited, match="this account has 4 calls") as refused:
            async with calls.room.enter("a", limit, 0.01):
                pass

    assert (Sent.NO, 1.0) == (refused.value.sent, refused.value.retry_after_s)


async def test_a_host_without_a_free_connection_is_unavailable() -> None:
    async with calls_to(1) as calls:
        await calls.start("a")
        with pytest.raises(Unavailable, match="came free within") as refused:
            async with calls.room.enter("b", AdaptiveLimit(4), 0.01):
                pass

    assert Sent.NO is refused.value.sent


async def test_what_one_tenant_runs_into_leaves_the_others_at_full_speed() -> None:
    """Tenant `a` fills its share of a host with calls that hang; `b` calls the same host."""

    gate = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/hang":
            await gate.wait()
        return web.Response()

    async with serve(answer) as served:
        pool = HttpPool(HttpPolicy(max_connections_per_host=8))
        a, b = (
            pool.client(tenant=tenant, connector="http", credential="default").at(served.url)
            for tenant in ("a", "b")
        )
        hanging = [asyncio.create_task(a.get("/hang", timeout_s=600)) for _ in range(20)]
        while len(served.requests) < 6:
            await asyncio.sleep(0.001)
        began = time.monotonic()
        for _ in range(50):
            await b.get("/")
        took_s, load = time.monotonic() - began, pool.loads()["http"]
        gate.set()
        await asyncio.gather(*hanging)
        await pool.close()

    assert took_s < 3
    assert (6, 14, 128) == (load.in_flight, load.waiting, load.lowest_limit)


async def test_a_call_that_waited_meets_the_breaker_that_opened_meanwhile() -> None:
    async with serve_raw(_close_after_a_moment) as served:
        policy = HttpPolicy(max_connections_per_host=1, breaker=BreakerPolicy(failures_to_open=1))
        pool = HttpPool(policy)
        api = pool.client(tenant="a", connector="http", credential="default").at(served.url)
        outcomes = await asyncio.gather(api.get("/"), api.get("/"), return_exceptions=True)
        await pool.close()

    assert 1 == len(served.requests)
    assert "is not called for now" in str(outcomes[1])


async def _close_after_a_moment(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.05)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "end", "cancel"]), st.sampled_from("abc"), st.integers(0, 50)),
    max_size=60,
)


@given(st.integers(1, 8), _STEPS)
def test_no_connection_is_lost_and_none_is_idle_while_one_may_leave(
    most: int, steps: list[tuple[str, str, int]]
) -> None:
    async def play() -> None:
        room, limits = HostRoom("a.example", most), {tenant: AdaptiveLimit(5) for tenant in "abc"}
        holding: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []

        async def call(tenant: str) -> None:
            async with room.enter(tenant, limits[tenant], 600):
                holding.append(end := asyncio.Event())
                try:
                    await end.wait()
                finally:
                    holding.remove(end)

        act: dict[str, Callable[[str, int], object]] = {
            "start": lambda tenant, _: tasks.append(asyncio.create_task(call(tenant))),
            "end": lambda _, index: holding[index % len(holding)].set() if holding else None,
            "cancel": lambda _, index: tasks[index % len(tasks)].cancel() if tasks else None,
        }
        for step, tenant, index in steps:
            act[step](tenant, index)
            for _ in range(index % 4):
                await asyncio.sleep(0)
            assert len(holding) <= most
        for _ in range(10):
            await asyncio.sleep(0)
        waiting = {tenant for tenant in "abc" if limits[tenant].waiting}
        assert not [tenant for tenant in waiting if room._may_enter(tenant, limits[tenant])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (most, 0) == (room._free, sum(limit.in_flight + limit.waiting for limit in limits.values()))

    asyncio.run(play())
