"""A job's own headers: read from trusted users alone, written to them again."""

from datetime import UTC, datetime
from typing import Any

import pytest

from worker.broker import Delivery, Properties
from worker.job.headers import JobHeaders

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _delivery(headers: dict[str, Any], user_id: str | None) -> Delivery:
    return Delivery(b"", "dummy.echo", Properties(user_id=user_id, headers=headers), False, 0, 1, None)  # type: ignore[arg-type]


def test_written_headers_are_read_again_from_a_trusted_user() -> None:
    written = JobHeaders(
        NOW, publisher="agent", attempts=2, failures=1, snoozes=3, not_before=NOW, rerouted=True
    )

    read = JobHeaders.read(_delivery(written.write(), "worker"), trusted={"worker"}, now=NOW)

    assert written == read


@pytest.mark.parametrize("user_id", [None, "agent"])
def test_our_headers_are_ignored_from_any_other_user(user_id: str | None) -> None:
    forged = JobHeaders(
        NOW, publisher="boss", attempts=10**9, failures=4, rerouted=True, deadline="none"
    ).write()
    forged["x-death"] = [{"count": 99}]

    read = JobHeaders.read(_delivery(forged, user_id), trusted={"worker"}, now=NOW)

    assert (user_id, 0, 0, False, None) == (
        read.publisher, read.attempts, read.failures, read.rerouted, read.deadline,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["x", 1, None, b"\xff", [], "00-" + "0" * 10_000])
def test_a_malformed_traceparent_is_dropped(value: Any) -> None:
    assert JobHeaders.read(_delivery({"traceparent": value}, None), trusted=(), now=NOW).traceparent is None
