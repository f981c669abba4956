"""A refresh token that a provider exchanged, written back to a real OpenBao."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from loguru import logger
from pydantic import SecretStr

from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.vault_client import VaultClient
from worker.credentials.vault_config import VaultConfig
from worker.credentials.vault_policy import VaultPolicy
from worker.credentials.vault_source import VaultCredentials
from worker.dev.openbao import WORKER_POLICY, PrivateOpenBao

pytestmark = pytest.mark.integration

PATH = "connectors/acme/crm/default"
ACCOUNT = ("acme", "crm", "default")
WRITING_POLICY = WORKER_POLICY + 'path "secret/data/connectors/*" { capabilities = ["read", "update"] }'

Connect = Callable[..., Awaitable[VaultCredentials]]


@pytest.fixture
async def connect(openbao: PrivateOpenBao) -> AsyncIterator[Connect]:
    sources: list[VaultCredentials] = []

    async def start(policy: str = WRITING_POLICY) -> VaultCredentials:
        await openbao.put_secret(PATH, {"base_url": "https://a.example", "refresh_token": "token-1"})
        role = await openbao.enable_approle(policy=policy)
        config = VaultConfig(
            url=openbao.url, auth="approle", role_id=role.role_id, secret_id=role.secret_id, timeout_s=2.0
        )
        secrets: list[str] = []
        source = VaultCredentials(
            config, vault_policy=VaultPolicy(probe_interval_s=0.1, keep_again_s=0.1), on_secret=secrets.append
        )
        sources.append(source)
        await source.start()
        await source.fetch(*ACCOUNT)
        return source

    yield start
    for source in sources:
        await source.close()


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    lines: list[Any] = []
    handler = logger.add(lambda message: lines.append(message.record), level="INFO", format="{message}")
    yield lines
    logger.remove(handler)


def rotation(newest: str, *older: str) -> Rotation:
    return Rotation(ACCOUNT, "refresh_token", tuple(map(SecretStr, older or ("token-1",))), SecretStr(newest))


async def stored(openbao: PrivateOpenBao) -> dict[str, Any]:
    return dict((await openbao.ask("GET", f"secret/data/{PATH}"))["data"]["data"])


async def test_it_takes_the_place_of_the_older_and_is_read_at_once(
    openbao: PrivateOpenBao, connect: Connect
) -> None:
    source = await connect()

    await source.keep(rotation("token-2"))

    assert {"base_url": "https://a.example", "refresh_token": "token-2"} == await stored(openbao)
    assert "token-2" == (await source.fetch(*ACCOUNT))["refresh_token"]


async def test_without_write_access_one_warning_names_the_grant(
    openbao: PrivateOpenBao, connect: Connect, logged: list[Any]
) -> None:
    source = await connect(WORKER_POLICY)

    await source.keep(rotation("token-2"))
    await source.keep(rotation("token-3", "token-1", "token-2"))

    warnings = [line for line in logged if line["message"] == "rotated token lives in memory alone"]
    assert 1 == len(warnings)
    assert f"grant `update` beside `read` on secret/data/{PATH}" in warnings[0]["extra"]["reason"]
    assert "token-1" == (await stored(openbao))["refresh_token"]
    assert source.available


async def test_a_secret_that_an_operator_put_meanwhile_is_left_alone(
    openbao: PrivateOpenBao, connect: Connect
) -> None:
    source = await connect()
    await openbao.put_secret(PATH, {"refresh_token": "authorized-anew"})

    await source.keep(rotation("token-2"))

    assert {"refresh_token": "authorized-anew"} == await stored(openbao)


async def test_a_change_between_look_and_write_is_looked_at_again(
    openbao: PrivateOpenBao, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await connect()
    look, loop, looks = VaultClient._read_version, asyncio.get_running_loop(), []

    def look_and_be_overtaken(self: VaultClient, *args: Any) -> Any:
        found = look(self, *args)
        looks.append(found)
        if len(looks) == 1:
            changed = openbao.put_secret(PATH, {"base_url": "https://b.example", "refresh_token": "token-1"})
            asyncio.run_coroutine_threadsafe(changed, loop).result(5)
        return found

    monkeypatch.setattr(VaultClient, "_read_version", look_and_be_overtaken)
    await source.keep(rotation("token-2"))

    assert {"base_url": "https://b.example", "refresh_token": "token-2"} == await stored(openbao)
    assert 2 == len(looks)


async def test_while_the_vault_is_sealed_it_is_stored_later_and_only_the_newest(
    openbao: PrivateOpenBao, connect: Connect
) -> None:
    source = await connect()
    await openbao.seal()

    await source.keep(rotation("token-2"))
    await source.keep(rotation("token-3", "token-1", "token-2"))
    await openbao.unseal()

    async with asyncio.timeout(10):
        while source.pending_writes:
            await asyncio.sleep(0.02)
    assert "token-3" == (await stored(openbao))["refresh_token"]


async def test_a_secret_that_is_gone_is_no_failure(
    openbao: PrivateOpenBao, connect: Connect, logged: list[Any]
) -> None:
    source = await connect()
    await openbao.ask("DELETE", f"secret/metadata/{PATH}")

    await source.keep(rotation("token-2"))

    assert "rotated token not stored" in [line["message"] for line in logged]
