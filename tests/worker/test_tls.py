"""TLS contexts: verified, and as new as their file."""

import asyncio
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

import worker.tls
from tests.support.http_servers import Authority, make_authority, serve
from worker.credentials.source import VaultUnavailable
from worker.credentials.vault_client import VaultClient
from worker.credentials.vault_config import VaultConfig
from worker.settings import Settings
from worker.tls import broker_tls, database_tls, verifying_context


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    worker.tls._known.clear()
    yield
    worker.tls._known.clear()


@pytest.fixture
def authorities(tmp_path: Path) -> tuple[Authority, Authority]:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    return make_authority(tmp_path / "old", "127.0.0.1"), make_authority(tmp_path / "new", "127.0.0.1")


def trusted(context: ssl.SSLContext) -> set[bytes]:
    return set(context.get_ca_certs(binary_form=True))


def test_a_file_that_is_replaced_is_read_again(
    authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    old, new = authorities
    file = tmp_path / "ca.pem"
    shutil.copy(old.ca_file, file)
    first = verifying_context(file)
    again = verifying_context(file)

    shutil.copy(new.ca_file, tmp_path / "ca.pem.new")
    (tmp_path / "ca.pem.new").replace(file)  # as Kubernetes and cert-manager do
    replaced = verifying_context(file)

    assert first is again
    assert trusted(replaced) != trusted(first)
    assert ssl.CERT_REQUIRED == replaced.verify_mode


def test_a_file_that_is_gone_or_half_written_changes_nothing(
    authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    shutil.copy(authorities[0].ca_file, file)
    first = verifying_context(file)

    file.write_text(authorities[1].ca_file.read_text()[:100])
    half = verifying_context(file)
    file.unlink()
    gone = verifying_context(file)
    shutil.copy(authorities[1].ca_file, file)

    assert first is half is gone
    assert trusted(verifying_context(file)) != trusted(first)


@pytest.mark.integration
async def test_the_vault_is_asked_under_the_authority_that_the_file_holds_now(
    authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    old, new = authorities
    file = tmp_path / "ca.pem"
    shutil.copy(old.ca_file, file)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"sealed": False})

    async with serve(health, tls=new.server) as served:
        url = f"https://127.0.0.1:{served.port}"
        client = VaultClient(VaultConfig(url=url, auth="token", token=SecretStr("x"), ca_file=file))
        with pytest.raises(VaultUnavailable, match="certificate is not trusted"):
            await asyncio.to_thread(client.check_health)
        shutil.copy(new.ca_file, file)

        await asyncio.to_thread(client.check_health)
        client.close()


def test_the_database_is_verified_unless_plaintext_is_accepted(
    authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def tls(url: str) -> ssl.SSLContext | bool | None:
        return database_tls(Settings(database_url=SecretStr(url), ca_file=authorities[0].ca_file))

    assert tls("sqlite:////srv/ledger.db") is None
    assert tls("postgresql://u@localhost/x") is None
    assert tls("postgresql://u@localhost/x?sslmode=disable") is False
    for url in ("postgresql://u@localhost/x?sslmode=require", "postgresql://u@db.example/x"):
        context = tls(url)
        assert isinstance(context, ssl.SSLContext)
        assert (True, ssl.CERT_REQUIRED) == (context.check_hostname, context.verify_mode)


def test_each_connection_to_the_broker_asks_for_its_context(
    authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "ca.pem"
    shutil.copy(authorities[0].ca_file, file)
    settings = Settings(rabbitmq_url=SecretStr("amqps://broker.example"), ca_file=file)
    first = broker_tls(settings)

    shutil.copy(authorities[1].ca_file, file)

    assert first is not broker_tls(settings)
    assert broker_tls(Settings()) is None
