"""Credentials from a real OpenBao: logins, policies, leases, outages."""

import asyncio
import base64
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import requests
from loguru import logger
from pydantic import SecretStr

from connectors.sdk.errors import CredentialDenied, CredentialNotFound
from worker.credentials.cache import CachePolicy
from worker.credentials.source import FetchOutcome, SecretStore, VaultUnavailable
from worker.credentials.vault_config import VaultAuthError, VaultConfig
from worker.credentials.vault_operator import VaultOperator
from worker.credentials.vault_policy import VaultPolicy
from worker.credentials.vault_session import VaultSession
from worker.credentials.vault_source import VaultCredentials
from worker.dev.openbao import PrivateOpenBao
from worker.settings import SettingError

pytestmark = pytest.mark.integration

NO_CACHE = CachePolicy(ttl_s=0, stale_s=0, refusal_s=0)
Connect = Callable[..., Awaitable[VaultCredentials]]


class Admin:
    """The vault's administrator, by plain HTTP; each test has a mount, a policy and a role of its own."""

    def __init__(self, vault: PrivateOpenBao) -> None:
        self.vault = vault
        self.mount = self.role = f"test-{uuid4().hex[:8]}"

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        response = requests.request(
            method,
            f"{self.vault.url}/v1/{path}",
            headers={"X-Vault-Token": self.vault.root_token, **(headers or {})},
            json=body,
            timeout=10,
        )
        if not response.ok:
            raise requests.HTTPError(f"{response.status_code} {response.text[:300]}")
        return response.json() if response.content else {}

    def mount_kv(self, mount: str | None = None, *, headers: dict[str, str] | None = None) -> None:
        """Mount KV v2, and wait: for a moment it answers 400, "Upgrading … to versioned data"."""
        mount = mount or self.mount
        self.ask("POST", f"sys/mounts/{mount}", {"type": "kv", "options": {"version": "2"}}, headers=headers)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask("GET", f"{mount}/config", headers=headers)
                return
            except requests.HTTPError:
                assert time.monotonic() < deadline, f"{mount} takes no secrets"
                time.sleep(0.02)

    def put(self, path: str, **fields: Any) -> None:
        self.ask("POST", f"{self.mount}/data/connectors/{path}", {"data": fields})

    def grant_read(self, below: str) -> None:
        """Let the worker read what lies below this, and nothing else."""
        path = f"{self.mount}/data/connectors/{below}"
        policy = f'path "{path}" {{ capabilities = ["read"] }}'
        self.ask("POST", f"sys/policies/acl/{self.role}", {"policy": policy})

    def add_role(self, **options: Any) -> str:
        """Make an AppRole, and give its role id."""
        if "approle/" not in self.ask("GET", "sys/auth")["data"]:
            self.ask("POST", "sys/auth/approle", {"type": "approle"})
        self.ask("POST", f"auth/approle/role/{self.role}", {"token_policies": self.role, **options})
        return str(self.ask("GET", f"auth/approle/role/{self.role}/role-id")["data"]["role_id"])

    def add_secret_id(self) -> str:
        return str(self.ask("POST", f"auth/approle/role/{self.role}/secret-id")["data"]["secret_id"])

    def wrap_secret_id(self) -> str:
        headers = {"X-Vault-Wrap-TTL": "60s"}
        wrapped = self.ask("POST", f"auth/approle/role/{self.role}/secret-id", headers=headers)
        return str(wrapped["wrap_info"]["token"])

    def is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.vault.url}/v1/sys/health", timeout=1).ok
        except requests.RequestException:
            return False

    def approle_tokens(self) -> list[str]:
        """List the accessors of the tokens that live and came from the role."""
        found = []
        for accessor in self.ask("LIST", "auth/token/accessors")["data"]["keys"]:
            try:
                about = self.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
            except requests.HTTPError:
                continue  # over, since it was listed
            if (about["meta"] or {}).get("role_name") == self.role:
                found.append(accessor)
        return found


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateOpenBao]:
    """One vault for all tests here: it takes two seconds to start."""
    vault = PrivateOpenBao(tmp_path_factory.mktemp("openbao"))
    asyncio.run(vault.start())
    yield vault
    asyncio.run(vault.stop())


