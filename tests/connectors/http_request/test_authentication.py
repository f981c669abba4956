"""The ways a credential authenticates requests, and that none of them shows in an answer."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from connectors.http_request import http
from connectors.sdk.errors import Code, CredentialInvalid
from connectors.sdk.testing import Answer, Asked, FakeProvider, Kit, Ran
from tests.support.http_servers import make_authority, make_client_pair, serve

pytestmark = pytest.mark.integration

CANARY = "canary/1f0e+2d=="
BASE = {"base_url": "https://api.example.com"}


class OAuthApi(FakeProvider):
    """A token endpoint, and an API that takes its newest token and echoes what it was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0
        self.rotates = False
        self.on("POST", "/token", self.token)
        self.on("GET", "/me", self.me)

    @property
    def credential(self) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "auth": "oauth2",
            "token_url": f"{self.url}/token",
            "client_id": "client",
            "client_secret": "client-secret-1",
        }

    @property
    def forms(self) -> list[dict[str, str]]:
        asked = [each for each in self.journal if each.path == "/token"]
        return [dict(pair.split("=") for pair in each.body.decode().split("&")) for each in asked]

    def token(self, _asked: Asked) -> Answer:
        self.tokens += 1
        rotated = {"refresh_token": f"refresh-token-{self.tokens + 1}"} if self.rotates else {}
        return Answer({"access_token": f"access-token-{self.tokens}", "expires_in": 3600, **rotated})

    def me(self, asked: Asked) -> Answer:
        is_let_in = asked.headers.get("authorization") == f"Bearer access-token-{self.tokens}"
        return Answer({"echo": asked.headers.get("authorization")}, status=200 if is_let_in else 401)


@pytest.fixture
async def api() -> AsyncIterator[OAuthApi]:
    async with OAuthApi() as api:
        yield api


async def me(kit: Kit) -> Ran:
    return await kit.run("request", {"method": "GET", "path": "/me"})


async def test_client_credentials_fetch_one_token_for_many_jobs(api: OAuthApi) -> None:
    async with Kit(http, credential={**api.credential, "scope": "read"}) as kit:
        rans = await asyncio.gather(*(me(kit) for _ in range(5)))

    assert {"succeeded"} == {ran.result.status for ran in rans}
    assert [{"grant_type": "client_credentials", "client_id": "client"}] == [
        {name: form[name] for name in ("grant_type", "client_id")} for form in api.forms
    ]
    assert "read" == api.forms[0]["scope"]


async def test_a_refresh_token_is_used_and_its_successor_too(api: OAuthApi) -> None:
    api.rotates = True
    async with Kit(http, credential={**api.credential, "refresh_token": "refresh-token-1"}) as kit:
        await me(kit)
        kit.clock.skip(timedelta(hours=2).total_seconds())
        await me(kit)

    assert ["refresh-token-1", "refresh-token-2"] == [form["refresh_token"] for form in api.forms]


async def test_an_echoed_access_token_is_masked(api: OAuthApi) -> None:
    async with Kit(http, credential=api.credential) as kit:
        ran = await me(kit)

    assert ({"echo": "Bearer ***"}, ()) == (ran.data["body"], ran.leaks)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer({"error": "invalid_client"}, status=401), Code.CREDENTIAL_INVALID),
        (Answer(status=302, headers={"Location": "/login"}), Code.CREDENTIAL_INVALID),
        (Answer(status=503), Code.UNAVAILABLE),
        (Answer(body=b"<html>"), Code.UNAVAILABLE),
        (Answer(instead="cut"), Code.UNAVAILABLE),
    ],
)
async def test_a_token_that_does_not_come_left_nothing(api: OAuthApi, answer: Answer, code: Code) -> None:
    api.on("POST", "/token", answer)
    async with Kit(http, credential=api.credential, max_attempts=1) as kit:
        ran = await kit.run("request", {"method": "POST", "path": "/me"})

    assert ran.result.error is not None
    assert code is ran.result.error.code
    assert "unknown" not in str(ran.result.error.data)


async def test_a_key_in_the_query_is_sent_and_shown_nowhere() -> None:
    def echo(asked: Asked) -> Answer:
        headers = {"X-Next": f"/next?api_key={asked.query['api_key']}"}
        return Answer({"query": dict(asked.query)}, status=200 if asked.path == "/" else 422, headers=headers)

    document = {"auth": "query", "parameter": "api_key", "value": CANARY}
    async with FakeProvider() as api:
        api.on("GET", "/", echo)
        api.on("GET", "/refused", echo)
        async with Kit(http, credential={"base_url": api.url, **document}) as kit:
            found = await kit.run("request", {"method": "GET", "path": "/", "query": {"q": "a b"}})
            refused = await kit.run("request", {"method": "GET", "path": "/refused"})

    assert {"q": "a b", "api_key": CANARY} == api.journal[0].query
    assert {"q": "a b", "api_key": "***"} == found.data["body"]["query"]
    assert "1f0e" not in f"{found} {refused}"
    assert ((), ()) == (found.leaks, refused.leaks)


