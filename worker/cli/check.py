"""`check`: run the connector contract, and show which checks pass and which fail."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, fail, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.sdk.connector import Connector
    from connectors.sdk.testing import ConnectorContract
    from connectors.sdk.testing.contract import Check


def check(
    package: Annotated[
        str, typer.Argument(help="A folder with tests, a test file, or an installed connector's name.")
    ] = ".",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the contract that every connector must pass; exit code 1 if a check fails.

    A folder's own `ConnectorContract` classes are found in its `test_*.py` files. For a connector given by
    name, without such a class here, only the checks that need no provider are run.
    """
    contracts = _find(package)
    rows = [
        {"connector": contract.connector.name, "check": name, "promise": promise, "fault": fault}
        for contract in contracts
        for name, promise, fault in _made(contract)
    ]
    if as_json:
        print_json(rows)
    else:
        _print(rows)
    raise typer.Exit(1 if any(row["fault"] for row in rows) else 0)


def _made(contract: "type[ConnectorContract]") -> "list[tuple[str, str, str | None]]":
    made = []
    for name, promise, function in contract.checks():
        stage, fault = contract(), None
        stage.setup_method(function)
        try:
            function(stage)
        except AssertionError as missing:
            fault = str(missing)
        except Exception as broken:  # the check's own set-up: a provider that does not start, a bad example
            fault = f"the check cannot run: {type(broken).__name__}: {broken}"
        made.append((name, promise, fault))
    return made


def _find(package: str) -> "list[type[ConnectorContract]]":
    path = Path(package)
    if path.exists():
        found = _contracts_in(path)
        if not found:
            fail(
                f"{package}: no test_*.py here has a subclass of ConnectorContract; write one, or name a connector",
                EXIT_USAGE,
            )
        return found
    return _contracts_of(package)


def _contracts_of(name: str) -> "list[type[ConnectorContract]]":
    from connectors.registry import load

    entry = load([name]).installed.get(name)
    if entry is None:
        fail(f"{name!r} is neither a folder nor an installed connector", EXIT_USAGE)
    if entry.connector is None:
        fail(entry.fault or f"{name} does not load")
    tests = Path("tests")
    found = _contracts_in(tests) if tests.is_dir() else []
    ours = [contract for contract in found if contract.connector.name == name]
    if ours:
        return ours
    print(
        f"No contract class for {name!r} in ./tests: only checks without a provider are run.", file=sys.stderr
    )
    return [_without_provider(entry.connector)]


def _without_provider(given: "Connector[Any]") -> "type[ConnectorContract]":
    """Create a contract of the declared facts alone: no action is run."""
    from connectors.sdk.testing import ConnectorContract

    class Declared(ConnectorContract):
        connector = given

        @classmethod
        def checks(cls) -> "Iterator[Check]":
            return (each for each in super().checks() if each[0] in cls.declared)

    return Declared


def _contracts_in(path: Path) -> "list[type[ConnectorContract]]":
    from connectors.sdk.testing import ConnectorContract

    files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    found: dict[str, type[ConnectorContract]] = {}
    for file in files:
        if "ConnectorContract" not in file.read_text(errors="replace"):
            continue
        for value in vars(_import(file)).values():
            if (
                isinstance(value, type)
                and issubclass(value, ConnectorContract)
                and hasattr(value, "connector")
            ):
                found[f"{file}:{value.__qualname__}"] = value
    return list(found.values())


def _import(file: Path) -> ModuleType:
    """Import a test file as pytest does: files beside it can be imported, too."""
    sys.path[:0] = [str(file.parent.resolve()), str(Path.cwd())]
    spec = importlib.util.spec_from_file_location(f"_check_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        fail(f"{file} cannot be imported: {type(error).__name__}: {error}")
    finally:
        del sys.path[:2]
    return module


def _print(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(f"{'✗' if row['fault'] else '✓'} {row['promise']}")
        for line in (row["fault"] or "").splitlines():
            print(f"    {line}")
    missing = sum(bool(row["fault"]) for row in rows)
    print(f"\n{len(rows) - missing} of {len(rows)} passed{'' if not missing else f', {missing} failed'}.")
