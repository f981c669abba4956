"""Salesforce stands on what third parties have: the public names of the SDK."""

import ast
import importlib
from pathlib import Path

import pytest

import connectors.salesforce

ROOT = Path(connectors.salesforce.__file__).parent
PUBLIC = {
    "connectors.sdk",
    "connectors.sdk.auth",
    "connectors.sdk.errors",
    "connectors.sdk.http",
    "connectors.sdk.paginate",
    "connectors.sdk.phone",
}


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.stem)
def test_only_public_names_of_the_sdk_are_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.startswith(("schemas", "worker", "connectors.sdk")):
            assert node.module in PUBLIC
            public = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(public)