@pytest.fixture
async def admin(vault: PrivateOpenBao) -> AsyncIterator[Admin]:
    admin = Admin(vault)
    admin.mount_kv()
    admin.grant_read("*")
    admin.put("acme/http/default", token="acme-token-1")
    yield admin
    if not admin.is_healthy():
        await vault.restart()


@pytest.fixture
async def connect(admin: Admin) -> AsyncIterator[Connect]:
    """Start sources, by AppRole unless told otherwise; close them after the test."""
    sources: list[VaultCredentials] = []

    async def start(
        *,
        policy: CachePolicy = NO_CACHE,
        role: dict[str, Any] | None = None,
        on_fetch: Callable[[FetchOutcome], None] = lambda _: None,
        **changes: Any,
    ) -> VaultCredentials:
        fields: dict[str, Any] = {
            "url": admin.vault.url,
            "mount": admin.mount,
            "auth": "approle",
            "timeout_s": 2.0,
        } | changes
        if fields["auth"] == "approle":
            fields["role_id"] = admin.add_role(**(role or {}))
            if "secret_id" not in fields and "secret_id_file" not in fields:
                fields["secret_id"] = SecretStr(admin.add_secret_id())
        source = VaultCredentials(
            VaultConfig(**fields),
            policy=policy,
            vault_policy=VaultPolicy(probe_interval_s=0.2),
            on_fetch=on_fetch,
        )
        sources.append(source)
        await source.start()
        return source

    yield start
    for source in sources:
        await source.close()


async def token_of(source: SecretStore, tenant: str = "acme", credential: str = "default") -> object:
    return (await source.fetch(tenant, "http", credential))["token"]


async def until(holds: Callable[[], bool], timeout_s: float = 10.0) -> float:
    """Wait for a fact; give the seconds it took."""
    started_at = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
    return time.monotonic() - started_at


async def test_an_approle_with_the_least_policy_reads_only_its_secrets(
    admin: Admin, connect: Connect
) -> None:
    admin.grant_read("acme/*")
    admin.put("globex/http/default", token="globex-token-1")
    source = await connect()

    assert await token_of(source) == "acme-token-1"
    with pytest.raises(CredentialDenied, match=f"{admin.mount}/data/connectors/globex/http/default"):
        await token_of(source, "globex")
    assert source.available


