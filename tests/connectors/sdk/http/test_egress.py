"""Where a call may go, by who names the host."""

from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from connectors.sdk.errors import (
    CredentialInvalid,
    InvalidParams,
    Sent,
)
from connectors.sdk.http.address import RefusedAddress
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.egress import NOTHING_INSIDE, Egress
from connectors.sdk.http.resolver import GuardedResolver
from tests.support.http_calls import Names, api_of, client_of, hello
from tests.support.http_servers import make_authority, serve

pytestmark = pytest.mark.integration


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
