"""The HTTP client on the wire: what is sent, what is believed, what is said of a failure."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.sdk.errors import (
    ConnectorError,
)
from connectors.sdk.http.address import read_url
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from connectors.sdk.http.request import HttpRequest, TimeLimit
from tests.support.http_calls import OK, api_of, client_of, cut
from tests.support.http_servers import answering, read_request, serve, serve_raw

pytestmark = pytest.mark.integration


async def test_a_call_is_sent_as_it_was_asked_for(pool: HttpPool) -> None:
    seen: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.update(
            method=request.method,
            path=request.raw_path,
            headers={name.lower(): value for name, value in request.headers.items()},
            body=await request.read(),
        )
        return web.Response(status=201, text="made", headers={"X-A": "1"})

    async with serve(handler) as served:
        response = await api_of(pool, served).post(
            "/orders/a%2Fb",
            params={"q": "a b&c", "n": [1, 2.5], "ok": True},
            headers={"X-Trace": "t", "X-Key": SecretStr("s3cret")},
            json={"name": "ü"},
        )

    assert (201, "made", "1") == (response.status_code, response.text, response.headers["x-a"])
    assert "POST" == seen["method"]
    assert "/orders/a%2Fb?q=a%20b%26c&n=1&n=2.5&ok=true" == seen["path"]
    assert '{"name":"ü"}'.encode() == seen["body"]
    assert "application/json" == seen["headers"]["content-type"]
    assert ("t", "s3cret") == (seen["headers"]["x-trace"], seen["headers"]["x-key"])
    assert f"127.0.0.1:{served.port}" == seen["headers"]["host"]
    assert response.elapsed.total_seconds() > 0


async def test_forms_text_and_bytes_are_sent_with_their_type(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response([request.headers.get("Content-Type"), (await request.read()).decode()])

    async with serve(handler) as served:
        api = api_of(pool, served)
        answers = [
            (await api.post("/", data={"a": "1 2", "b": 3})).json(),
            (await api.put("/", content="ü")).json(),
            (await api.patch("/", content=b"x", headers={"content-type": "text/csv"})).json(),
            (await api.delete("/")).json(),
        ]

    assert [
        ["application/x-www-form-urlencoded", "a=1%202&b=3"],
        ["text/plain; charset=utf-8", "ü"],
        ["text/csv", "x"],
        [None, ""],
    ] == answers


async def test_a_large_body_is_sent_whole(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(sum([len(chunk) async for chunk in request.content.iter_any()]))

    async with serve(handler) as served:
        response = await api_of(pool, served).post("/", content=b"x" * 3_000_000)

    assert 3_000_000 == response.json()


async def test_no_cookie_is_kept_and_no_proxy_or_netrc_is_used(
    pool: HttpPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.extend(name.lower() for name in request.headers)
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    async with serve(handler) as served:
        for _ in range(2):
            await api_of(pool, served).get("/")

    assert 2 == seen.count("host")
    assert not {"cookie", "authorization", "proxy-authorization"} & set(seen)


async def test_head_and_empty_answers_have_no_body(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        status = 204 if request.path == "/none" else 200
        return web.Response(status=status, headers={"Content-Encoding": "gzip"} if status == 200 else {})

    async with serve(handler) as served:
        api = api_of(pool, served)
        assert b"" == (await api.request("HEAD", "/")).content
        assert b"" == (await api.get("/none")).content


async def test_connections_are_kept_and_limited(pool: HttpPool) -> None:
    busy = peak = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, peak
        while True:
            busy += 1
            peak = max(peak, busy)
            await asyncio.sleep(0)
            busy -= 1
            writer.write(OK)
            await read_request(reader)

    async with serve_raw(handler) as served:
        small = HttpPool(HttpPolicy(max_connections_per_host=3))
        api = client_of(small).at(served.url)
        await asyncio.gather(*(api.get("/") for _ in range(30)))
        await small.close()

    assert served.connections <= 3
    assert peak <= 3


async def test_calls_get_their_turn_in_the_order_they_came() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=request.path)

    async with serve(handler) as served:
        pool = HttpPool(HttpPolicy(max_connections_per_host=1))
        api = client_of(pool).at(served.url)

        async def one_after_the_other() -> None:
            await api.get("/first")
            await api.get("/third")

        await asyncio.gather(one_after_the_other(), api.get("/second"))
        await pool.close()

    assert [b"GET /first", b"GET /second", b"GET /third"] == served.requests


async def test_secrets_are_in_no_error_and_no_repr(pool: HttpPool, unused_port: int) -> None:
    canary = "canary-1f0e"
    calls: list[Callable[[HttpClient], Awaitable[Any]]] = [
        lambda api: api.get("/", params={"key": canary}),
        lambda api: api.post("/", json={"key": canary}),
    ]
    errors: list[BaseException] = []
    headers = {"Authorization": SecretStr(canary), "X-Api-Key": SecretStr(canary)}

    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text=request.headers["Authorization"])

    async with (
        serve(echo) as echoing,
        serve_raw(cut) as cutting,
        serve_raw(answering(b"HTTP/1.1 2x0 " + canary.encode() + b"\r\n\r\n")) as garbled,
    ):
        for url in (echoing.url, cutting.url, garbled.url, f"http://127.0.0.1:{unused_port}"):
            api = client_of(pool).at(url, headers=headers)
            assert canary not in repr(api)
            for call in calls:
                with pytest.raises(ConnectorError) as failure:
                    await call(api)
                errors.append(failure.value)
        response = await client_of(pool).at(echoing.url, headers=headers).get("/", raise_for_status=False)

    assert canary not in repr(response.request.headers)
    target, limit = read_url(echoing.url), TimeLimit(1, 1)
    assert canary not in repr(HttpRequest("GET", target, {"a": canary}, canary.encode(), 1, limit, True))
    for error in errors:
        seen: BaseException | None = error
        while seen is not None:
            assert canary not in f"{seen} {seen!r} {vars(seen)}"
            seen = seen.__cause__ or seen.__context__


async def test_a_job_s_client_costs_next_to_nothing(pool: HttpPool) -> None:
    started = time.perf_counter()
    for _ in range(1000):
        client_of(pool)

    assert (time.perf_counter() - started) / 1000 < 50e-6
