"""Our connectors, the guides and the scaffold use the same public names that everybody has."""

import importlib
import re
from pathlib import Path

import pytest

from tests.connectors.sdk.test_public_api import MODULES

ROOT = Path(__file__).parents[3]
#: Parts of the framework that live beside the connectors.
FRAMEWORK = {"connectors/sdk", "connectors/sandbox", "connectors/registry.py", "connectors/__init__.py"}
PAGES = ["README.md", "connectors/README.md"]
_IMPORT = re.compile(
    r"^[ ]*(?:from[ ]+((?:connectors\.sdk|schemas|worker)[\w.]*)[ ]+import[ ]+(\([^)]*\)|[^\n#]+)"
    r"|import[ ]+((?:connectors\.sdk|schemas|worker)\b[^\n]*))",
    re.MULTILINE,
)


def _sources() -> list[Path]:
    ours = [
        path
        for path in sorted((ROOT / "connectors").rglob("*.py"))
        if not any(path.relative_to(ROOT).as_posix().startswith(each) for each in FRAMEWORK)
    ]
    return ours + sorted((ROOT / "worker/cli/scaffold").rglob("*.py.tmpl"))


def private_names(text: str) -> list[str]:
    """Return each import of the framework that is not public."""
    public = {name: set(importlib.import_module(name).__all__) for name in MODULES}
    found = []
    for module, names, plain in _IMPORT.findall(text):
        if plain:
            found.append(plain)
        each = re.findall(r"(\w+)(?:[ ]+as[ ]+\w+)?[ ]*(?:,|$|\))", names.replace("\n", " ").strip())
        found += [f"{module}.{name}" for name in each if name not in public.get(module, ())]
    return found


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_connector_imports_public_names_alone(path: Path) -> None:
    assert [] == private_names(path.read_text())


@pytest.mark.parametrize("page", PAGES)
def test_a_guide_imports_public_names_alone(page: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)

    own = [example for example in examples if "aio_pika" not in example and "worker" not in example]
    assert [] == [name for example in own for name in private_names(example)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from connectors.sdk import Connector, Context\n", []),
        ("from connectors.sdk import (\n    Connector,\n    Context,\n)\n", []),
        ("from connectors.sdk.auth import ApiKey as Key\n", []),
        (
            "    from connectors.sdk.http.client import HttpClient\n",
            ["connectors.sdk.http.client.HttpClient"],
        ),
        ("from connectors.sdk.http import HttpPool", ["connectors.sdk.http.HttpPool"]),
        ("from connectors.sdk import (\n    Connector,\n    Job\n)\n", ["connectors.sdk.Job"]),
        ("from schemas.error import Code\n", ["schemas.error.Code"]),
        ("import connectors.sdk.params\n", ["connectors.sdk.params"]),
    ],
)
def test_the_search_finds_what_is_private(text: str, found: list[str]) -> None:
    assert found == private_names(text)
