"""The connector `http`: what a job may ask for, what the API gets, what the caller is told."""

import base64
from typing import Any

import pytest
from aiohttp import web

from connectors.http_request import HttpCredential, RequestParams, effect_of, request
from connectors.sdk.effects import Effect
from connectors.sdk.http.client import HttpPool
from connectors.sdk.personal import MASK
from tests.support.http_action import echo, run
from tests.support.http_servers import serve

pytestmark = pytest.mark.integration


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
