"""How much of an answer is believed."""

import gzip
import io
import random
import zlib

import pytest
from aiohttp import web

from connectors.sdk.errors import (
    ConnectorError,
    Sent,
    Unavailable,
)
from connectors.sdk.http.client import HttpPool
from schemas.error import Code
from tests.support.http_calls import api_of
from tests.support.http_servers import answering, serve, serve_raw

pytestmark = pytest.mark.integration


async def test_an_answer_over_the_cap_is_refused(pool: HttpPool) -> None:
    async def big(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 2000)

    async with serve(big) as served:
        with pytest.raises(ConnectorError, match="over 1000 bytes") as failure:
            await api_of(pool, served).post("/", json={}, max_bytes=1000)
        assert 2000 == len((await api_of(pool, served).get("/", max_bytes=2000)).content)

    assert Code.RESULT_TOO_LARGE is failure.value.code
    assert Sent.UNCERTAIN is failure.value.sent  # the provider has done it


async def test_a_refusal_over_the_cap_is_cut(pool: HttpPool) -> None:
    async def big(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, body=b"x" * 100_000)

    async with serve(big) as served:
        response = await api_of(pool, served).get("/", max_bytes=1000, raise_for_status=False)

    assert (500, 1000) == (response.status_code, len(response.content))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_encoded_answers_are_decoded_once(pool: HttpPool, encoding: str) -> None:
    body = b'{"a": 1}'
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=packed, headers={"Content-Encoding": encoding, "Content-Type": "application/json"}
        )

    async with serve(handler) as served:
        response = await api_of(pool, served).get("/")

    assert {"a": 1} == response.json()
    assert "content-encoding" not in response.headers


def gzip_bomb(size_bytes: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for _ in range(size_bytes // 2**20):
            file.write(bytes(2**20))
    return packed.getvalue()


async def test_a_gzip_bomb_stops_at_the_cap(pool: HttpPool) -> None:
    bomb = gzip_bomb(200 * 2**20)

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serve(handler) as served:
        with pytest.raises(ConnectorError) as failure:
            await api_of(pool, served).get("/")

    assert Code.RESULT_TOO_LARGE is failure.value.code


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_that_breaks_off_inside_its_coding_is_no_answer(pool: HttpPool, status: int) -> None:
    packed = gzip.compress(random.Random(1).randbytes(10_000))

    async def half(_request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip"}
        return web.Response(status=status, body=packed[: len(packed) // 2], headers=headers)

    async with serve(half) as served:
        with pytest.raises(Unavailable, match="broke off" if status == 200 else "500") as failure:
            await api_of(pool, served).post("/", json={})

    assert Sent.UNCERTAIN is failure.value.sent


@pytest.mark.parametrize(
    "coding", ["x-gzip", "gzip, gzip", "gzip, deflate", "GZIP,identity", "utf-8", "none"]
)
async def test_every_coding_that_is_asked_for_is_decoded(pool: HttpPool, coding: str) -> None:
    body = b"a;b"
    for name in coding.lower().split(","):
        if "gzip" in name:
            body = gzip.compress(body)
        elif "deflate" in name:
            body = zlib.compress(body)

    async def handler(request: web.Request) -> web.StreamResponse:
        assert "gzip, deflate" == request.headers["Accept-Encoding"]
        return web.Response(body=body, headers={"Content-Encoding": coding})

    async with serve(handler) as served:
        response = await api_of(pool, served).get("/")

    assert b"a;b" == response.content


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "gzip, gzip, gzip, gzip"])
async def test_a_coding_that_was_not_asked_for_is_no_answer(pool: HttpPool, coding: str) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x", headers={"Content-Encoding": coding})

    async with serve(handler) as served:
        with pytest.raises(Unavailable, match="encoded it wrongly"):
            await api_of(pool, served).get("/")


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "unicode_escape", "rot13", "hex", "nonsense", "\x00"]
)
async def test_charsets_that_are_none_are_read_as_utf8(pool: HttpPool, charset: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset={charset}\r\nContent-Length: 2\r\n\r\nhi"
    if charset == "\x00":
        answer = answer.replace("\x00", '"')

    async with serve_raw(answering(answer.encode())) as served:
        response = await api_of(pool, served).get("/")

    assert "hi" == response.text
