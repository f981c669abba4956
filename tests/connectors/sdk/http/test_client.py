"""The HTTP client on the wire: what is sent, what is believed, what is said of a failure."""

import asyncio
import gzip
import io
import random
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    InvalidParams,
    NotFound,
    RateLimited,
    Rejected,
    Sent,
    Timeout,
    Unavailable,
)
from connectors.sdk.http.address import RefusedAddress, read_url
from connectors.sdk.http.client import HttpClient, HttpPolicy, HttpPool
from connectors.sdk.http.egress import NOTHING_INSIDE, Egress
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.http.request import HttpRequest, TimeLimit
from connectors.sdk.http.resolver import GuardedResolver
from connectors.sdk.http.tokens import Token, TokenAuth
from schemas.error import Code
from tests.support.http_servers import Served, answering, make_authority, read_request, serve, serve_raw

pytestmark = pytest.mark.integration

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    pool = HttpPool(HttpPolicy())
    yield pool
    await pool.close()


def client_of(pool: HttpPool, **options: Any) -> HttpClient:
    return pool.client(tenant="acme", connector="http", credential="default", **options)


def api_of(pool: HttpPool, served: Served, **options: Any) -> HttpClient:
    return client_of(pool).at(served.url, **options)


async def hello(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"hello": "world"})


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


