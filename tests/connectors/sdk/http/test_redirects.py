"""Which redirects are followed, and what is left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.sdk.errors import (
    Rejected,
    Sent,
)
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.job_effects import JobEffects
from tests.support.http_calls import api_of, client_of, hello
from tests.support.http_servers import make_authority, serve

pytestmark = pytest.mark.integration


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