async def test_a_root_token_in_the_environment_is_not_used(
    admin: Admin, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", admin.vault.root_token)
    admin.grant_read("nothing")
    source = await connect()

    with pytest.raises(CredentialDenied):
        await token_of(source)


@pytest.mark.parametrize("place", range(3), ids=["tenant", "connector", "credential"])
async def test_no_name_reads_another_path_even_under_a_root_token(
    admin: Admin, connect: Connect, place: int
) -> None:
    source = await connect(auth="token", token=SecretStr(admin.vault.root_token))
    admin.ask("POST", f"{admin.mount}/data/elsewhere", {"data": {"token": "not ours"}})

    for hostile in (
        "..",
        "../b",
        "../../elsewhere",
        "../../../../sys/health",
        "/acme",
        "acme/http",
        "acme//",
        "acme/./",
        "acme/",
        "%2e%2e",
        "ACME",
        "\u0430cme",
        "acme\n",
        "acme\x00",
        "a" * 10_240,
    ):
        names = ["acme", "http", "default"]
        names[place] = hostile
        with pytest.raises(CredentialNotFound, match="there can be no"):
            await source.fetch(*names)


async def test_missing_deleted_and_destroyed_secrets_are_not_found(admin: Admin, connect: Connect) -> None:
    admin.put("acme/http/deleted", token="x")
    admin.put("acme/http/destroyed", token="x")
    admin.ask("DELETE", f"{admin.mount}/data/connectors/acme/http/deleted")
    admin.ask("PUT", f"{admin.mount}/destroy/connectors/acme/http/destroyed", {"versions": [1]})
    source = await connect()

    for name, message in (("missing", "store it"), ("deleted", "is deleted"), ("destroyed", "is destroyed")):
        with pytest.raises(CredentialNotFound, match=message):
            await token_of(source, credential=name)


async def test_a_mount_that_is_not_there_is_named(admin: Admin, connect: Connect) -> None:
    source = await connect(
        auth="token", token=SecretStr(admin.vault.root_token), mount="nowhere", timeout_s=2.0
    )

    with pytest.raises(CredentialNotFound, match="CONNECTORS_VAULT_MOUNT=nowhere"):
        await token_of(source)


async def test_a_rotated_secret_is_read_when_the_provider_refused_the_old_one(
    admin: Admin, connect: Connect
) -> None:
    source = await connect(policy=CachePolicy())
    refused = await source.fetch("acme", "http", "default")
    admin.put("acme/http/default", token="acme-token-2")
    assert await token_of(source) == "acme-token-1"

    await source.invalidate("acme", "http", "default", refused)

    assert await token_of(source) == "acme-token-2"


async def test_two_hundred_cold_fetches_are_one_read(admin: Admin, connect: Connect) -> None:
    outcomes: list[FetchOutcome] = []
    # The token is good for one request, and no second login is: a second read would fail.
    source = await connect(
        policy=CachePolicy(), role={"token_num_uses": 1, "secret_id_num_uses": 1}, on_fetch=outcomes.append
    )

    tokens = await asyncio.gather(*(token_of(source) for _ in range(200)))

    assert tokens == ["acme-token-1"] * 200
    assert outcomes.count(FetchOutcome.FETCHED) == 1


async def test_a_removed_policy_denies_at_once_and_affects_no_other_tenant(
    admin: Admin, connect: Connect
) -> None:
    admin.put("globex/http/default", token="globex-token-1")
    source = await connect()
    await token_of(source)

    admin.grant_read("globex/*")
    with pytest.raises(CredentialDenied):
        await token_of(source)

    assert await token_of(source, "globex") == "globex-token-1"
    assert source.available
    assert len(admin.approle_tokens()) == 1


async def test_a_revoked_token_gets_one_successor(admin: Admin, connect: Connect) -> None:
    for number in range(20):
        admin.put(f"acme/http/c{number}", token=f"token-{number}")
    source = await connect()
    for accessor in admin.approle_tokens():
        admin.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})

    tokens = await asyncio.gather(*(token_of(source, credential=f"c{number}") for number in range(20)))

    assert tokens == [f"token-{number}" for number in range(20)]
    assert len(admin.approle_tokens()) == 1


async def test_leases_of_two_seconds_and_tokens_of_four_interrupt_nothing(
    admin: Admin, connect: Connect
) -> None:
    source = await connect(role={"token_ttl": "2s", "token_max_ttl": "4s"})
    reads = 0

    ends_at = time.monotonic() + 6
    while time.monotonic() < ends_at:
        assert await token_of(source) == "acme-token-1"
        assert source.available
        reads += 1
        await asyncio.sleep(0.05)

    assert reads > 50


async def test_a_used_up_secret_id_leaves_the_token_in_use_until_its_end(
    admin: Admin, connect: Connect, tmp_path: Path
) -> None:
    admin.add_role(secret_id_num_uses=1, token_ttl="2s", token_max_ttl="3s")
    file = tmp_path / "secret-id"
    file.write_text(admin.add_secret_id())
    source = await connect(
        role={"secret_id_num_uses": 1, "token_ttl": "2s", "token_max_ttl": "3s"}, secret_id_file=file
    )
    started_at = time.monotonic()

    while source.available:
        try:
            assert await token_of(source) == "acme-token-1"
        except VaultUnavailable as away:
            assert "login refused" in away.reason
        await asyncio.sleep(0.05)

    assert time.monotonic() - started_at > 2
    assert "login refused" in str(source.unavailable_reason)
    file.write_text(admin.add_secret_id())
    assert await source.wait_available(15)
    assert await token_of(source) == "acme-token-1"