class Names:
    """A DNS that gives what the test says, one answer after the other."""

    def __init__(self, *answers: list[str] | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


# What is sent


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


# How far it came


async def test_a_refused_connection_sent_nothing(pool: HttpPool, unused_port: int) -> None:
    with pytest.raises(Unavailable, match="refuses the connection") as failure:
        await client_of(pool).at(f"http://127.0.0.1:{unused_port}").post("/", json={})

    assert Sent.NO is failure.value.sent


async def test_a_name_that_does_not_resolve_sent_nothing() -> None:
    pool = HttpPool(HttpPolicy(), lookup=Names(socket.gaierror(socket.EAI_NONAME, "no such host")))

    with pytest.raises(Unavailable, match="cannot be resolved") as failure:
        await client_of(pool).post("https://api.example.com/", json={})

    assert Sent.NO is failure.value.sent
    await pool.close()


async def test_a_dns_that_hangs_ends_with_the_call() -> None:
    async def hang(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    pool = HttpPool(HttpPolicy(), lookup=hang)

    with pytest.raises(Timeout) as failure:
        await client_of(pool).post("https://api.example.com/", json={}, timeout_s=0.05)

    assert Sent.NO is failure.value.sent
    await pool.close()


async def test_a_certificate_of_nobody_is_refused_before_anything_is_sent(
    pool: HttpPool, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")

    async with serve(hello, tls=authority.server) as served:
        with pytest.raises(Unavailable, match="CONNECTORS_CA_FILE") as failure:
            await api_of(pool, served).post("/", json={})

    assert Sent.NO is failure.value.sent
    assert [] == served.requests


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "api.example.com")
    pool = HttpPool(HttpPolicy(ca_file=authority.ca_file))

    async with serve(hello, tls=authority.server) as served:
        with pytest.raises(Unavailable, match="not trusted"):
            await api_of(pool, served).get("/")

    await pool.close()


async def test_the_ca_file_adds_an_authority(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")
    pool = HttpPool(HttpPolicy(ca_file=authority.ca_file))

    async with serve(hello, tls=authority.server) as served:
        response = await api_of(pool, served).get("/")

    assert 200 == response.status_code
    await pool.close()


async def test_a_ca_file_that_is_replaced_counts_at_once(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    old, new = (make_authority(tmp_path / name, "127.0.0.1") for name in ("old", "new"))
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(old.ca_file.read_text())
    pool = HttpPool(HttpPolicy(ca_file=ca_file))

    async with serve(hello, tls=new.server) as served:
        with pytest.raises(Unavailable, match="not trusted"):
            await api_of(pool, served).get("/")
        ca_file.write_text(new.ca_file.read_text()[:100])  # half written
        with pytest.raises(Unavailable, match="not trusted"):
            await api_of(pool, served).get("/")
        ca_file.write_text(new.ca_file.read_text())
        response = await api_of(pool, served).get("/")

    assert 200 == response.status_code
    await pool.close()


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if text is not None:
        ca_file.write_text(text)

    with pytest.raises(ValueError, match=r"ca\.pem cannot be read"):
        HttpPool(HttpPolicy(ca_file=ca_file))


async def test_plain_http_where_tls_is_expected_sent_nothing(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        served.url = served.url.replace("http:", "https:")
        with pytest.raises(Timeout) as failure:
            await api_of(pool, served).post("/", json={}, timeout_s=0.2)

    assert Sent.NO is failure.value.sent


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_a_connection_cut_after_sending_is_uncertain_and_sent_once(pool: HttpPool, method: str) -> None:
    async with serve_raw(cut) as served:
        with pytest.raises(Unavailable, match="closed the connection") as failure:
            await api_of(pool, served).request(method, "/")

    assert Sent.UNCERTAIN is failure.value.sent
    assert 1 == len(served.requests)


async def test_a_get_is_not_sent_again_behind_our_back(pool: HttpPool) -> None:
    answered = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not answered.is_set():
            answered.set()
            writer.write(OK)
            served.requests.append(await read_request(reader))

    async with serve_raw(once) as served:
        api = api_of(pool, served)
        await api.get("/")
        with pytest.raises(Unavailable) as failure:
            await api.get("/")

    assert 2 == len(served.requests)
    assert 1 == served.connections
    assert Sent.NO is failure.value.sent  # it changes nothing


async def test_no_answer_in_time_is_uncertain(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        with pytest.raises(Timeout, match=r"within 0\.1 s") as failure:
            await api_of(pool, served).post("/", json={}, timeout_s=0.1)

    assert Sent.UNCERTAIN is failure.value.sent


async def test_waiting_for_a_connection_is_not_sending(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        small = HttpPool(HttpPolicy(max_connections_per_host=1))
        api = client_of(small).at(served.url)
        first = asyncio.create_task(client_of(small).at(served.url).post("/", json={}))
        while not served.requests:
            await asyncio.sleep(0.001)
        with pytest.raises(Unavailable, match=r"no connection to .* came free within 0") as failure:
            await api.post("/", json={}, timeout_s=0.05)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await small.close()

    assert Sent.NO is failure.value.sent


async def test_a_dripping_answer_ends_at_the_total_deadline(pool: HttpPool) -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    started = time.monotonic()
    async with serve_raw(drip) as served:
        with pytest.raises(Timeout):
            await api_of(pool, served).get("/", timeout_s=0.2)

    assert time.monotonic() - started < 2


async def test_the_jobs_deadline_cuts_a_call_short(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        client = client_of(pool, deadline=time.monotonic() + 0.1).at(served.url)
        with pytest.raises(Timeout, match=r"within 0\.") as during:
            await client.get("/", timeout_s=60)
        with pytest.raises(Timeout, match="no time was left") as after:
            await client_of(pool, deadline=time.monotonic() - 1).at(served.url).post("/", json={})

    assert (Sent.NO, Sent.NO) == (during.value.sent, after.value.sent)
    assert 1 == len(served.requests)


async def test_a_deadline_ends_a_write_only_before_it_leaves(pool: HttpPool) -> None:
    async def slow(_request: web.Request) -> web.StreamResponse:
        await asyncio.wait_for(deadline_passed.wait(), 5)
        return web.json_response({})

    deadline_passed = asyncio.Event()
    async with serve(slow) as served:
        api = client_of(pool, deadline=time.monotonic() + 0.1).at(served.url)
        asyncio.get_running_loop().call_later(0.15, deadline_passed.set)
        first = await api.post("/", json={}, timeout_s=5)
        second = await api.get("/")
        third = await api.post("/", json={})

    assert [200, 200, 200] == [each.status_code for each in (first, second, third)]


async def test_a_deadline_ends_a_search_by_post(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        api = client_of(pool, deadline=time.monotonic() + 0.1).at(served.url)
        with pytest.raises(Timeout, match=r"within 0\.") as failure:
            await api.post("/search", json={}, changes_nothing=True)

    assert Sent.NO is failure.value.sent


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 2000 + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff" * 100,
        b"",
    ],
)
async def test_an_answer_that_cannot_be_read_is_uncertain(pool: HttpPool, answer: bytes) -> None:
    async with serve_raw(answering(answer)) as served:
        with pytest.raises(Unavailable) as failure:
            await api_of(pool, served).post("/", json={})

    assert Sent.UNCERTAIN is failure.value.sent
    assert 1 == len(served.requests)


async def test_a_refusal_counts_though_its_body_breaks_off(pool: HttpPool) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nshort"

    async with serve_raw(answering(answer)) as served:
        response = await api_of(pool, served).post("/", json={}, raise_for_status=False)
        with pytest.raises(NotFound) as failure:
            await api_of(pool, served).post("/", json={})

    assert b"short" == response.content
    assert Sent.ANSWERED is failure.value.sent


async def test_what_comes_after_an_answer_is_not_the_next_answer(pool: HttpPool) -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + OK.replace(b"hi", b"no"))
        await writer.drain()
        await reader.read()

    async with serve_raw(twice) as served:
        api = api_of(pool, served)
        assert ["hi", "hi"] == [(await api.get("/")).text, (await api.get("/")).text]

    assert 2 == served.connections


async def test_a_later_failure_of_a_job_does_not_undo_its_earlier_write(
    pool: HttpPool, unused_port: int
) -> None:
    async with serve(hello) as served:
        job = client_of(pool)
        await job.at(served.url).post("/", json={})
        with pytest.raises(Unavailable) as failure:
            await job.at(f"http://127.0.0.1:{unused_port}").get("/")

    assert Sent.UNCERTAIN is failure.value.sent


async def test_a_cancelled_call_leaves_nothing_behind(pool: HttpPool) -> None:
    async with serve_raw(never) as served:
        call = asyncio.create_task(api_of(pool, served).get("/"))
        while not served.requests:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert {asyncio.current_task()} == {
            task for task in asyncio.all_tasks() if "connected" not in str(task.get_coro())
        }


# How much is believed


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


# Where it may go


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"]],
)
async def test_a_name_that_leads_inside_is_refused_and_nothing_is_connected(addresses: list[str]) -> None:
    async with serve(hello) as served:
        pool = HttpPool(HttpPolicy(), lookup=Names(addresses))
        url = f"https://rebinding.example.com:{served.port}/"
        with pytest.raises(InvalidParams, match="not public") as anybody:
            await client_of(pool).get(url)
        with pytest.raises(CredentialInvalid, match="CONNECTORS_EGRESS_ALLOW") as named:
            await client_of(pool).at(url).get("/")
        await pool.close()

    assert {Sent.NO} == {anybody.value.sent, named.value.sent}
    assert [] == served.requests


async def test_the_address_that_was_checked_is_the_one_connected_to(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "crm.internal")
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    policy = HttpPolicy(egress=Egress.of(["crm.internal"]), ca_file=authority.ca_file)
    pool = HttpPool(policy, lookup=names)
    hosts: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        hosts.append(request.headers["Host"])
        return web.Response()

    async with serve(handler, tls=authority.server) as served:
        api = client_of(pool).at(f"https://crm.internal:{served.port}")
        await api.get("/")
        await api.get("/")

    assert ["crm.internal"] == names.asked
    assert [f"crm.internal:{served.port}"] * 2 == hosts
    await pool.close()


async def test_each_answer_of_dns_is_checked_anew() -> None:
    resolver = GuardedResolver(NOTHING_INSIDE, Names(["93.184.216.34", "2606:2800::1"], ["127.0.0.1"], []))

    found = await resolver.resolve("rebinding.example.com", 443)

    assert ["93.184.216.34", "2606:2800::1"] == [address["host"] for address in found]
    with pytest.raises(RefusedAddress):
        await resolver.resolve("rebinding.example.com", 443)
    with pytest.raises(OSError, match="no address"):
        await resolver.resolve("rebinding.example.com", 443)


async def test_loopback_is_for_hosts_that_a_credential_names(pool: HttpPool) -> None:
    async with serve(hello) as served:
        with pytest.raises(InvalidParams, match="leads inside") as failure:
            await client_of(pool).get(served.url)
        with pytest.raises(InvalidParams):
            await api_of(pool, served).get(f"http://127.0.0.1:{served.port + 1}/")

    assert Sent.NO is failure.value.sent
    assert [] == served.requests


async def test_nothing_inside_is_called_unless_the_operator_allows_it() -> None:
    async with serve(hello) as served:
        pool = HttpPool(HttpPolicy(egress=NOTHING_INSIDE))
        for url in (served.url, f"http://localhost:{served.port}", f"https://127.0.0.1:{served.port}"):
            with pytest.raises(CredentialInvalid, match="CONNECTORS_EGRESS_ALLOW") as refused:
                await client_of(pool).at(url).get("/")
            assert Sent.NO is refused.value.sent
        await pool.close()

    assert [] == served.requests


async def test_what_a_public_host_answers_does_not_lead_inside(pool: HttpPool) -> None:
    async with serve(hello) as served:
        with pytest.raises(CredentialInvalid, match="further inside"):
            client_of(pool).at(served.url, learned_from="https://login.example.com")
        api = client_of(pool).at(served.url, learned_from="http://localhost:8080")
        assert 200 == (await api.get("/")).status_code


async def test_localhost_by_name_is_loopback(pool: HttpPool) -> None:
    async with serve(hello) as served:
        response = await client_of(pool).at(f"http://localhost:{served.port}").get("/")

    assert 200 == response.status_code


async def test_a_plaintext_host_is_for_credentials_not_for_jobs() -> None:
    async with serve(hello) as served:
        policy = HttpPolicy(egress=Egress.of(["crm"]))
        pool = HttpPool(policy, lookup=Names(["127.0.0.1"]))
        url = f"http://crm:{served.port}"
        assert 200 == (await client_of(pool).at(url).get("/")).status_code
        with pytest.raises(InvalidParams):
            await client_of(pool).get(url)
        await pool.close()

    assert 1 == len(served.requests)


@pytest.mark.parametrize("path", ["//evil.example/", "orders", "\\\\evil", "/a b", "/a\r\nX: y", "/ü", "/%"])
async def test_a_path_names_no_host_and_is_encoded(pool: HttpPool, path: str) -> None:
    async with serve(hello) as served:
        if path.startswith("//"):
            await api_of(pool, served).get(path)
            assert [b"GET //evil.example/"] == served.requests
        else:
            with pytest.raises(InvalidParams):
                await api_of(pool, served).get(path)
            assert [] == served.requests


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil"},
        {"content-length": "3"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"Upgrade": "h2c"},
        {"Proxy-Authorization": "x"},
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\x00"},
        {"X-A": "ü"},
        {"X A": "a"},
        {"X-A:": "a"},
        {"": "a"},
        {"X\r\nY": "a"},
    ],
)
async def test_headers_that_would_change_the_request_are_refused(
    pool: HttpPool, headers: dict[str, str]
) -> None:
    async with serve(hello) as served:
        with pytest.raises(InvalidParams) as failure:
            await api_of(pool, served).get("/", headers=headers)

    assert Sent.NO is failure.value.sent
    assert [] == served.requests


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "get", "GET /", "G\r\nT", ""])
async def test_methods_beyond_the_six_are_refused(pool: HttpPool, method: str) -> None:
    async with serve(hello) as served:
        with pytest.raises(InvalidParams):
            await api_of(pool, served).request(method, "/")

    assert [] == served.requests


async def test_nothing_takes_the_place_of_the_credentials_header(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(request.headers.getall("Authorization"))

    async with serve(handler) as served:
        api = api_of(pool, served, headers={"Authorization": SecretStr("Bearer ours")})
        response = await api.get("/", headers={"authorization": "Bearer theirs"})

    assert ["Bearer ours"] == response.json()


# Redirects


def redirecting(to: Callable[[web.Request], str], status: int = 302) -> Any:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": to(request)})

    return handler


async def test_redirects_are_given_back_unless_following_was_asked_for(pool: HttpPool) -> None:
    async with serve(redirecting(lambda _: "/next")) as served:
        response = await api_of(pool, served).get("/")

    assert (302, "/next") == (response.status_code, response.headers["location"])
    assert 1 == len(served.requests)


async def test_redirects_to_the_same_origin_are_followed_with_the_credential(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/":
            return web.Response(status=307, headers={"Location": "/next"})
        return web.json_response(request.headers["X-Key"])

    async with serve(handler) as served:
        response = await api_of(pool, served, headers={"X-Key": "k"}).get("/", follow_redirects=True)

    assert "k" == response.json()


async def test_credentials_do_not_cross_to_another_host(pool: HttpPool) -> None:
    seen: list[dict[str, str]] = []

    async def other(request: web.Request) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(text="there")

    async with serve(other) as far, serve(redirecting(lambda _: far.url)) as near:
        api = api_of(
            pool,
            near,
            headers={"X-Api-Key": SecretStr("s3cret"), "Authorization": "Bearer s3cret"},
            allowed_hosts=[f"127.0.0.1:{far.port}"],
        )
        response = await api.get("/", headers={"X-Mine": "s3cret", "Accept": "text/x"}, follow_redirects=True)

    assert "there" == response.text
    assert "text/x" == seen[0]["accept"]
    assert "s3cret" not in str(seen)


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://evil.example.com/",
        "//evil.example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://127.1/",
        "http://user@127.0.0.1/",
        "\\\\evil.example.com",
        "http://[",
        "http://127.0.0.1:1/",
    ],
)
async def test_each_hop_is_checked(pool: HttpPool, location: str) -> None:
    async with serve(redirecting(lambda _: location)) as served:
        with pytest.raises(Rejected, match="redirects to a URL"):
            await api_of(pool, served).get("/", follow_redirects=True)

    assert 1 == len(served.requests)


async def test_a_redirect_from_https_to_http_is_not_followed(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")
    pool = HttpPool(HttpPolicy(ca_file=authority.ca_file))
    async with (
        serve(hello) as plain,
        serve(redirecting(lambda _: plain.url), tls=authority.server) as served,
    ):
        api = api_of(pool, served, allowed_hosts=["127.0.0.1"])
        with pytest.raises(Rejected, match="plain http"):
            await api.get("/", follow_redirects=True)

    assert [] == plain.requests
    await pool.close()


async def test_a_redirect_loop_ends(pool: HttpPool) -> None:
    async with serve(redirecting(lambda _: "/")) as served:
        with pytest.raises(Rejected, match="more than 5 times"):
            await api_of(pool, served).get("/", follow_redirects=True)

    assert 6 == len(served.requests)


@pytest.mark.parametrize("status", [307, 308])
async def test_a_write_is_redirected_within_its_origin_with_method_and_body(
    pool: HttpPool, status: int
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/orders":
            return web.Response(status=status, headers={"Location": "/orders/"})
        return web.json_response([request.method, await request.text(), request.headers["X-Key"]])

    effects = JobEffects()
    async with serve(handler) as served:
        api = client_of(pool, effects=effects).at(served.url, headers={"X-Key": "k"})
        response = await api.post("/orders", json={"n": 1})

    assert ["POST", '{"n":1}', "k"] == response.json()
    assert effects.may_have_effect


async def test_a_redirected_write_that_is_refused_in_the_end_did_nothing(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Location": "/there"}
        return web.Response(status=307 if request.path == "/" else 422, headers=headers)

    effects = JobEffects()
    async with serve(handler) as served:
        with pytest.raises(Rejected, match="422"):
            await client_of(pool, effects=effects).at(served.url).post("/", json={})

    assert not effects.may_have_effect


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("status", "location", "path"),
    [
        (301, "/next?key=canary#x", "/next"),
        (302, "/next", "/next"),
        (303, "next", "next"),
        (307, "https://canary.example/next", "/next"),
        (308, "http://127.0.0.1:1/next", "/next"),
        (307, "http://[", None),
        (302, None, None),
        (300, None, None),
    ],
)
async def test_any_other_redirect_of_a_write_is_no_success(
    pool: HttpPool, method: str, status: int, location: str | None, path: str | None
) -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={} if location is None else {"Location": location})

    effects = JobEffects()
    async with serve(handler) as served:
        api = client_of(pool, effects=effects).at(served.url)
        with pytest.raises(Rejected, match="redirects") as failure:
            await api.request(method, "/", follow_redirects=True)

    assert {"status": status, "location": path} == failure.value.data
    assert "canary" not in failure.value.message
    assert Sent.UNCERTAIN is failure.value.sent
    assert effects.may_have_effect
    assert 1 == len(served.requests)


async def test_a_write_in_a_redirect_loop_ends(pool: HttpPool) -> None:
    async with serve(redirecting(lambda _: "/", 308)) as served:
        with pytest.raises(Rejected, match="more than 5 times") as failure:
            await api_of(pool, served).post("/", json={})

    assert Sent.UNCERTAIN is failure.value.sent
    assert 6 == len(served.requests)


# Tokens


async def test_fifty_calls_with_an_expired_token_make_one_token_call(pool: HttpPool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            issued.append(f"token-{len(issued) + 1}")
            return web.json_response({"access_token": issued[-1], "expires_in": 3600})
        is_good = request.headers["Authorization"] == f"Bearer {issued[-1]}"
        return web.json_response({}, status=200 if is_good else 401)

    issued: list[str] = []
    async with serve(handler) as served:

        async def fetch() -> Token:
            body = (await api_of(pool, served).detached().post("/token", data={"a": 1})).json()
            return Token(SecretStr(body["access_token"]), body["expires_in"])

        async def call() -> int:
            auth = TokenAuth(pool.tokens, "account", fetch)
            return (await api_of(pool, served).post("/work", json={}, auth=auth)).status_code

        assert {200} == set(await asyncio.gather(*(call() for _ in range(50))))
        assert 1 == len(issued)

        issued.append("revoked elsewhere")  # so that the token that is held is refused
        assert {200} == set(await asyncio.gather(*(call() for _ in range(50))))

    assert ["token-1", "revoked elsewhere", "token-3"] == issued


async def test_a_token_that_is_refused_twice_is_the_credentials_fault(pool: HttpPool) -> None:
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=401)

    calls = 0

    async def fetch() -> Token:
        nonlocal calls
        calls += 1
        return Token(SecretStr(f"token-{calls}"))

    async with serve(refuse) as served:
        with pytest.raises(CredentialInvalid):
            await api_of(pool, served).get("/", auth=TokenAuth(pool.tokens, "account", fetch))

    assert 2 == calls == len(served.requests)


async def test_a_token_that_does_not_come_left_the_call_unsent(pool: HttpPool) -> None:
    async def hang() -> Token:
        await asyncio.Event().wait()
        raise AssertionError

    async with serve(hello) as served:
        auth = TokenAuth(pool.tokens, "account", hang)
        with pytest.raises(Timeout, match="access token") as failure:
            await api_of(pool, served).post("/", json={}, auth=auth, timeout_s=0.05)

    assert Sent.NO is failure.value.sent
    assert [] == served.requests


# HostBreaker


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


# What is not told


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
