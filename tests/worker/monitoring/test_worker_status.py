"""Which states of a worker make it unready."""

from types import SimpleNamespace
from typing import Any, cast

from worker.broker.ledger_guard import LedgerGuard
from worker.monitoring.worker_status import WorkerStatus


def test_a_worker_whose_ledger_is_not_proven_is_not_ready() -> None:
    guard = LedgerGuard("connectors.ledger", ledger_id=lambda: "a", connection=lambda: None)
    parts = SimpleNamespace(ledger=SimpleNamespace(unavailable_reason=None), ledger_guard=guard)
    check = WorkerStatus(cast(Any, parts)).checks()["ledger"]

    before = check()
    guard.proven.set()

    assert "it is not known whether other workers keep the same ledger: no connection to the broker" == before
    assert check() is None
