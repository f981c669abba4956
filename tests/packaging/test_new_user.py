"""The way from `connectors new` to an answered call, as the top README says it, typed by a new user."""

import os
import re
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.sdk.testing import ConnectorContract
from tests.packaging.conftest import ROOT, run

pytestmark = pytest.mark.integration

#: Commands that run until they are stopped, and what they say once they are there.
LASTING = {"connectors dev": "Ctrl-C stops everything", "python tests/fake_api.py": "Ctrl-C stops it"}
#: How the one command that needs the package registry is typed without it.
OFFLINE = {"pip install -e '.[dev]'": "pip install -q --no-build-isolation --no-deps --no-index -e ."}


class Terminal:
    """A shell in which commands are typed one after the other, and some left running."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.folder = folder
        self._log = folder / "lasting.log"
        self._lasting: list[subprocess.Popen[bytes]] = []
        self._variables = {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "CONNECTORS_DATA_DIR": str(folder / "data"),
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        }

    def type(self, command: str) -> str:
        """Run a command; one that lasts is left running once it is there."""
        if command.startswith("cd "):
            self.folder = self.folder / command.removeprefix("cd ")
            return ""
        if command not in LASTING:
            return run(["sh", "-c", command], self.folder, **self._variables)
        with self._log.open("wb") as log:
            started = subprocess.Popen(
                ["sh", "-c", f"exec {command}"], cwd=self.folder, env=self._variables, stdout=log, stderr=log
            )
        self._lasting.append(started)
        deadline = time.monotonic() + 90
        while LASTING[command] not in self._log.read_text(errors="replace"):
            assert started.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")
            time.sleep(0.05)
        return ""

    def close(self) -> None:
        """Stop what was left running."""
        for process in reversed(self._lasting):
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def offline(environment: Path, folder: Path) -> Iterator[Terminal]:
    terminal = Terminal(environment, folder)
    yield terminal
    terminal.close()


@pytest.fixture
def online(wheel: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """An environment as a new user has it: clean, with our wheel and its extra."""
    clean = tmp_path_factory.mktemp("clean")
    venv.create(clean, with_pip=True)
    run([str(clean / "bin" / "python"), "-m", "pip", "install", "-q", f"{wheel}[worker]"], clean)
    terminal = Terminal(clean, folder)
    yield terminal
    terminal.close()


def commands() -> list[str]:
    """Read what the README has a new user type."""
    section = (ROOT / "README.md").read_text().split("\n## Write a connector\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [
        line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]


def _walk(terminal: Terminal, instead: dict[str, str]) -> None:
    said = {command: terminal.type(instead.get(command, command)) for command in commands()}

    assert set(LASTING) <= said.keys()
    assert "passed" in next(text for command, text in said.items() if command == "pytest")
    (answered,) = (text for command, text in said.items() if command.startswith("connectors call"))
    assert "succeeded" in answered
    assert "Ada Lovelace" in answered
    (checked,) = (text for command, text in said.items() if command.startswith("connectors check"))
    assert f"{len(list(ConnectorContract.checks()))} of" in checked
    assert "✗" not in checked


@pytest.mark.timeout(300)
def test_a_new_user_gets_to_an_answered_call(offline: Terminal) -> None:
    assert set(OFFLINE) <= set(commands())

    _walk(offline, OFFLINE)


@pytest.mark.registry
@pytest.mark.timeout(900)
def test_a_new_user_gets_to_an_answered_call_in_a_clean_environment(online: Terminal) -> None:
    _walk(online, {})


def test_a_new_package_passes_its_linter_and_its_types(offline: Terminal) -> None:
    offline.type("connectors new acme_crm")
    offline.type("cd acme_crm")

    assert "" == offline.type("ruff format -q --check . && ruff check -q .")
    assert "no issues found" in offline.type("mypy")


@pytest.mark.parametrize(
    ("name", "said"),
    [("Acme", "is not a connector's name"), ("json", "reserved by Python"), ("class", "reserved by Python")],
)
def test_a_name_that_cannot_be_is_refused(offline: Terminal, name: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        offline.type(f"connectors new {name}")


def test_what_is_there_already_is_left_alone(offline: Terminal) -> None:
    (offline.folder / "acme_crm").mkdir()

    with pytest.raises(AssertionError, match="exists already"):
        offline.type("connectors new acme_crm")

    assert [] == list((offline.folder / "acme_crm").iterdir())
