"""Finding connectors: by entry point, one bad one harming nobody."""

import sys
from pathlib import Path

import pytest

from connectors.registry import installed_names, load
from connectors.sdk import Connector


def _distribution(folder: Path, name: str, entry: str, module: str, code: str, version: str = "1.0") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[connectors]\n{entry} = {module}:connector\n")
    (folder / f"{module}.py").write_text(code)


GOOD = "from connectors.sdk import Connector\nconnector = Connector({!r})\n"


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_our_connectors_are_found_by_entry_points() -> None:
    assert {"dummy", "http", "google_calendar"} <= installed_names()
    assert not load(["dummy", "http", "google_calendar"]).broken


def test_only_what_is_named_is_imported(plugins: Path) -> None:
    _distribution(plugins, "acme", "acme", "acme_unnamed", "import sys; sys.exit(3)")

    assert {"dummy"} == set(load(["dummy"]).connectors)
    assert "acme" in installed_names()
    assert "acme_unnamed" not in sys.modules


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ZeroDivisionError('no luck')", "ZeroDivisionError: no luck"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("connector = 1", "is no Connector"),
        (GOOD.format("other"), "calls itself 'other'"),
        ("x = (", "SyntaxError"),
    ],
)
def test_one_that_fails_is_named_in_one_line_and_the_others_run(
    plugins: Path, code: str, said: str, request: pytest.FixtureRequest
) -> None:
    module = f"acme_{abs(hash(request.node.name))}"
    _distribution(plugins, "acme", "acme", module, code)

    registry = load(["acme", "dummy"])

    assert {"dummy"} == set(registry.connectors)
    assert said in registry.broken["acme"]
    assert "acme" in registry.broken["acme"] and "1.0" in registry.broken["acme"]
    assert 1 == len(registry.broken["acme"].splitlines())


def test_a_name_that_two_claim_runs_for_neither(plugins: Path) -> None:
    _distribution(plugins / "a", "acme_crm", "crm", "crm_a", GOOD.format("crm"), "1.2")
    _distribution(plugins / "b", "beta_crm", "crm", "crm_b", GOOD.format("crm"), "0.4")
    sys.path[:0] = [str(plugins / "a"), str(plugins / "b")]
    try:
        registry = load(["crm", "dummy"])
    finally:
        del sys.path[:2]

    assert {"dummy"} == set(registry.connectors)
    assert "registered twice: acme_crm 1.2 and beta_crm 0.4; uninstall one" in registry.broken["crm"]


def test_one_that_does_not_finish_importing_is_left_alone(plugins: Path) -> None:
    _distribution(plugins, "acme", "acme", "acme_hanging", "import threading; threading.Event().wait(5)")

    registry = load(["acme", "dummy"], import_s=0.2)

    assert {"dummy"} == set(registry.connectors)
    assert "is still importing after 0.2 s" in registry.broken["acme"]


BOTH_KINDS = """
from connectors.sdk import Connector
connector = Connector("acme"{})
@connector.action
def wait() -> None: ...
@connector.action
async def ask() -> None: ...
"""


@pytest.mark.parametrize(
    ("declared", "wait", "ask"),
    [
        ("", "process", "worker"),
        (", isolation='process'", "process", "process"),
        (", isolation='worker'", "worker", "worker"),
    ],
)
def test_synchronous_actions_of_third_parties_are_isolated(
    plugins: Path, declared: str, wait: str, ask: str
) -> None:
    module = f"acme_isolated_{len(declared)}"
    _distribution(plugins, "acme", "acme", module, BOTH_KINDS.format(declared))

    entry = load(["acme"]).installed["acme"]

    assert entry.connector is not None
    assert f"{module}:connector" == entry.reference
    assert [wait, ask] == [entry.isolation_of(entry.connector.actions[name]) for name in ("wait", "ask")]


def test_our_synchronous_actions_run_in_the_worker() -> None:
    entry = load(["dummy"]).installed["dummy"]

    assert entry.connector is not None
    assert {"worker"} == {entry.isolation_of(action) for action in entry.connector.actions.values()}


def test_an_isolation_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="isolation is 'worker' or 'process', not 'thread'"):
        Connector("acme", isolation="thread")  # type: ignore[call-overload]
