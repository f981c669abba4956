"""Calls that undo what an earlier call of the job did pass the gates that the failure shut."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from connectors.sdk.errors import RateLimited, Timeout, Unavailable
from connectors.sdk.http.circuit_breaker import BreakerPolicy
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from connectors.sdk.http.compensation import COMPENSATIONS_AT_ONCE
from connectors.sdk.testing import Answer, Asked, FakeProvider

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    pool = HttpPool(HttpPolicy(max_connections_per_host=1))
    yield pool
    await pool.close()


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        provider.on("DELETE", "/hold", Answer(status=204, body=b""))
        yield provider


def client_of(pool: HttpPool, deadline: float | None = None) -> HttpClient:
    return pool.client(tenant="acme", connector="http", credential="default", deadline=deadline)


async def test_a_compensation_passes_the_pause_that_the_failure_set(
    pool: HttpPool, provider: FakeProvider
) -> None:
    provider.script(Answer(status=429, headers={"Retry-After": "60"}))
    api = client_of(pool).at(provider.url)

    with pytest.raises(RateLimited):
        await api.post("/confirm", json={})
    response = await api.compensation().delete("/hold")
    with pytest.raises(RateLimited):
        await api.get("/hold")

    assert 204 == response.status_code
    assert ["POST /confirm", "DELETE /hold"] == provider.paths


async def test_a_compensation_passes_an_open_breaker(pool: HttpPool, provider: FakeProvider) -> None:
    provider.script(*[Answer(status=500)] * BreakerPolicy().failures_to_open)
    api = client_of(pool).at(provider.url)
    for _ in range(BreakerPolicy().failures_to_open + 1):
        with pytest.raises(Unavailable):
            await api.get("/")

    assert 204 == (await client_of(pool).compensation().at(provider.url).delete("/hold")).status_code


async def test_a_compensation_ignores_the_jobs_deadline(pool: HttpPool, provider: FakeProvider) -> None:
    api = client_of(pool, deadline=time.monotonic() - 1).at(provider.url)

    assert 204 == (await api.compensation().delete("/hold")).status_code


async def test_all_calls_of_a_compensation_share_its_time(pool: HttpPool, provider: FakeProvider) -> None:
    provider.on("DELETE", "/slow", Answer(instead="hang"))
    api = client_of(pool).at(provider.url).compensation(timeout_s=0.1)

    for _ in range(2):
        with pytest.raises(Timeout):
            await api.delete("/slow")

    assert ["DELETE /slow"] == provider.paths


async def test_a_compensation_waits_for_no_slot_of_the_host(pool: HttpPool, provider: FakeProvider) -> None:
    provider.on("GET", "/slow", Answer(instead="hang"))
    api = client_of(pool).at(provider.url)
    hanging = asyncio.create_task(api.get("/slow"))
    while not provider.paths:
        await asyncio.sleep(0)

    response = await api.compensation(timeout_s=5).delete("/hold")
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)

    assert 204 == response.status_code


async def test_compensations_of_an_account_are_few_at_a_time(pool: HttpPool, provider: FakeProvider) -> None:
    is_full = asyncio.Event()

    def hang(_asked: Asked) -> Answer:
        if len(provider.paths) == COMPENSATIONS_AT_ONCE:
            is_full.set()
        return Answer(instead="hang")

    provider.on("DELETE", "/slow", hang)
    calls = [
        asyncio.create_task(client_of(pool).at(provider.url).compensation(timeout_s=5).delete("/slow"))
        for _ in range(COMPENSATIONS_AT_ONCE + 3)
    ]
    await is_full.wait()
    await asyncio.sleep(0.05)  # time in which a call too many would have come
    at_once = len(provider.paths)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)

    assert COMPENSATIONS_AT_ONCE == at_once


async def test_a_compensation_is_counted_in_the_metrics(provider: FakeProvider) -> None:
    counted: list[str] = []
    pool = HttpPool(HttpPolicy(), on_call=lambda _reach, end, _seconds: counted.append(end))

    await client_of(pool).at(provider.url).compensation().delete("/hold")
    await pool.close()

    assert ["2xx"] == counted
