"""Calls to public hosts go through the operator's proxy; nothing else does."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from connectors.sdk.errors import InvalidParams, Sent, Unavailable
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from tests.support.http_servers import Served, answering, make_authority, serve, serve_raw

pytestmark = pytest.mark.integration

PASSWORD = "canary-proxy"  # the test's own


async def hello(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"hello": "world"})


async def no_dns(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was resolved here")


@asynccontextmanager
async def tunnel(port: Callable[[], int]) -> AsyncIterator[Served]:
    """Serve CONNECT, and lead every name to one port of this machine."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port())
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    async with serve_raw(handler) as served:
        yield served


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def client(proxy: Served, ca_file: Path | None = None) -> AsyncIterator[HttpClient]:
    url = proxy.url.replace("http://", f"http://worker:{PASSWORD}@")
    pool = HttpPool(HttpPolicy(ca_file=ca_file, proxy_url=url), lookup=no_dns)
    yield pool.client(tenant="t", connector="c", credential="d")
    await pool.close()


async def test_a_public_host_is_called_through_the_proxy(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "api.example.com")
    async with (
        serve(hello, tls=authority.server) as served,
        tunnel(lambda: served.port) as proxy,
        client(proxy, authority.ca_file) as http,
    ):
        response = await http.post("https://api.example.com/orders", json={})

    assert {"hello": "world"} == response.json()
    assert proxy.requests[0].startswith(b"CONNECT api.example.com:443 HTTP/1.1\r\n")
    login = base64.b64encode(f"worker:{PASSWORD}".encode())
    assert b"Proxy-Authorization: Basic " + login in proxy.requests[0]
    assert [b"POST /orders"] == served.requests


async def test_loopback_is_called_straight() -> None:
    async with serve(hello) as served, tunnel(lambda: served.port) as proxy, client(proxy) as http:
        await http.at(served.url).get("/")

    assert [] == proxy.requests


async def test_the_environments_proxy_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(hello) as served, tunnel(lambda: served.port) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        pool = HttpPool(HttpPolicy())
        await pool.client(tenant="t", connector="c", credential="d").at(served.url).get("/")
        await pool.close()

    assert [] == proxy.requests


async def test_a_private_address_is_refused_before_the_proxy_is_asked() -> None:
    async with tunnel(lambda: 1) as proxy, client(proxy) as http:
        with pytest.raises(InvalidParams):
            await http.get("https://169.254.169.254/")

    assert [] == proxy.requests


@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"403 Forbidden", b"502 Bad"])
async def test_a_proxy_that_refuses_the_way_sent_nothing(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    async with serve_raw(answering(answer)) as proxy, client(proxy) as http:
        with pytest.raises(Unavailable, match="CONNECTORS_PROXY_URL refuses the way") as failure:
            await http.post("https://api.example.com/", json={})

    assert Sent.NO is failure.value.sent
    assert PASSWORD not in f"{failure.value!r} {failure.value.__context__!r}"


async def test_a_proxy_that_is_down_sent_nothing(unused_port: int) -> None:
    async with client(Served(f"http://127.0.0.1:{unused_port}", unused_port)) as http:
        with pytest.raises(Unavailable, match="CONNECTORS_PROXY_URL cannot be reached") as failure:
            await http.post("https://api.example.com/", json={})

    assert Sent.NO is failure.value.sent


def test_a_policy_does_not_show_its_proxys_password() -> None:
    assert PASSWORD not in repr(HttpPolicy(proxy_url=f"http://worker:{PASSWORD}@proxy:3128"))
