"""The development stack's sandboxes: on where no URL is given, with their credentials in the vault."""

from pathlib import Path

import pytest

from worker.dev.openbao import PrivateOpenBao
from worker.dev.stack import Stack
from worker.settings import load_settings

pytestmark = pytest.mark.integration


async def test_a_sandbox_is_started_unless_a_setting_names_another_url(
    openbao: PrivateOpenBao, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Stack(load_settings(data_dir=tmp_path), keep_data=True)
    given = Stack(
        load_settings(data_dir=tmp_path, google_calendar_api_url="http://127.0.0.1:1/"), keep_data=True
    )

    for stack in (ours, given):
        stack.vault = openbao
        await stack.start_sandboxes()
    document = await openbao.ask("GET", "secret/data/connectors/default/google_calendar/default")
    for stack in (ours, given):
        await stack.__aexit__(None, None, None)

    assert (["google_calendar", "salesforce"], ["salesforce"]) == tuple(
        [sandbox.connector for sandbox in stack.sandboxes] for stack in (ours, given)
    )
    assert "authorized_user" == document["data"]["data"]["type"]


async def test_without_a_private_vault_there_is_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stack = Stack(load_settings(data_dir=tmp_path), keep_data=True)

    await stack.start_sandboxes()

    assert () == stack.sandboxes