async def test_a_wrapped_secret_id_is_opened_once(admin: Admin, connect: Connect, tmp_path: Path) -> None:
    admin.add_role()
    file = tmp_path / "secret-id"
    file.write_text(admin.wrap_secret_id())
    source = await connect(secret_id_file=file, role={"token_ttl": "1s", "token_max_ttl": "2s"})

    first = admin.approle_tokens()
    await until(lambda: bool(set(admin.approle_tokens()) - set(first)))

    assert await token_of(source) == "acme-token-1"


async def test_a_wrapped_secret_id_that_another_opened_is_an_alarm(admin: Admin, connect: Connect) -> None:
    admin.add_role()
    wrapping = admin.wrap_secret_id()
    admin.ask("POST", "sys/wrapping/unwrap", headers={"X-Vault-Token": wrapping})

    with pytest.raises(VaultAuthError, match="intercepted") as alarm:
        await connect(secret_id=SecretStr(wrapping))

    assert alarm.value.exit_code == 77
    assert wrapping not in str(alarm.value)


async def test_a_wrapped_thing_that_no_approle_made_is_left_unopened(admin: Admin, connect: Connect) -> None:
    forged = admin.ask(
        "POST", "sys/wrapping/wrap", {"secret_id": "forged"}, headers={"X-Vault-Wrap-TTL": "60s"}
    )["wrap_info"]["token"]

    with pytest.raises(VaultAuthError, match="sys/wrapping/wrap"):
        await connect(secret_id=SecretStr(forged))

    assert admin.ask("POST", "sys/wrapping/unwrap", headers={"X-Vault-Token": forged})["data"] == {
        "secret_id": "forged"
    }


async def test_a_wrong_secret_id_stops_the_start(connect: Connect) -> None:
    with pytest.raises(SettingError, match="AppRole"):
        await connect(secret_id=SecretStr(str(uuid4())))


async def test_a_sealed_vault_is_reported_while_cached_secrets_serve(admin: Admin, connect: Connect) -> None:
    admin.put("acme/http/cold", token="cold-token")
    source = await connect(policy=CachePolicy())
    await token_of(source)

    await admin.vault.seal()
    noticed_s = await until(lambda: not source.available)

    assert noticed_s < 10
    assert source.unavailable_reason == "the vault is sealed"
    assert await token_of(source) == "acme-token-1"
    with pytest.raises(VaultUnavailable, match="sealed"):
        await token_of(source, credential="cold")

    waiting = asyncio.create_task(source.wait_available(20))
    await admin.vault.unseal()
    assert await waiting
    assert await token_of(source, credential="cold") == "cold-token"


async def test_a_killed_vault_is_reported_and_reconnected(admin: Admin, connect: Connect) -> None:
    source = await connect(auth="token", token=SecretStr(admin.vault.root_token))
    await token_of(source)

    await admin.vault.kill()
    with pytest.raises(VaultUnavailable, match="cannot be reached"):
        await token_of(source)
    assert not source.available

    await admin.vault.restart()
    assert await source.wait_available(20)
    assert await token_of(source) == "acme-token-1"


async def test_a_hung_vault_costs_no_more_than_the_timeout(admin: Admin, connect: Connect) -> None:
    source = await connect(policy=CachePolicy(), timeout_s=1.0)
    await token_of(source)
    admin.vault.pause()
    started_at = time.monotonic()

    outcomes = await asyncio.gather(
        *(token_of(source, credential=f"c{number}") for number in range(100)), return_exceptions=True
    )
    took_s = time.monotonic() - started_at
    cached = await token_of(source)
    admin.vault.resume()

    assert {type(outcome) for outcome in outcomes} == {VaultUnavailable}
    assert took_s < 2
    assert cached == "acme-token-1"
    assert await source.wait_available(15)
    with pytest.raises(CredentialNotFound):
        await token_of(source, credential="c1")


async def test_a_rate_limit_is_an_outage_that_passes(admin: Admin, connect: Connect) -> None:
    admin.ask(
        "POST", "sys/quotas/rate-limit/tight", {"rate": 1, "interval": "30s", "path": f"{admin.mount}/"}
    )
    source = await connect()
    await token_of(source)

    with pytest.raises(VaultUnavailable, match="rate limit"):
        await token_of(source)

    admin.ask("DELETE", "sys/quotas/rate-limit/tight")
    assert await source.wait_available(15)
    assert await token_of(source) == "acme-token-1"


