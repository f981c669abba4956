"""A host that fails is left alone for a while."""

import pytest
from aiohttp import web

from connectors.sdk.errors import (
    ConnectorError,
    RateLimited,
    Sent,
    Unavailable,
)
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.http_calls import api_of, client_of, cut, hello, never
from tests.support.http_servers import serve, serve_raw

pytestmark = pytest.mark.integration


async def test_a_retry_after_holds_back_the_account_and_no_other(pool: HttpPool) -> None:
    async def busy(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "7"})

    async with serve(busy) as served:
        with pytest.raises(RateLimited) as first:
            await api_of(pool, served).get("/")
        with pytest.raises(RateLimited) as second:
            await api_of(pool, served).get("/")
        other = pool.client(tenant="beta", connector="http", credential="default").at(served.url)
        with pytest.raises(RateLimited):
            await other.get("/")

    assert (7.0, Sent.ANSWERED) == (first.value.retry_after_s, first.value.sent)
    assert second.value.retry_after_s is not None
    assert 6 < second.value.retry_after_s <= 7
    assert Sent.NO is second.value.sent
    assert 2 == len(served.requests)


async def test_a_connector_can_pause_by_what_it_read_in_a_body(pool: HttpPool) -> None:
    async with serve(hello) as served:
        api = api_of(pool, served)
        api.pause("/", 5)
        with pytest.raises(RateLimited):
            await api.get("/")

    assert [] == served.requests


async def test_the_breaker_opens_when_the_host_fails_and_a_probe_closes_it(pool: HttpPool) -> None:
    status = 500

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status)

    async with serve(handler) as served:
        api = api_of(pool, served)
        for _ in range(12):
            with pytest.raises(Unavailable):
                await api.get("/")
        assert 10 == len(served.requests)

        status = 200
        breaker = pool.state.breakers.of(("acme", "http", "default", f"127.0.0.1:{served.port}"))
        breaker._open_until = 0.0
        assert 200 == (await api.get("/")).status_code
        assert 200 == (await api.get("/")).status_code


async def test_each_request_is_counted_by_its_end(unused_port: int) -> None:
    counted: list[tuple[str, str]] = []
    pool = HttpPool(HttpPolicy(), on_call=lambda reach, end, _seconds: counted.append((reach, end)))

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=int(request.path[1:]))

    async with serve(handler) as served, serve_raw(cut) as cutting, serve_raw(never) as hanging:
        for status in (200, 302, 404, 500):
            await api_of(pool, served).get(f"/{status}", raise_for_status=False)
        for call in (
            api_of(pool, cutting).get("/"),
            api_of(pool, hanging).get("/", timeout_s=0.05),
            client_of(pool).at(f"http://127.0.0.1:{unused_port}").get("/"),
        ):
            with pytest.raises(ConnectorError):
                await call

    assert [
        ("loopback", end) for end in ("2xx", "3xx", "4xx", "5xx", "cut", "timeout", "unreachable")
    ] == counted
    await pool.close()
