"""How far a request came when its call fails."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
from aiohttp import web

from connectors.sdk.errors import (
    NotFound,
    Sent,
    Timeout,
    Unavailable,
)
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.http_calls import OK, Names, api_of, client_of, cut, hello, never
from tests.support.http_servers import answering, make_authority, read_request, serve, serve_raw

pytestmark = pytest.mark.integration


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