async def test_a_namespace_is_a_vault_of_its_own(admin: Admin, connect: Connect) -> None:
    inside = {"X-Vault-Namespace": "team"}
    admin.ask("POST", "sys/namespaces/team")
    admin.mount_kv("secret", headers=inside)
    body = {"data": {"token": "team-token"}}
    admin.ask("POST", "secret/data/connectors/acme/http/default", body, headers=inside)

    admin.ask("POST", "sys/auth/approle", {"type": "approle"}, headers=inside)
    policy = 'path "secret/data/connectors/*" { capabilities = ["read"] }'
    admin.ask("POST", "sys/policies/acl/worker", {"policy": policy}, headers=inside)
    admin.ask("POST", "auth/approle/role/worker", {"token_policies": "worker"}, headers=inside)
    role = admin.ask("GET", "auth/approle/role/worker/role-id", headers=inside)["data"]["role_id"]
    wrapped = admin.ask(
        "POST", "auth/approle/role/worker/secret-id", headers={**inside, "X-Vault-Wrap-TTL": "60s"}
    )
    source = VaultCredentials(
        VaultConfig(
            url=admin.vault.url,
            auth="approle",
            role_id=role,
            secret_id=SecretStr(wrapped["wrap_info"]["token"]),
            mount="secret",
            namespace="team",
        ),
        policy=NO_CACHE,
        vault_policy=VaultPolicy(probe_interval_s=0.05),
    )
    await source.start()
    try:
        assert await token_of(source) == "team-token"
        session = source._session
        assert isinstance(session, VaultSession)
        proved_at = session._proved_at
        await session._probe()
        await asyncio.sleep(0.3)  # some looks at its health

        assert (True, None) == (source.available, source.unavailable_reason)
        assert session._proved_at > proved_at
    finally:
        await source.close()


async def test_a_kv_v1_mount_is_named_and_nothing_is_written(admin: Admin, connect: Connect) -> None:
    admin.ask("POST", f"sys/mounts/{admin.mount}-v1", {"type": "kv", "options": {"version": "1"}})
    token = SecretStr(admin.vault.root_token)
    config = VaultConfig(url=admin.vault.url, mount=f"{admin.mount}-v1", auth="token", token=token)

    def work() -> None:
        for verb in ("put", "names", "delete"):
            names = ("acme", "http") if verb == "names" else ("acme", "http", "default")
            with (
                VaultOperator(config) as operator,
                pytest.raises(SettingError, match="KV engine of version 1"),
            ):
                getattr(operator, verb)(*names, *([{"token": "x"}] if verb == "put" else []))

    await asyncio.to_thread(work)
    with pytest.raises(
        SettingError, match=f"CONNECTORS_VAULT_MOUNT={admin.mount}-v1 is a KV engine of version 1"
    ):
        await connect(auth="token", token=token, mount=f"{admin.mount}-v1")
    with pytest.raises(requests.HTTPError, match="404"):
        admin.ask("LIST", f"{admin.mount}-v1/")


async def test_the_least_policy_tells_a_kv_v1_mount(admin: Admin, connect: Connect) -> None:
    admin.ask("POST", f"sys/mounts/{admin.mount}-v1", {"type": "kv", "options": {"version": "1"}})
    path = f"{admin.mount}-v1/data/connectors/*"
    admin.ask(
        "POST", f"sys/policies/acl/{admin.role}", {"policy": f'path "{path}" {{ capabilities = ["read"] }}'}
    )

    with pytest.raises(SettingError, match="KV engine of version 1"):
        await connect(mount=f"{admin.mount}-v1")


async def test_a_refused_secret_id_locks_no_role_that_others_share(
    admin: Admin, connect: Connect, tmp_path: Path
) -> None:
    admin.add_role(token_ttl="1s", token_max_ttl="1s")
    file = tmp_path / "secret-id"
    file.write_text(admin.add_secret_id())
    tried = await connect(secret_id_file=file, role={"token_ttl": "1s", "token_max_ttl": "1s"})
    file.write_text(str(uuid4()))
    await until(lambda: "login refused" in str(tried.unavailable_reason))
    for _ in range(20):
        with pytest.raises(VaultUnavailable, match="locked the role"):
            await token_of(tried)

    other = await connect()

    assert await token_of(other) == "acme-token-1"


