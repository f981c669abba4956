"""What is refused before a byte leaves."""

from typing import Any

import pytest

from connectors.sdk.errors import (
    InvalidParams,
)
from connectors.sdk.http.client import HttpPool
from tests.support.http_action import CANARY, run
from tests.support.http_servers import answering, serve_raw

pytestmark = pytest.mark.integration


B83 = [
    "file:///etc/passwd",
    "gopher://127.0.0.1:11211/_",
    "ftp://example.com/",
    "data:text/plain,hi",
    "example.com/x",
    "127.1",
    "2130706433",
    "0x7f000001",
    "017700000001",
    "0",
    "[::1]",
    "[::ffff:169.254.169.254]",
    "169.254.169.254\\@host",
    "host@127.0.0.1",
    "user:password@127.0.0.1",
    "http://user@127.0.0.1/",
    "http://127.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://localhost./",
    "//169.254.169.254/",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://аpple.com/",
    "https://example.com:0/",
    "https://example.com:22/",
    "https://example.com:65536/",
    ":22/",
    "@evil.example/",
    ".evil.example/",
    "/" + "a" * 8192,
    "/a\r\nHost: evil",
    "/a\x00",
    "/a\x7f",
    "/%0d%0aHost:evil",
    "/%00",
    "/../admin",
    "/a/..",
    "/a/./b",
    "/%2e%2e/admin",
    "/%2E./admin",
    "/%252e%252e/admin",
    "/..%2fadmin",
    "/..;/admin",
    "/a%5c..%5cadmin",
    "/a?admin=1",
    "/a#b",
    "/100%",
    "/%zz",
]


@pytest.mark.parametrize("path", B83)
async def test_paths_that_could_lead_elsewhere_are_refused(pool: HttpPool, path: str) -> None:
    async with serve_raw(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as served:
        with pytest.raises(InvalidParams) as failure:
            await run(pool, {"base_url": served.url}, method="GET", path=path)

    assert 0 == served.connections
    assert [detail.field in {"path", ""} for detail in failure.value.details] == [True]


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"Host": "evil"}, "Host"),
        ({"Content-Length": "0"}, "Content-Length"),
        ({"transfer-encoding": "chunked"}, "transfer-encoding"),
        ({"Connection": "x"}, "Connection"),
        ({"Upgrade": "h2c"}, "Upgrade"),
        ({"TE": "trailers"}, "TE"),
        ({"Trailer": "x"}, "Trailer"),
        ({"Expect": "100-continue"}, "Expect"),
        ({"Proxy-Authorization": "x"}, "Proxy-Authorization"),
        ({"Authorization": "Bearer x"}, "Authorization"),
        ({"Cookie": "a=b"}, "Cookie"),
        ({"X-Forwarded-For": "127.0.0.1"}, "X-Forwarded-For"),
        ({"X-HTTP-Method-Override": "DELETE"}, "X-HTTP-Method-Override"),
        ({"Idempotency-Key": "mine"}, "Idempotency-Key"),
        ({"x-api-key": "mine"}, "X-Api-Key"),
        ({"X-A": "a\r\nX-B: b"}, "X-A"),
        ({"X-A": "a\nb"}, "X-A"),
        ({"X-A": "a\x00b"}, "X-A"),
        ({"X-A": "ü"}, "X-A"),
        ({"X-A": "a" * 5000}, "X-A"),
        ({"X A": "b"}, "name"),
        ({"X-A\r\nX-B": "b"}, "name"),
        ({"": "b"}, "name"),
        ({"X-A": "1", "x-a": "2"}, "once"),
        ({f"X-{number}": "" for number in range(65)}, "64"),
    ],
)
async def test_headers_that_are_not_a_jobs_to_set_are_refused(
    pool: HttpPool, headers: dict[str, str], shown: str
) -> None:
    document = {"auth": "header", "header": "X-Api-Key", "value": CANARY}
    async with serve_raw(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as served:
        with pytest.raises(InvalidParams) as failure:
            await run(pool, {"base_url": served.url, **document}, method="GET", path="/", headers=headers)

    assert 0 == served.connections
    assert ["headers"] == [detail.field for detail in failure.value.details]
    assert shown in failure.value.message


@pytest.mark.parametrize(
    "params",
    [
        {"method": "TRACE"},
        {"method": "CONNECT"},
        {"method": "OPTIONS"},
        {"method": "GET\r\n"},
        {"method": ""},
        {"method": None},
        {"path": None},
        {"path": 1},
        {"query": {"a": None}},
        {"query": {"a": {"b": 1}}},
        {"query": "a=b"},
        {"query": {"a": "b" * 4096}},
        {"headers": {"X-A": 1}},
        {"json": {}, "method": "GET"},
        {"body": "", "method": "HEAD"},
        {"json": {}, "body": "", "method": "POST"},
        {"body": {}, "method": "POST"},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": 61},
        {"timeout_s": 1e9},
        {"timeout_s": "5"},
        {"url": "https://evil.example/"},
        {"follow_redirects": True},
    ],
)
async def test_parameters_that_make_no_sense_are_refused(pool: HttpPool, params: dict[str, Any]) -> None:
    async with serve_raw(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as served:
        with pytest.raises(InvalidParams):
            await run(pool, {"base_url": served.url}, **{"method": "GET", "path": "/", **params})

    assert 0 == served.connections
