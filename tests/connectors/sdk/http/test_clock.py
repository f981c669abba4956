"""One clock that everything in the pool reads: a test moves it, and a pause is over."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from connectors.sdk.auth import Token, TokenAuth
from connectors.sdk.errors import RateLimited, Timeout, Unavailable
from connectors.sdk.http.circuit_breaker import BreakerPolicy
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from connectors.sdk.testing import Answer, FakeProvider

pytestmark = pytest.mark.integration

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return NOON.timestamp() - 1000.0 + self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pool(clock: Clock) -> AsyncIterator[HttpPool]:
    pool = HttpPool(HttpPolicy(), clock=clock.monotonic, wall_clock=clock.wall)
    yield pool
    await pool.close()


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        provider.on("GET", "/", Answer({}))
        yield provider


def api_of(pool: HttpPool, provider: FakeProvider, deadline: float | None = None) -> HttpClient:
    client = pool.client(tenant="t", connector="c", credential="d", deadline=deadline)
    return client.at(provider.url)


@pytest.mark.parametrize("wait", ["7", format_datetime(NOON.replace(second=7), usegmt=True)])
async def test_a_pause_ends_by_the_pools_clock(
    pool: HttpPool, provider: FakeProvider, clock: Clock, wait: str
) -> None:
    provider.script(Answer(status=429, headers={"Retry-After": wait}))

    with pytest.raises(RateLimited) as refusal:
        await api_of(pool, provider).get("/")
    with pytest.raises(RateLimited):
        await api_of(pool, provider).get("/")
    clock.now_s += 7

    assert 7.0 == refusal.value.retry_after_s
    assert 200 == (await api_of(pool, provider).get("/")).status_code


async def test_a_breaker_closes_by_the_pools_clock(
    pool: HttpPool, provider: FakeProvider, clock: Clock
) -> None:
    provider.script(*[Answer(status=500)] * BreakerPolicy().failures_to_open)
    for _ in range(BreakerPolicy().failures_to_open):
        with pytest.raises(Unavailable):
            await api_of(pool, provider).get("/")
    clock.now_s += BreakerPolicy().open_s

    assert 200 == (await api_of(pool, provider).get("/")).status_code


async def test_a_token_expires_by_the_pools_clock(
    pool: HttpPool, provider: FakeProvider, clock: Clock
) -> None:
    fetched: list[float] = []

    async def fetch() -> Token:
        fetched.append(clock.now_s)
        return Token(SecretStr("token"), 3600)

    for _ in range(2):
        await api_of(pool, provider).get("/", auth=TokenAuth(pool.tokens, "key", fetch))
        clock.now_s += 3600

    assert [1000.0, 4600.0] == fetched


async def test_a_deadline_is_read_by_the_pools_clock(
    pool: HttpPool, provider: FakeProvider, clock: Clock
) -> None:
    api = api_of(pool, provider, deadline=1060.0)

    assert 200 == (await api.get("/")).status_code
    clock.now_s = 1061.0
    with pytest.raises(Timeout, match="no time was left"):
        await api.get("/")
