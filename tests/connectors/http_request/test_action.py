"""The connector `http`: what a job may ask for, what the API gets, what the caller is told."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from connectors.http_request import HttpCredential, HttpResult, RequestParams, effect_of, http, request
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    InvalidParams,
    NotFound,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Timeout,
    Unavailable,
)
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.personal import MASK
from tests.support.http_servers import answering, serve, serve_raw

pytestmark = pytest.mark.integration

CANARY = "canary/1f0e+2d=="
TURKISH = "Çağrı Şükrü İğdır"
XML = '<?xml version="1.0" encoding="%s"?>'


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    pool = HttpPool(HttpPolicy())
    yield pool
    await pool.close()


async def run(pool: HttpPool, document: dict[str, Any], *, key: str = "key-1", **params: Any) -> HttpResult:
    """Run the action as the worker does: read, call, dump."""
    context: Context[HttpCredential] = Context(
        job_id="job-1",
        tenant="acme",
        connector="http",
        action="request",
        idempotency_key=key,
        credential=http.read_credential(document),
        http=pool.client(tenant="acme", connector="http", credential="default"),
    )
    result = await request.call(request.signature.read(params), context)
    return HttpResult.model_validate(json.loads(json.dumps(request.dump(result), allow_nan=False)))


async def echo(received: web.Request) -> web.StreamResponse:
    return web.json_response(
        {
            "method": received.method,
            "path": received.raw_path,
            "headers": {name.lower(): value for name, value in received.headers.items()},
            "body": (await received.read()).decode(),
        }
    )


def test_the_action_is_declared_as_the_contract_says() -> None:
    schema = request.signature.schema

    bodies = {"json", "body", "form", "multipart", "base64"}
    assert {"method", "path", "query", "headers", "timeout_s", "parse_json"} | bodies == set(
        schema["properties"]
    )
    assert ["method", "path"] == schema["required"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("method", "plain", "keyed"),
    [
        ("GET", Effect.READ, Effect.READ),
        ("HEAD", Effect.READ, Effect.READ),
        ("PUT", Effect.KEYED, Effect.KEYED),
        ("DELETE", Effect.KEYED, Effect.KEYED),
        ("POST", Effect.WRITE, Effect.KEYED),
        ("PATCH", Effect.WRITE, Effect.KEYED),
    ],
)
def test_the_effect_follows_the_method_and_what_the_api_honours(
    method: str, plain: Effect, keyed: Effect
) -> None:
    params = RequestParams.model_validate({"method": method, "path": "/"})
    base = "https://api.example.com"

    assert plain is effect_of(params, HttpCredential(base_url=base))
    assert keyed is effect_of(params, HttpCredential(base_url=base, idempotency_header="Idempotency-Key"))
    assert plain is effect_of(params, None)


# What the API gets


def test_what_is_sent_is_personal_and_where_to_is_not() -> None:
    params = {
        "method": "POST",
        "path": "/orders",
        "query": {"to": "+90 532 000"},
        "json": {"name": "Ada", "n": 409},
    }
    personal = request.signature.personal(params)

    masked = {name: personal.mask(value, name) for name, value in params.items()}

    assert {"method": "POST", "path": "/orders", "query": MASK, "json": MASK} == masked
    assert {"status": 409} == personal.mask({"status": 409})


async def test_a_request_is_built_from_the_credential_and_the_job(pool: HttpPool) -> None:
    async with serve(echo) as served:
        result = await run(
            pool,
            {"base_url": f"{served.url}/v1/", "auth": "bearer", "token": "t0ken"},
            method="GET",
            path="/orders/a b/ü%2F1",
            query={"q": "a&b", "n": [1, 2.5], "ok": True},
            headers={"X-Trace": "7"},
        )

    assert 200 == result.status
    assert "/v1/orders/a%20b/%C3%BC%2F1?q=a%26b&n=1&n=2.5&ok=true" == result.body["path"]
    assert "7" == result.body["headers"]["x-trace"]
    assert "Bearer t0ken" == result.body["headers"]["authorization"]
    assert "idempotency-key" not in result.body["headers"]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "/v1"),
        ("/", "/v1/"),
        ("/a;b=c/@me:batch", "/v1/a;b=c/@me:batch"),
        ("/a%20b", "/v1/a%20b"),
        ("/100%25", "/v1/100%25"),
        ("/a//b", "/v1/a//b"),
        ('/"<>{}|^`', "/v1/%22%3C%3E%7B%7D%7C%5E%60"),
        ("/..a/...", "/v1/..a/..."),
        ("/{0.__class__}/${jndi:ldap:}", "/v1/%7B0.__class__%7D/$%7Bjndi:ldap:%7D"),
    ],
)
async def test_a_path_is_encoded_once(pool: HttpPool, path: str, sent: str) -> None:
    async with serve(echo) as served:
        result = await run(pool, {"base_url": f"{served.url}/v1"}, method="GET", path=path)

    assert sent == result.body["path"]


@pytest.mark.parametrize(
    ("document", "headers"),
    [
        ({"auth": "none"}, {}),
        ({"auth": "bearer", "token": "t"}, {"authorization": "Bearer t"}),
        (
            {"auth": "basic", "username": "ü", "password": "p:w"},
            {"authorization": "Basic " + base64.b64encode("ü:p:w".encode()).decode()},
        ),
        ({"auth": "header", "header": "X-Api-Key", "value": "v"}, {"x-api-key": "v"}),
    ],
)
async def test_each_way_of_being_let_in(
    pool: HttpPool, document: dict[str, Any], headers: dict[str, str]
) -> None:
    seen: dict[str, str] = {}

    async def note(received: web.Request) -> web.StreamResponse:
        seen.update({name.lower(): value for name, value in received.headers.items()})
        return web.Response()

    async with serve(note) as served:
        await run(pool, {"base_url": served.url, **document}, method="GET", path="/")

    assert headers == {name: seen[name] for name in ("authorization", "x-api-key") if name in seen}


@pytest.mark.parametrize(
    ("params", "body", "content_type"),
    [
        ({"json": {"a": [1, "ü"]}}, '{"a":[1,"ü"]}', "application/json"),
        ({"json": None}, "null", "application/json"),
        ({"json": False}, "false", "application/json"),
        ({"json": 1, "headers": {"content-type": "application/x+json"}}, "1", "application/x+json"),
        ({"body": "ü"}, "ü", "text/plain; charset=utf-8"),
        ({"body": "<a/>", "headers": {"Content-Type": "text/xml"}}, "<a/>", "text/xml"),
        ({}, "", None),
    ],
)
async def test_bodies_are_sent_with_their_type(
    pool: HttpPool, params: dict[str, Any], body: str, content_type: str | None
) -> None:
    async with serve(echo) as served:
        result = await run(pool, {"base_url": served.url}, method="POST", path="/", **params)

    assert (body, content_type) == (result.body["body"], result.body["headers"].get("content-type"))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_the_jobs_key_goes_with_a_write(pool: HttpPool, method: str) -> None:
    async with serve(echo) as served:
        plain = await run(pool, {"base_url": served.url}, method=method, path="/")
        named = await run(
            pool, {"base_url": served.url, "idempotency_header": "X-Once"}, method=method, path="/"
        )

    assert "key-1" == plain.body["headers"]["idempotency-key"]
    assert "key-1" == named.body["headers"]["x-once"]


async def test_keys_that_differ_in_outer_spaces_differ_on_the_wire(pool: HttpPool) -> None:
    async with serve(echo) as served:
        keys = {
            (await run(pool, {"base_url": served.url}, method="POST", path="/", key=key)).body["headers"][
                "idempotency-key"
            ]
            for key in ("a", " a", "a ")
        }

    assert 3 == len(keys)


# What is refused before a byte leaves

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


# The credential


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "base_url"),
        ({"base_url": ""}, "base_url"),
        ({"base_url": "api.example.com"}, "base_url"),
        ({"base_url": "file:///etc/passwd"}, "base_url"),
        ({"base_url": f"https://user:{CANARY}@api.example.com"}, "base_url"),
        ({"base_url": "http://127.1:8080"}, "base_url"),
        ({"base_url": "http://2130706433"}, "base_url"),
        ({"base_url": "https://api.example.com:0"}, "base_url"),
        ({"base_url": "https://api.example.com:65536"}, "base_url"),
        ({"base_url": "https://api.example.com."}, "base_url"),
        ({"base_url": f"https://api.example.com/?key={CANARY}"}, "base_url"),
        ({"base_url": "https://api.example.com/#x"}, "base_url"),
        ({"base_url": "https://api.example.com/a/../b"}, "base_url"),
        ({"base_url": "https://api.example.com", "auth": "digest"}, "auth"),
        ({"base_url": "https://api.example.com", "auth": "bearer"}, "token"),
        ({"base_url": "https://api.example.com", "token": CANARY}, "token"),
        ({"base_url": "https://api.example.com", "auth": "bearer", "token": f"{CANARY}\n"}, "Authorization"),
        ({"base_url": "https://api.example.com", "auth": "bearer", "token": [CANARY]}, "token"),
        ({"base_url": "https://api.example.com", "auth": "basic", "username": "u"}, "password"),
        (
            {"base_url": "https://api.example.com", "auth": "basic", "username": "u:", "password": CANARY},
            "username",
        ),
        (
            {"base_url": "https://api.example.com", "auth": "header", "header": "Host", "value": CANARY},
            "Host",
        ),
        (
            {"base_url": "https://api.example.com", "auth": "header", "header": "X A", "value": CANARY},
            "header",
        ),
        ({"base_url": "https://api.example.com", "allowed_hosts": ["https://x.example"]}, "allowed_hosts"),
        ({"base_url": "https://api.example.com", "idempotency_header": "Host"}, "idempotency_header"),
        ({"base_url": "https://api.example.com", "tokens": CANARY}, "tokens"),
    ],
)
def test_a_malformed_credential_is_named_and_never_quoted(document: dict[str, Any], field: str) -> None:
    with pytest.raises(CredentialInvalid) as failure:
        http.read_credential(document)

    shown = f"{failure.value.message} {failure.value.details}"
    assert field in shown
    assert CANARY not in shown


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com",
        "http://10.0.0.1",
        "https://10.0.0.1",
        "http://169.254.169.254",
        "https://169.254.169.254",
        "https://[::ffff:169.254.169.254]",
        "http://0.0.0.0:8080",
    ],
)
async def test_a_credential_cannot_lead_inside_beyond_loopback(pool: HttpPool, base_url: str) -> None:
    with pytest.raises(CredentialInvalid) as failure:
        await run(pool, {"base_url": base_url}, method="GET", path="/")

    assert ["base_url"] == [detail.field for detail in failure.value.details]
    assert Sent.NO is failure.value.sent


def test_a_credential_does_not_show_itself() -> None:
    documents = [
        {"auth": "bearer", "token": CANARY},
        {"auth": "basic", "username": "u", "password": CANARY},
        {"auth": "header", "header": "X-Api-Key", "value": CANARY},
    ]
    for document in documents:
        credential = http.read_credential({"base_url": "https://api.example.com", **document})
        assert CANARY not in f"{credential!r} {credential} {credential.model_dump()} {credential.headers()}"


def test_allowed_hosts_may_be_one_text() -> None:
    document = {"base_url": "https://a.example", "allowed_hosts": "B.example, c.example:8443"}

    assert ("b.example", "c.example:8443") == http.read_credential(document).allowed_hosts


async def test_an_echoed_secret_does_not_reach_the_caller(pool: HttpPool) -> None:
    async def failing(received: web.Request) -> web.StreamResponse:
        answer = await echo(received)
        assert isinstance(answer, web.Response)
        answer.headers["X-Echo"] = received.headers["Authorization"]
        answer.set_status(200 if received.path == "/" else 400)
        return answer

    documents = [
        {"auth": "bearer", "token": CANARY},
        {"auth": "basic", "username": "user", "password": CANARY},
    ]
    async with serve(failing) as served:
        for document in documents:
            full = {"base_url": served.url, **document}
            result = await run(pool, full, method="GET", path="/", query={"q": CANARY})
            with pytest.raises(Rejected) as failure:
                await run(pool, full, method="GET", path="/fail")
            shown = f"{result} {failure.value.data}"
            assert "***" in shown
            for secret in (CANARY, base64.b64encode(f"user:{CANARY}".encode()).decode()):
                assert secret not in shown


# What the caller is told


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
