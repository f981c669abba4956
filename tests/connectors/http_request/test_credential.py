"""The credential of `http`: what it may hold."""

import base64
from typing import Any

import pytest
from aiohttp import web

from connectors.http_request import http
from connectors.sdk.errors import (
    CredentialInvalid,
    Rejected,
    Sent,
)
from connectors.sdk.http.client import HttpPool
from tests.support.http_action import CANARY, echo, run
from tests.support.http_servers import serve

pytestmark = pytest.mark.integration


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
