"""Each module of a job's main path is tested where one looks: in a file of its name, or in the one named here."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Folders and files of the main path, from a delivery's bytes to the ledger.
MAIN_PATH = (
    *ROOT.glob("connectors/sdk/runtime/*.py"),
    *ROOT.glob("worker/job/*.py"),
    *ROOT.glob("worker/ledger/*.py"),
    *(
        ROOT / "worker/broker" / f"{name}.py"
        for name in ("confirmed_publisher", "queue_consumer", "topology")
    ),
)
#: Values, protocols and parts that are tested with the module that uses them.
TESTED_WITH = {
    "connectors/sdk/runtime/action_runner.py": "tests/connectors/sdk/runtime/test_uncertainty.py",
    "connectors/sdk/runtime/answers.py": "tests/connectors/sdk/runtime/test_idempotency.py",
    "connectors/sdk/runtime/call.py": "tests/connectors/sdk/runtime/test_executor.py",
    "connectors/sdk/runtime/claims.py": "tests/connectors/sdk/runtime/test_idempotency.py",
    "connectors/sdk/runtime/invocation.py": "tests/connectors/sdk/isolation/test_isolated_calls.py",
    "connectors/sdk/runtime/clock.py": "tests/connectors/sdk/http/test_clock.py",
    "connectors/sdk/runtime/hung_calls.py": "tests/worker/job/test_in_time.py",
    "connectors/sdk/runtime/known_connectors.py": "tests/connectors/sdk/runtime/test_executor.py",
    "connectors/sdk/runtime/memory_ledger.py": "tests/connectors/sdk/runtime/test_ledger.py",
    "connectors/sdk/runtime/outcome.py": "tests/connectors/sdk/runtime/test_executor.py",
    "connectors/sdk/runtime/reconcile.py": "tests/connectors/sdk/runtime/test_uncertainty.py",
    "connectors/sdk/runtime/result.py": "tests/worker/job/test_processor.py",
    "connectors/sdk/runtime/slot.py": "tests/worker/job/test_concurrency.py",
    "worker/job/disposition.py": "tests/worker/job/test_processor.py",
    "worker/job/guarded_ledger.py": "tests/faults/test_ledger_guard.py",
    "worker/job/job_slot.py": "tests/worker/job/test_concurrency.py",
    "worker/ledger/connections.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/faults.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/policy.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/probe.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/postgresql.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/schema.py": "tests/worker/ledger/test_store.py",
    "worker/ledger/script.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/sqlite.py": "tests/worker/ledger/test_database.py",
    "worker/ledger/statements.py": "tests/worker/ledger/test_store.py",
}


@pytest.mark.parametrize(
    "module",
    [str(path.relative_to(ROOT)) for path in sorted(MAIN_PATH) if path.name != "__init__.py"],
)
def test_a_module_of_the_main_path_has_a_test_file_of_its_name(module: str) -> None:
    path = Path(module)
    mirrored = f"tests/{path.parent}/test_{path.name}"

    assert (ROOT / TESTED_WITH.get(module, mirrored)).is_file(), f"write {mirrored}"


def test_only_modules_that_exist_are_tested_elsewhere() -> None:
    assert [] == [module for module in TESTED_WITH if not (ROOT / module).is_file()]
    assert [] == [
        module
        for module in TESTED_WITH
        if (ROOT / f"tests/{Path(module).parent}/test_{Path(module).name}").is_file()
    ]