async def test_an_operator_stores_lists_and_deletes(admin: Admin) -> None:
    config = VaultConfig(
        url=admin.vault.url, mount=admin.mount, auth="token", token=SecretStr(admin.vault.root_token)
    )

    def work() -> None:
        with VaultOperator(config) as operator:
            assert operator.put("acme", "http", "second", {"token": "x", "list": [1, {"a": None}]}) == 1
            assert operator.put("acme", "http", "second", {"token": "y"}) == 2
            assert operator.put("acme", "salesforce", "default", {"token": "z"}) == 1
            assert operator.names("acme", "http") == ["default", "second"]
            assert operator.names("acme", "google_calendar") == []
            assert operator.connectors("acme") == ["http", "salesforce"]
            assert operator.tenants() == ["acme"]
            operator.delete("acme", "http", "second")
            assert operator.names("acme", "http") == ["default"]
            with pytest.raises(CredentialNotFound):
                operator.delete("acme", "http", "second")
            with pytest.raises(CredentialNotFound, match="there can be no"):
                operator.put("acme", "http", "../x", {})

    await asyncio.to_thread(work)


async def test_an_operator_without_a_permission_gets_its_name(admin: Admin) -> None:
    config = VaultConfig(
        url=admin.vault.url,
        mount=admin.mount,
        auth="approle",
        role_id=admin.add_role(),
        secret_id=SecretStr(admin.add_secret_id()),
    )

    def work() -> None:
        with VaultOperator(config) as operator:
            with pytest.raises(
                CredentialDenied, match=f"`create` and `update` on {admin.mount}/data/connectors/acme"
            ):
                operator.put("acme", "http", "default", {})
            with pytest.raises(
                CredentialDenied, match=f"`list` on {admin.mount}/metadata/connectors/acme/http"
            ):
                operator.names("acme", "http")
            with pytest.raises(
                CredentialDenied, match=f"`delete` on {admin.mount}/metadata/connectors/acme/http"
            ):
                operator.delete("acme", "http", "default")

    await asyncio.to_thread(work)


