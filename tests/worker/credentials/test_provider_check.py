"""The check of a credential: a worker's own way, and no token lost by it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from connectors.examples.help_desk import HelpDesk
from connectors.sdk import Connector, Context, CredentialInvalid
from connectors.sdk.auth import OAuth2
from connectors.sdk.errors import CredentialDenied
from worker.credential_store import stored_credentials
from worker.credentials.provider_check import ProviderCheck
from worker.dev.openbao import WORKER_POLICY, PrivateOpenBao
from worker.settings import Settings

pytestmark = pytest.mark.integration

PATH = "connectors/acme/desk/default"
WRITING_POLICY = WORKER_POLICY + 'path "secret/data/connectors/*" { capabilities = ["read", "update"] }'


@pytest.fixture
async def desk() -> AsyncIterator[HelpDesk]:
    async with HelpDesk() as desk:
        yield desk


def connector() -> Connector[OAuth2]:
    made = Connector("desk", credential=OAuth2)

    @made.check
    async def list_tickets(ctx: Context[OAuth2]) -> None:
        await ctx.credential.api(ctx).get("/tickets", params={"after": ""})

    return made


async def checking(vault: PrivateOpenBao, policy: str) -> ProviderCheck:
    role = await vault.enable_approle(policy=policy)
    settings = Settings(
        vault_url=vault.url,
        vault_role_id=role.role_id,
        egress_allow=("localhost",),
        vault_secret_id=SecretStr(role.secret_id.get_secret_value()),
    )
    return ProviderCheck(settings, connector(), stored_credentials(settings))


async def stored(vault: PrivateOpenBao) -> dict[str, Any]:
    return dict((await vault.ask("GET", f"secret/data/{PATH}"))["data"]["data"])


async def test_a_token_that_the_provider_exchanges_is_stored(openbao: PrivateOpenBao, desk: HelpDesk) -> None:
    await openbao.put_secret(PATH, desk.secret())

    for _ in range(3):
        await (await checking(openbao, WRITING_POLICY)).run("acme", "default")

    assert "refresh-token-3" == desk.refresh_token == (await stored(openbao))["refresh_token"]


async def test_a_token_that_could_not_be_stored_is_not_used_up(
    openbao: PrivateOpenBao, desk: HelpDesk
) -> None:
    await openbao.put_secret(PATH, desk.secret())

    with pytest.raises(CredentialDenied, match="may not store the new one"):
        await (await checking(openbao, WORKER_POLICY)).run("acme", "default")

    assert [] == desk.journal


async def test_a_credential_without_a_refresh_token_needs_no_right_to_write(
    openbao: PrivateOpenBao, desk: HelpDesk
) -> None:
    secret = desk.secret() | {"grant": "client_credentials"}
    del secret["refresh_token"]
    await openbao.put_secret(PATH, secret)

    with pytest.raises(CredentialInvalid):
        await (await checking(openbao, WORKER_POLICY)).run("acme", "default")

    assert ["/token"] == [asked.path for asked in desk.journal]


async def test_a_way_out_that_a_worker_has_not_is_not_taken(
    openbao: PrivateOpenBao, desk: HelpDesk, tmp_path: Path
) -> None:
    await openbao.put_secret(PATH, desk.secret("http://desk.example"))

    with pytest.raises(CredentialInvalid, match="CONNECTORS_EGRESS_ALLOW"):
        await (await checking(openbao, WRITING_POLICY)).run("acme", "default")
