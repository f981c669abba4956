"""What the caller is told of an answer."""

import asyncio
import base64

import pytest
from aiohttp import web

from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    NotFound,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Timeout,
    Unavailable,
)
from connectors.sdk.http.client import HttpPool
from tests.support.http_action import CANARY, TURKISH, XML, echo, run
from tests.support.http_servers import answering, serve, serve_raw

pytestmark = pytest.mark.integration


def answer(content_type: str | None, body: bytes, status: int = 200) -> bytes:
    kind = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    return f"HTTP/1.1 {status} X\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("content_type", "content", "body"),
    [
        ("application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("application/problem+json; charset=utf-8", b"[1]", [1]),
        ("application/json", b"", None),
        ("application/json", b"\xef\xbb\xbf{}", {}),
        ("application/json; charset=utf-16", '{"a": "ü"}'.encode("utf-16"), {"a": "ü"}),
        ("application/json", b"{oops", "{oops"),
        ("application/json", b"NaN", "NaN"),
        ("application/json", b"[-Infinity]", "[-Infinity]"),
        ("application/json", b"[1e999]", "[1e999]"),
        ("application/json", b"[1e200]", [1e200]),
        ("application/json", b'"\\ud800"', '"\\ud800"'),
        ("application/json", b"[" * 5000 + b"]" * 5000, "[" * 5000 + "]" * 5000),
        ("application/json", b"9" * 5000, "9" * 5000),
        ("application/json", b"9" * 400, int("9" * 400)),
        ("text/html", b"<p>hi</p>", "<p>hi</p>"),
        ("text/plain; charset=iso-8859-9", "ışık".encode("iso-8859-9"), "ışık"),
        ("text/plain; charset=nonsense", "ü".encode(), "ü"),
        ("text/plain; charset=punycode", b"hi", "hi"),
        ("text/plain", b"\xff\xfe", ""),
        ("text/plain", b"\xff", {"base64": "/w=="}),
        (
            "text/csv",
            TURKISH.encode("cp1254"),
            {"base64": base64.b64encode(TURKISH.encode("cp1254")).decode()},
        ),
        ("text/csv", TURKISH.encode("utf-16"), TURKISH),
        ("text/csv; charset=utf-8", b"\xef\xbb\xbfname", "name"),
        ("text/plain; charset=utf-8", b"\xdd", {"base64": "3Q=="}),
        ("application/json", b'{"a": "\xdd"}', {"base64": base64.b64encode(b'{"a": "\xdd"}').decode()}),
        ("application/json", "[1]".encode("utf-16"), [1]),
        (
            "application/xml",
            f"{XML % 'ISO-8859-9'}{TURKISH}".encode("iso8859-9"),
            f"{XML % 'ISO-8859-9'}{TURKISH}",
        ),
        ("text/xml", f"{XML % 'UTF-16'}{TURKISH}".encode("utf-16"), f"{XML % 'UTF-16'}{TURKISH}"),
        ("application/xml", b"<a/>", "<a/>"),
        (None, b"plain", "plain"),
        ("application/octet-stream", b"text all the same", "text all the same"),
        ("application/pdf", b"%PDF\xff", {"base64": base64.b64encode(b"%PDF\xff").decode()}),
        ("image/png", b"\x89PNG\x00", {"base64": base64.b64encode(b"\x89PNG\x00").decode()}),
        (None, b"a\x00b", {"base64": base64.b64encode(b"a\x00b").decode()}),
    ],
)
async def test_a_body_is_read_by_its_type(
    pool: HttpPool, content_type: str | None, content: bytes, body: object
) -> None:
    async with serve_raw(answering(answer(content_type, content))) as served:
        result = await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert body == result.body


async def test_headers_are_given_without_those_of_the_connection(pool: HttpPool) -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nSet-Cookie: s=1\r\nConnection: close\r\n"
        b'Keep-Alive: timeout=5\r\nETag: "7"\r\nContent-Length: 0\r\n\r\n'
    )
    async with serve_raw(answering(data)) as served:
        result = await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert {"x-a": "1, 2", "etag": '"7"'} == result.headers
    assert result.body is None


async def test_head_has_no_body(pool: HttpPool) -> None:
    async with serve(echo) as served:
        result = await run(pool, {"base_url": served.url}, method="HEAD", path="/")

    assert (200, None) == (result.status, result.body)


async def test_redirects_are_an_answer(pool: HttpPool) -> None:
    async def move(_received: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    async with serve(move) as served:
        result = await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert (302, "http://169.254.169.254/") == (result.status, result.headers["location"])


async def test_allowed_hosts_let_redirects_be_followed_without_the_credential(pool: HttpPool) -> None:
    async def move(_received: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": far.url})

    async with serve(echo) as far, serve(move) as served:
        document = {
            "base_url": served.url,
            "auth": "bearer",
            "token": CANARY,
            "allowed_hosts": [f"127.0.0.1:{far.port}"],
        }
        result = await run(pool, document, method="GET", path="/")
        document["allowed_hosts"] = ["api.example.com"]
        with pytest.raises(Rejected, match="another host"):
            await run(pool, document, method="GET", path="/")

    assert "authorization" not in result.body["headers"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Rejected),
        (401, CredentialInvalid),
        (403, PermissionDenied),
        (404, NotFound),
        (408, Unavailable),
        (409, Conflict),
        (410, Rejected),
        (418, Rejected),
        (422, Rejected),
        (429, RateLimited),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
    ],
)
async def test_a_refusal_is_told_by_the_shared_table_with_its_body(
    pool: HttpPool, status: int, kind: type[ConnectorError]
) -> None:
    async with serve_raw(answering(answer("application/json", b'{"why": "so"}', status))) as served:
        with pytest.raises(kind) as failure:
            await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert kind is type(failure.value)
    assert {"status": status, "body": {"why": "so"}} == failure.value.data
    assert "why" not in failure.value.message


@pytest.mark.parametrize("content_type", ["application/json", "text/plain; charset=utf-16", "image/png"])
async def test_a_refusals_body_is_cut_at_8_kib(pool: HttpPool, content_type: str) -> None:
    content = ("ü" * 20_000).encode("utf-16" if "16" in content_type else "utf-8")
    async with serve_raw(answering(answer(content_type, content, 400))) as served:
        with pytest.raises(Rejected) as failure:
            await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert failure.value.data is not None
    body = failure.value.data["body"]
    assert 4000 < len(body.encode()) <= 8192
    assert {"ü"} == set(body.removeprefix("\ufeff"))


async def test_the_wait_a_refusal_names_is_passed_on(pool: HttpPool) -> None:
    data = b"HTTP/1.1 429 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    async with serve_raw(answering(data)) as served:
        with pytest.raises(RateLimited) as failure:
            await run(pool, {"base_url": served.url}, method="GET", path="/")

    assert 7.0 == failure.value.retry_after_s
    assert {"status": 429, "body": None} == failure.value.data


async def test_a_call_ends_at_its_timeout(pool: HttpPool) -> None:
    async def never(*_streams: object) -> None:
        await asyncio.Event().wait()

    async with serve_raw(never) as served:
        with pytest.raises(Timeout) as failure:
            await run(pool, {"base_url": served.url}, method="POST", path="/", timeout_s=0.1)

    assert Sent.UNCERTAIN is failure.value.sent