async def test_a_key_in_the_query_follows_a_redirect_within_its_origin_alone() -> None:
    async with FakeProvider() as far, FakeProvider() as near:
        far.on("GET", "/far", Answer({}))
        near.on("GET", "/here", Answer({}))
        near.on("GET", "/a", Answer(status=302, headers={"Location": "/here?page=2"}))
        near.on("GET", "/b", Answer(status=302, headers={"Location": f"{far.url}/far"}))
        document = {"base_url": near.url, "auth": "query", "parameter": "key", "value": CANARY}
        hosts = [url.removeprefix("http://") for url in (near.url, far.url)]
        async with Kit(http, credential={**document, "allowed_hosts": hosts}) as kit:
            for path in ("/a", "/b"):
                await kit.run("request", {"method": "GET", "path": path})

    assert {"page": "2", "key": CANARY} == near.journal[1].query
    assert {} == far.journal[0].query


async def test_a_job_cannot_take_the_place_of_the_key() -> None:
    document = {**BASE, "auth": "query", "parameter": "key", "value": CANARY}
    async with Kit(http, credential=document) as kit:
        ran = await kit.run("request", {"method": "GET", "path": "/", "query": {"key": "mine"}})

    assert ran.result.error is not None
    assert Code.INVALID_PARAMS is ran.result.error.code


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"auth": "query", "value": CANARY}, "parameter"),
        ({"auth": "query", "parameter": "", "value": CANARY}, "parameter"),
        ({"auth": "header", "parameter": "key", "header": "X", "value": CANARY}, "parameter"),
        ({"auth": "oauth2", "client_id": "c", "client_secret": CANARY}, "token_url"),
        ({"auth": "oauth2", "client_id": "c", "token_url": "https://a.example"}, "client_secret"),
        ({"auth": "oauth2", "client_id": "c", "client_secret": CANARY, "token_url": "ftp://x"}, "token_url"),
        ({"client_secret": CANARY}, "client_secret"),
        ({"client_key": f"-----BEGIN {CANARY}"}, "client_certificate"),
        ({"ca": CANARY}, "ca"),
    ],
)
def test_an_incomplete_credential_is_named_and_not_quoted(document: dict[str, str], field: str) -> None:
    with pytest.raises(CredentialInvalid, match=field) as failure:
        http.read_credential({**BASE, **document})

    assert "canary" not in repr(failure.value)


async def call(document: dict[str, Any], path: str = "/") -> Ran:
    async with Kit(http, credential=document, max_attempts=1) as kit:
        return await kit.run("request", {"method": "GET", "path": path})


async def hello(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"hello": "world"})


async def test_a_credentials_own_authority_is_trusted_by_it_alone(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")
    async with serve(hello, tls=authority.server) as served:
        trusted = await call({"base_url": served.url, "ca": authority.ca_file.read_text()})
        untrusted = await call({"base_url": served.url})

    assert ("succeeded", "failed") == (trusted.result.status, untrusted.result.status)


async def test_a_client_certificate_is_presented(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")
    certificate, key = make_client_pair("worker")
    authority.server.load_verify_locations(cadata=certificate)
    authority.server.verify_mode = ssl.CERT_REQUIRED
    document = {"ca": authority.ca_file.read_text()}
    async with serve(hello, tls=authority.server) as served:
        pair = {"client_certificate": certificate, "client_key": key}
        with_one = await call({"base_url": served.url, **document, **pair})
        without = await call({"base_url": served.url, **document})

    assert ("succeeded", "failed") == (with_one.result.status, without.result.status)


async def test_a_client_key_that_does_not_fit_is_named_and_not_quoted(tmp_path: Path) -> None:
    certificate, _ = make_client_pair("worker")
    _, other_key = make_client_pair("other")
    ran = await call({**BASE, "client_certificate": certificate, "client_key": other_key})

    assert ran.result.error is not None
    assert Code.CREDENTIAL_INVALID is ran.result.error.code
    assert ["client_certificate"] == [detail.field for detail in ran.result.error.details]
    assert () == ran.leaks


async def test_a_client_key_with_a_password_is_refused_without_asking_for_it() -> None:
    certificate, key = make_client_pair("worker", password=b"secret")

    ran = await call({**BASE, "client_certificate": certificate, "client_key": key})

    assert ran.result.error is not None
    assert Code.CREDENTIAL_INVALID is ran.result.error.code
