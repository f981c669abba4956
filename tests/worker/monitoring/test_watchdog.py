"""The watchdog by a clock of the tests: lag, blocks, and a process that stood still."""

import pytest

from tests.support.log_records import logged
from worker.metrics import Metrics
from worker.monitoring.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watchdog(clock: Clock) -> Watchdog:
    return Watchdog(Metrics(version="1"), clock=clock)


def let_pass(watchdog: Watchdog, clock: Clock, seconds: float, *, beating: bool) -> None:
    for _ in range(int(seconds / 0.25)):
        clock.now += 0.25
        if beating:
            watchdog.beat()
        watchdog.check()


def test_a_loop_that_turns_has_no_lag(watchdog: Watchdog, clock: Clock) -> None:
    let_pass(watchdog, clock, 60, beating=True)

    assert watchdog.blocked_s() is None
    assert watchdog.lag_s() == 0


def test_a_loop_is_blocked_after_five_seconds(watchdog: Watchdog, clock: Clock) -> None:
    let_pass(watchdog, clock, 4.75, beating=False)
    before = watchdog.blocked_s()

    let_pass(watchdog, clock, 0.25, beating=False)

    assert before is None
    assert watchdog.blocked_s() == 5.0
    assert watchdog.lag_s() == 4.75


def test_each_block_is_logged_once(watchdog: Watchdog, clock: Clock) -> None:
    with logged() as records:
        for _ in range(2):
            let_pass(watchdog, clock, 30, beating=False)
            let_pass(watchdog, clock, 1, beating=True)

    assert [record["event"] for record in records] == ["event loop blocked", "event loop turns again"] * 2
    assert [record["blocked_s"] for record in records][:2] == [5.0, 30.2]


def test_a_process_that_was_stopped_as_a_whole_is_no_block(watchdog: Watchdog, clock: Clock) -> None:
    with logged() as records:
        clock.now += 3600
        watchdog.check()
        blocked_s = watchdog.blocked_s()
        watchdog.beat()

    assert blocked_s is None
    assert [record["event"] for record in records] == ["event loop stood still with the whole process"]


def test_the_worst_lag_is_forgotten_after_a_minute(watchdog: Watchdog, clock: Clock) -> None:
    let_pass(watchdog, clock, 3, beating=False)
    let_pass(watchdog, clock, 28, beating=True)
    remembered = watchdog.lag_s()

    let_pass(watchdog, clock, 62, beating=True)

    assert remembered == 3.0
    assert watchdog.lag_s() == 0
