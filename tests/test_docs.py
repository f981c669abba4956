"""The examples in the READMEs run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "connectors/README.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_python_examples_run(page: str) -> None:
    assert len(_names_of(page)) > 1


def _names_of(page: str) -> dict[str, Any]:
    """Run a page's examples, and give what they define."""
    names: dict[str, Any] = {"__name__": "guide"}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(compile(example, page, "exec"), names)
    return names


@pytest.mark.integration
def test_the_guides_contract_passes() -> None:
    names = _names_of("connectors/README.md")
    contract = names["TestShop"]

    for _, _, check in contract.checks():
        stage = contract()
        stage.setup_method(check)
        check(stage)


@pytest.mark.integration
def test_the_guides_commands_run() -> None:
    commands = re.findall(r"^\$ connectors (.*)$", (ROOT / "connectors/README.md").read_text(), re.MULTILINE)

    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *command.split()], capture_output=True, text=True, check=False
        )
        assert 0 == done.returncode, f"{command}: {done.stderr}"
    assert commands


@pytest.mark.integration
@pytest.mark.parametrize("way", ["greet", "greet_by_hand"])
async def test_the_readme_publishes_a_job_and_reads_the_answer(
    way: str, broker_url: str, start_worker: object
) -> None:
    await start_worker(broker_url)  # type: ignore[operator]
    names: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)

    if way == "greet":
        assert await names["greet"](broker_url) == "hi"  # type: ignore[operator]
    else:
        assert names["greet_by_hand"](broker_url)["data"] == {"received_message": "hi"}  # type: ignore[operator]


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in ROOT.glob("**/*.md"):
        if {".venv", ".venv-duel"} & set(page.parts):
            continue
        for target, _, anchor in re.findall(r"\]\(([^)#:]+)(#([^)]+))?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            if target.endswith(".py") and anchor:
                assert f"def {anchor}(" in (page.parent / target).read_text(), f"{page.name}: {anchor}"


def test_every_file_that_contributing_names_exists() -> None:
    named = re.findall(r"`([\w./]+(?:\.py|\.md|\.txt|\.toml|/))`", (ROOT / "CONTRIBUTING.md").read_text())

    assert len(named) > 20
    for name in named:
        folders = (ROOT, ROOT / "tests", ROOT / "connectors")
        assert any((folder / name).exists() for folder in folders), name


@pytest.mark.parametrize("folder", ["worker", "connectors/sdk/runtime"])
def test_the_code_map_names_every_module_and_no_other(folder: str) -> None:
    modules = {
        str(path.relative_to(ROOT / folder))
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }

    assert modules == _mapped(folder)


def _mapped(folder: str) -> set[str]:
    """Return the modules of a folder's table in the code map."""
    page = (ROOT / "worker/README.md").read_text()
    table = page.partition(f"| module of `{folder}/` |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| `([^`]+\.py)` \|", table, re.MULTILINE))
