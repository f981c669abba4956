"""When a consumer must have been forgotten by the broker."""

from types import SimpleNamespace
from typing import Any

import pytest

import worker.broker.queue_consumer
from worker.broker.queue_consumer import MISSING_S, _Idle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the module."""
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(worker.broker.queue_consumer, "_now", lambda: clock.now_s)
    return clock


def _looks(clock: SimpleNamespace, *, ready: int, unsettled: int = 0, deliveries: int = 0) -> bool:
    """Look every 10 s for twice the time; return whether the consumer was ever missing."""
    idle, consumer = _Idle(prefetch=10), SimpleNamespace(delivered=5, unsettled=unsettled)
    missing = False
    for _ in range(int(2 * MISSING_S / 10)):
        consumer.delivered += deliveries
        missing |= idle.is_missing(_consumer(consumer), ready)
        clock.now_s += 10
    return missing


def _consumer(fake: SimpleNamespace) -> Any:
    return fake


def test_ready_messages_and_room_and_no_delivery_mean_that_it_is_missing(clock: SimpleNamespace) -> None:
    assert _looks(clock, ready=3)


@pytest.mark.parametrize(
    "how",
    [{"ready": 0}, {"ready": 3, "unsettled": 10}, {"ready": 3, "deliveries": 1}],
    ids=["nothing waits", "no room", "deliveries come"],
)
def test_a_consumer_that_has_no_work_or_works_is_not_missing(
    clock: SimpleNamespace, how: dict[str, int]
) -> None:
    assert not _looks(clock, **how)
