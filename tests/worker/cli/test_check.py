"""`check`: the connector contract from the command line."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from worker.cli.app import app


def test_check_by_name_holds_what_is_declared_to_the_contract(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["check", "effects", "--json"])

    assert 0 == done.exit_code, done.output
    assert 3 == len(json.loads(done.stdout))
    assert "only checks without a provider" in done.stderr


def test_check_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "test_bad.py").write_text(
        "from connectors.sdk import Connector\n"
        "from connectors.sdk.testing import ConnectorContract\n"
        "bad = Connector('bad')\n"
        "@bad.action\n"
        "async def work():\n"
        "    return 1\n"
        "class TestBad(ConnectorContract):\n"
        "    connector = bad\n"
    )

    done = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert 1 == done.exit_code
    assert "✗ Each action has a docstring" in done.stdout
    assert "<action bad.work> has no docstring" in done.stdout
    assert "✓ Each parameter has a type" in done.stdout


def test_check_of_a_folder_without_contracts_is_refused(tmp_path: Any) -> None:
    done = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert (2, True) == (done.exit_code, "subclass of ConnectorContract" in done.stderr)