@asynccontextmanager
async def tls_proxy(admin: Admin, directory: Path, host: str) -> AsyncIterator[tuple[str, Path]]:
    """Put TLS before the vault, with a certificate of its own authority; give the URL and the CA's file."""
    admin.ask("POST", f"sys/mounts/{admin.mount}-pki", {"type": "pki"})
    authority = admin.ask(
        "POST", f"{admin.mount}-pki/root/generate/internal", {"common_name": "test", "ttl": "1h"}
    )["data"]
    admin.ask("POST", f"{admin.mount}-pki/roles/any", {"allow_any_name": True, "enforce_hostnames": False})
    names = {"common_name": host} | ({"ip_sans": host} if host == "127.0.0.1" else {})
    issued = admin.ask("POST", f"{admin.mount}-pki/issue/any", {"ttl": "10m", **names})["data"]
    ca_file, chain, key = directory / "ca.pem", directory / "chain.pem", directory / "key.pem"
    ca_file.write_text(authority["certificate"])
    chain.write_text(issued["certificate"])
    key.write_text(issued["private_key"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    port = urlsplit(admin.vault.url).port

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_vault = await asyncio.open_connection("127.0.0.1", port)
        pumps = [
            asyncio.create_task(pump(reader, to_vault[1])),
            asyncio.create_task(pump(to_vault[0], writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        to_vault[1].close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", ca_file
    finally:
        server.close()


async def test_tls_is_verified_with_the_authority_of_the_setting(
    admin: Admin, connect: Connect, tmp_path: Path
) -> None:
    async with tls_proxy(admin, tmp_path, "127.0.0.1") as (url, ca_file):
        trusting = await connect(url=url, ca_file=ca_file)
        untrusting = await connect(url=url)

        assert await token_of(trusting) == "acme-token-1"
        assert "TLS certificate is not trusted" in str(untrusting.unavailable_reason)
        await trusting.close()
        await untrusting.close()


async def test_a_certificate_for_another_host_is_refused(
    admin: Admin, connect: Connect, tmp_path: Path
) -> None:
    async with tls_proxy(admin, tmp_path, "another.example") as (url, ca_file):
        source = await connect(url=url, ca_file=ca_file)

        assert "TLS certificate is not trusted" in str(source.unavailable_reason)
        await source.close()


@pytest.fixture
def token_review() -> Iterator[str]:
    """The one call of a Kubernetes API server that a vault needs: whose token is this?"""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known = review["spec"]["token"].split(".")[2] == "c2lnbmVk"
            user = {"username": "system:serviceaccount:prod:worker", "uid": "7", "groups": []}
            yes = {"authenticated": True, "user": user, "audiences": review["spec"]["audiences"]}
            review["status"] = yes if known else {"error": "unknown"}
            body = json.dumps(review).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def pod_token(signature: str) -> str:
    claims = {
        "iss": "kubernetes/serviceaccount",
        "nbf": int(time.time()) - 60,
        "exp": int(time.time()) + 600,
        "aud": ["vault"],
        "sub": "system:serviceaccount:prod:worker",
        "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "worker", "uid": "7"}},
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, signature])


async def test_a_pod_logs_in_with_its_service_account(
    admin: Admin, connect: Connect, tmp_path: Path, token_review: str
) -> None:
    admin.ask("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
    admin.ask("POST", f"sys/mounts/{admin.mount}-pki", {"type": "pki"})
    authority = admin.ask("POST", f"{admin.mount}-pki/root/generate/internal", {"common_name": "cluster"})[
        "data"
    ]
    admin.ask(
        "POST",
        "auth/kubernetes/config",
        {
            "kubernetes_host": token_review,
            "token_reviewer_jwt": pod_token("c2lnbmVk"),
            "kubernetes_ca_cert": authority["certificate"],  # asked for, though our API server has no TLS
            "disable_local_ca_jwt": True,
        },
    )
    bound = {"bound_service_account_names": "worker", "bound_service_account_namespaces": "prod"}
    admin.ask("POST", "auth/kubernetes/role/worker", {**bound, "token_policies": admin.role})
    file = tmp_path / "token"

    file.write_text(pod_token("Zm9yZ2Vk"))
    with pytest.raises(SettingError, match="Kubernetes"):
        await connect(auth="kubernetes", role_id="worker", jwt_file=file)
    file.write_text(pod_token("c2lnbmVk"))
    source = await connect(auth="kubernetes", role_id="worker", jwt_file=file)

    assert await token_of(source) == "acme-token-1"


async def test_a_day_of_trouble_leaves_no_secret_in_any_log(admin: Admin, connect: Connect) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="TRACE", backtrace=True)
    canary, secret_id = f"canary-{uuid4()}", ""
    admin.put("acme/http/default", token=canary)
    role_id = admin.add_role()
    secret_id = admin.add_secret_id()
    source = await connect(secret_id=SecretStr(secret_id), timeout_s=1.0)

    async def fetch() -> None:
        try:
            await token_of(source)
        except (VaultUnavailable, CredentialDenied, CredentialNotFound) as failure:
            logger.exception("fetch failed")
            lines.append(f"{failure!r} {vars(failure)}")

    await fetch()
    admin.grant_read("nothing")
    await fetch()
    admin.grant_read("*")
    for accessor in admin.approle_tokens():
        admin.ask("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    await fetch()
    admin.vault.pause()
    await fetch()
    admin.vault.resume()
    assert await source.wait_available(15)
    await admin.vault.seal()
    await fetch()
    await admin.vault.kill()
    await until(lambda: "reached" in str(source.unavailable_reason))
    await fetch()
    logger.remove(sink)

    said = "".join(lines)
    assert said.count("fetch failed") >= 4
    assert not any(secret in said for secret in (canary, secret_id, role_id, admin.vault.root_token))
    assert "s." not in {word[:2] for word in said.replace("'", " ").split() if len(word) > 20}
