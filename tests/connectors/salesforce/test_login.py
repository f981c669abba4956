"""Logging in: four ways, once for all who wait, and never twice in a minute where it was refused."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connectors.salesforce import salesforce
from connectors.salesforce.credential import ASSERTION_LIFETIME_S
from connectors.sandbox.salesforce.server import Fault, SalesforceSandbox
from connectors.sdk.errors import (
    CredentialInvalid,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Unavailable,
)
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.http.refresh_tokens import Rotation
from tests.support.http_servers import make_authority, serve
from tests.support.salesforce import Bench

pytestmark = pytest.mark.integration

WAYS = ("jwt", "client_credentials", "refresh_token", "password")


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_logs_in(bench: Bench, way: str) -> None:
    answer = await bench.run("get_limits", document=bench.org.authority.document(way))

    assert answer["limits"]["DailyApiRequests"]["Max"] == 15_000
    assert 1 == bench.org.journal.calls["token"]


async def test_a_credential_is_checked_at_the_org_without_a_change(bench: Bench) -> None:
    await salesforce.call_check(bench.context("check"))

    assert ["login"] == [effect.kind for effect in bench.org.journal.effects]
    assert "GET /services/data/v62.0/" == bench.org.requests[1]
    assert {"GET"} == {request.partition(" ")[0] for request in bench.org.requests[1:]}


@pytest.mark.parametrize(
    "setting",
    [
        {"lead_external_id_field": "Conectors_Key__c"},
        {"lead_external_id_field": "Title"},
        {"task_key_field": "Conectors_Key__c"},
        {"key_fields": {"Account": "Conectors_Key__c"}},
        {"external_id_fields": {"Nope__c": "Connectors_Key__c"}},
    ],
)
async def test_a_check_names_a_wrong_mark_field(bench: Bench, setting: dict[str, Any]) -> None:
    document = bench.org.authority.document("client_credentials", **setting)

    with pytest.raises(CredentialInvalid) as caught:
        await salesforce.call_check(bench.context("check", document=document))

    assert list(setting) == [detail.field for detail in caught.value.details]


async def test_a_check_reports_a_refused_login_and_a_disabled_api(bench: Bench) -> None:
    refused = bench.document | {"client_secret": "wrong"}
    bench.org.faults.add(Fault("versions", status=403, code="API_DISABLED_FOR_ORG"))

    with pytest.raises(CredentialInvalid):
        await salesforce.call_check(bench.context("check", document=refused))
    with pytest.raises(PermissionDenied):
        await salesforce.call_check(bench.context("check"))


@pytest.mark.parametrize(
    ("way", "part", "value"),
    [
        ("jwt", "client_id", "another"),
        ("jwt", "username", "nobody@sandbox.example"),
        ("jwt", "audience", "https://login.salesforce.com"),
        ("client_credentials", "client_secret", "wrong"),
        ("client_credentials", "client_id", "wrong"),
        ("refresh_token", "refresh_token", "revoked"),
        ("password", "password", "wrong"),
        ("password", "security_token", "wrong"),
    ],
)
async def test_a_refused_login_is_not_retried_for_a_minute(
    bench: Bench, way: str, part: str, value: str
) -> None:
    document = bench.org.authority.document(way) | {part: value}

    for _ in range(2):
        with pytest.raises(CredentialInvalid):
            await bench.run("get_limits", document=document)
    with pytest.raises(CredentialInvalid) as caught:
        await bench.run("get_limits", document=document)

    assert Sent.NO is caught.value.sent
    assert "not tried again for" in caught.value.message
    assert 1 == bench.org.journal.calls["token"]


async def test_a_fixed_credential_need_not_wait(bench: Bench) -> None:
    wrong = bench.org.authority.document("password") | {"password": "wrong"}
    with pytest.raises(CredentialInvalid):
        await bench.run("get_limits", document=wrong)

    await bench.run("get_limits", document=bench.org.authority.document("password"))

    assert 2 == bench.org.journal.calls["token"]


async def test_an_assertion_lives_three_minutes_at_most(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        form = parse_qs((await request.read()).decode())
        claims = form["assertion"][0].split(".")[1]
        seen.append(json.loads(base64.urlsafe_b64decode(claims + "==")))
        return web.json_response({"error": "invalid_grant", "error_description": "x"}, status=400)

    async with serve(answer) as served:
        document = bench.org.authority.document("jwt") | {"login_url": served.url}
        with pytest.raises(CredentialInvalid):
            await bench.run("get_limits", document=document)

    (claims,) = seen
    assert {
        "iss": document["client_id"],
        "sub": document["username"],
        "aud": served.url,
    }.items() <= claims.items()
    assert 0 < claims["exp"] - time.time() <= 180
    assert ASSERTION_LIFETIME_S <= 180


@pytest.mark.parametrize(("ahead_s", "way"), [(-600, "ahead of"), (600, "behind")])
async def test_a_clock_that_is_off_is_named(bench: Bench, ahead_s: int, way: str) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        theirs = datetime.now(UTC) + timedelta(seconds=ahead_s)
        return web.json_response(
            {"error": "invalid_grant", "error_description": "expired authorization code"},
            status=400,
            headers={"Date": theirs.strftime("%a, %d %b %Y %H:%M:%S GMT")},
        )

    async with serve(answer) as served:
        with pytest.raises(CredentialInvalid, match=f"clock is .* s {way} the server's"):
            await bench.run(
                "get_limits", document=bench.org.authority.document("jwt") | {"login_url": served.url}
            )


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (400, {"error": "unknown_error", "error_description": "retry your request"}),
        (503, {"error": "server_error"}),
        (500, "<html>"),
        (200, {}),
        (200, {"access_token": "x"}),
        (200, []),
    ],
)
async def test_a_login_host_that_fails_is_unavailable(bench: Bench, status: int, answer: Any) -> None:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.json_response(answer, status=status)

    async with serve(reply) as served:
        with pytest.raises(Unavailable) as caught:
            await bench.run(
                "get_limits", document=bench.org.authority.document("jwt") | {"login_url": served.url}
            )

    assert Sent.NO is caught.value.sent


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "text/html", "<html>Welcome</html>"),
        (404, "text/html", "<html>Not here</html>"),
        (405, "text/plain", ""),
        (301, "text/html", "<html>Moved</html>"),
        (307, "text/html", ""),
    ],
)
async def test_a_wrong_login_host_is_the_credentials_fault(
    bench: Bench, status: int, content_type: str, body: str
) -> None:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type)

    async with serve(reply) as served:
        with pytest.raises(CredentialInvalid) as caught:
            await bench.run(
                "get_limits", document=bench.org.authority.document("jwt") | {"login_url": served.url}
            )

    assert ["login_url"] == [detail.field for detail in caught.value.details]


@pytest.mark.parametrize(
    ("error", "description", "field"),
    [
        ("invalid_client", "x", "client_secret"),
        ("invalid_client_id", "x", "client_id"),
        ("invalid_grant", "invalid assertion", "private_key"),
        ("invalid_grant", "audience is invalid", "login_url"),
        ("inactive_user", "x", "username"),
    ],
)
async def test_a_refused_login_names_the_field_to_fix(
    bench: Bench, error: str, description: str, field: str
) -> None:
    async def reply(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error, "error_description": description}, status=400)

    async with serve(reply) as served:
        with pytest.raises(CredentialInvalid) as caught:
            await bench.run(
                "get_limits", document=bench.org.authority.document("jwt") | {"login_url": served.url}
            )

    assert [field] == [detail.field for detail in caught.value.details]


async def test_too_many_logins_are_rate_limited(bench: Bench) -> None:
    async def reply(_request: web.Request) -> web.StreamResponse:
        answer = {"error": "invalid_grant", "error_description": "login rate exceeded"}
        return web.json_response(answer, status=400)

    async with serve(reply) as served:
        document = bench.org.authority.document("jwt") | {"login_url": served.url}
        with pytest.raises(RateLimited) as caught:
            await bench.run("get_limits", document=document)

    assert Sent.NO is caught.value.sent
    assert caught.value.retry_after_s


async def test_a_rotated_refresh_token_is_used_and_stored(org: SalesforceSandbox) -> None:
    kept: list[Rotation] = []

    async def keep(rotation: Rotation) -> None:
        kept.append(rotation)

    org.authority.rotates_refresh_tokens = True
    pool = HttpPool(HttpPolicy(), keep=keep)
    bench = Bench(org, pool)
    document = org.authority.document("refresh_token")
    try:
        for _ in range(3):
            await bench.run("get_limits", document=document)
            org.authority.expire_sessions()
        stored = org.authority.document("refresh_token")
        await bench.run("get_limits", document=stored)
    finally:
        await pool.close()

    assert ["refresh_token"] * 4 == [rotation.field for rotation in kept]
    assert org.authority.refresh_token == kept[-1].newest.get_secret_value()


async def test_a_refresh_token_used_twice_revokes_them_all(org: SalesforceSandbox, pool: HttpPool) -> None:
    org.authority.rotates_refresh_tokens = True
    document = org.authority.document("refresh_token")
    await Bench(org, pool).run("get_limits", document=document)
    other_worker = HttpPool(HttpPolicy())

    try:
        with pytest.raises(CredentialInvalid, match="authorize anew"):
            await Bench(org, other_worker).run("get_limits", document=document)
    finally:
        await other_worker.close()


async def test_fifty_jobs_on_an_expired_session_log_in_once(bench: Bench) -> None:
    await bench.run("get_limits")
    bench.org.authority.expire_sessions()
    bench.org.journal.calls.clear()

    answers = await asyncio.gather(
        *(bench.run("get_contact_details", {"email": "ada@lovelace.example"}) for _ in range(50))
    )

    assert all(answer["found"] for answer in answers)
    assert 1 == bench.org.journal.calls["token"]


async def test_fifty_jobs_on_a_cold_start_log_in_once(bench: Bench) -> None:
    await asyncio.gather(*(bench.run("get_limits") for _ in range(50)))

    assert 1 == bench.org.journal.calls["token"]


async def test_a_session_refused_twice_is_the_credentials_fault(bench: Bench) -> None:
    bench.org.faults.add(Fault("query", times=None, status=401, code="INVALID_SESSION_ID"))

    with pytest.raises(CredentialInvalid):
        await bench.run("get_contact_details", {"email": "ada@lovelace.example"})

    assert 2 == bench.org.journal.calls["query"]
    assert 2 == bench.org.journal.calls["token"]


async def test_a_write_on_an_expired_session_happens_once(bench: Bench) -> None:
    await bench.run("get_limits")
    bench.org.authority.expire_sessions()

    await bench.run("create_task", {"subject": "Call back"})

    assert 1 == len(bench.org.journal.of("created", "Task"))


async def test_two_tenants_interleaved_never_share_a_session(bench: Bench, pool: HttpPool) -> None:
    async with SalesforceSandbox() as other_org:
        other_org.seed()
        other = Bench(other_org, pool)
        for each in (bench, other):
            await asyncio.gather(
                *(
                    one.run("get_contact_details", {"email": "ada@lovelace.example"}, tenant=tenant)
                    for one, tenant in [(bench, "acme"), (other, "globex")] * 10
                )
            )
            each.org.authority.expire_sessions()

        ours, theirs = ({token for token in one.tokens if token} for one in (bench.org, other_org))
    assert ours
    assert theirs
    assert ours.isdisjoint(theirs)


async def test_two_tenants_with_one_credential_have_a_session_each(bench: Bench) -> None:
    for tenant in ("acme", "globex", "acme"):
        await bench.run("get_limits", tenant=tenant)

    assert 2 == len({token for token in bench.org.tokens if token})


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[tuple[SalesforceSandbox, Path]]:
    authority = make_authority(tmp_path, "127.0.0.1")
    async with SalesforceSandbox(tls=authority.server) as sandbox:
        sandbox.seed()
        yield sandbox, authority.ca_file


async def test_an_org_over_tls_is_trusted_through_the_ca_file(
    secure: tuple[SalesforceSandbox, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    org, ca_file = secure
    (tmp_path / "other.pem").write_text("")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    pool = HttpPool(HttpPolicy(ca_file=ca_file))
    other_pool = HttpPool(HttpPolicy())
    try:
        answer = await Bench(org, pool).run("get_contact_details", {"email": "ada@lovelace.example"})
        with pytest.raises(Unavailable, match="not trusted"):
            await Bench(org, other_pool).run("get_limits")
    finally:
        await pool.close()
        await other_pool.close()

    assert answer["found"] is True


@pytest.mark.parametrize(
    "instance_url", ["", "ftp://x", "http://org.example.com", "https://a b", "https://[::"]
)
async def test_an_instance_url_that_cannot_be_called_is_refused(bench: Bench, instance_url: str) -> None:
    bench.org.authority.instance_url = instance_url

    with pytest.raises((CredentialInvalid, Unavailable)):
        await bench.run("get_limits")


async def test_data_calls_go_to_the_instance_of_the_token(bench: Bench) -> None:
    async with SalesforceSandbox() as instance:
        instance.seed()
        bench.org.authority.instance_url = instance.url
        instance.authority._sessions = bench.org.authority._sessions

        await bench.run("get_limits")

        assert 1 == instance.journal.calls["limits"]
    assert 0 == bench.org.journal.calls["limits"]


async def test_a_redirect_is_not_followed_with_the_token(bench: Bench) -> None:
    bench.org.faults.add(Fault("limits", status=302, headers={"Location": "https://evil.example/"}))

    with pytest.raises(Rejected, match="redirects"):
        await bench.run("get_limits")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"auth": "magic", "client_id": "x"}, "auth"),
        ({"auth": "jwt", "client_id": "x"}, ""),
        ({"auth": "jwt", "client_id": "x", "username": "u", "private_key": "not a key"}, ""),
        ({"auth": "password", "client_id": "x", "client_secret": "y", "username": "u"}, ""),
        ({"auth": "client_credentials", "client_id": "x", "client_secret": "y"}, ""),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "login_url": "ftp://x"},
            "login_url",
        ),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "login_url": "https://x/y"},
            "login_url",
        ),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "api_version": "../1"},
            "api_version",
        ),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "lead_key_field": "a b"},
            "lead_key_field",
        ),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "key_fields": {"A;": "b"}},
            "key_fields",
        ),
        (
            {"auth": "refresh_token", "client_id": "x", "refresh_token": "y", "led_key_field": "a"},
            "led_key_field",
        ),
    ],
)
def test_a_malformed_credential_is_refused_by_its_field(document: dict[str, Any], field: str) -> None:
    with pytest.raises(CredentialInvalid) as caught:
        salesforce.read_credential(document)

    assert field in {detail.field for detail in caught.value.details}


def _elliptic_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


@pytest.mark.parametrize(
    "pem", ["-----BEGIN PRIVATE KEY-----\nQ2FuYXJ5\n-----END PRIVATE KEY-----", _elliptic_pem()]
)
async def test_a_key_that_is_not_rsa_is_refused_without_a_request(bench: Bench, pem: str) -> None:

    with pytest.raises(CredentialInvalid, match="RSA key") as caught:
        await bench.run("get_limits", document=bench.org.authority.document("jwt") | {"private_key": pem})

    assert "Q2FuYXJ5" not in caught.value.message
    assert ["private_key"] == [detail.field for detail in caught.value.details]
    assert 0 == bench.org.journal.calls["token"]


async def test_a_key_with_its_line_breaks_spelt_out_is_read(bench: Bench) -> None:
    document = bench.org.authority.document("jwt")
    document["private_key"] = document["private_key"].replace("\n", "\\n")

    await bench.run("get_limits", document=document)


def test_secrets_do_not_show() -> None:
    document = {
        "auth": "password",
        "client_id": "id",
        "client_secret": "Canary-1",
        "username": "u",
        "password": "Canary-2",
        "security_token": "Canary-3",
    }

    assert "Canary" not in repr(salesforce.read_credential(document))
