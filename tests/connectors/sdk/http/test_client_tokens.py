"""Bearer tokens: got once, shared, and given up when they are refused."""

import asyncio

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.sdk.errors import (
    CredentialInvalid,
    Sent,
    Timeout,
)
from connectors.sdk.http.client import HttpPool
from connectors.sdk.http.tokens import Token, TokenAuth
from tests.support.http_calls import api_of, hello
from tests.support.http_servers import serve

pytestmark = pytest.mark.integration


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
