"""What an account may still ask of a host."""

import pytest

from connectors.sdk.errors import RateLimited, Sent, Unavailable
from connectors.sdk.http.circuit_breaker import FAILURES_TO_OPEN, OPEN_S, Budget, Budgets


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget("api.example.com", clock)


def fail(budget: Budget, times: int = FAILURES_TO_OPEN) -> None:
    for _ in range(times):
        budget.failed(budget.enter())


def test_a_wait_that_was_asked_for_is_kept_without_asking_again(budget: Budget, clock: Clock) -> None:
    budget.answered(budget.enter(), is_limited=True, wait_s=7)
    clock.now_s += 2

    with pytest.raises(RateLimited) as refusal:
        budget.enter()

    assert 5.0 == refusal.value.retry_after_s
    assert Sent.NO is refusal.value.sent
    clock.now_s += 5
    budget.enter()


def test_a_limit_used_up_by_a_success_holds_back_the_next(budget: Budget) -> None:
    budget.answered(budget.enter(), is_limited=False, wait_s=7)

    with pytest.raises(RateLimited):
        budget.enter()


def test_an_older_answer_does_not_shorten_a_wait(budget: Budget) -> None:
    first, second = budget.enter(), budget.enter()
    budget.answered(first, is_limited=True, wait_s=7)
    budget.answered(second, is_limited=False, wait_s=None)

    with pytest.raises(RateLimited):
        budget.enter()


def test_refusals_that_name_no_wait_pause_from_the_second_on(budget: Budget, clock: Clock) -> None:
    budget.answered(budget.enter(), is_limited=True, wait_s=None)
    clock.now_s += 1
    budget.answered(budget.enter(), is_limited=True, wait_s=None)

    with pytest.raises(RateLimited) as refusal:
        budget.enter()

    assert 1.0 == refusal.value.retry_after_s


def test_refusals_of_calls_made_together_count_once(budget: Budget, clock: Clock) -> None:
    permits = [budget.enter() for _ in range(50)]
    clock.now_s += 1
    for permit in permits:
        budget.answered(permit, is_limited=True, wait_s=None)

    budget.enter()


def test_a_pause_by_a_failing_host_is_not_called_a_limit(budget: Budget) -> None:
    budget.failed(budget.enter(), wait_s=7)

    with pytest.raises(Unavailable) as refusal:
        budget.enter()

    assert 7.0 == refusal.value.retry_after_s


def test_the_breaker_opens_after_failures_in_a_row(budget: Budget) -> None:
    fail(budget, FAILURES_TO_OPEN - 1)
    budget.failed(budget.enter())

    with pytest.raises(Unavailable) as refusal:
        budget.enter()

    assert Sent.NO is refusal.value.sent
    assert OPEN_S == refusal.value.retry_after_s


def test_a_success_in_between_starts_the_count_anew(budget: Budget) -> None:
    fail(budget, FAILURES_TO_OPEN - 1)
    budget.answered(budget.enter(), is_limited=False, wait_s=None)
    fail(budget, FAILURES_TO_OPEN - 1)

    budget.enter()


def test_failures_far_apart_are_not_in_a_row(budget: Budget, clock: Clock) -> None:
    for _ in range(FAILURES_TO_OPEN * 2):
        budget.failed(budget.enter())
        clock.now_s += 100

    budget.enter()


def test_one_probe_closes_the_breaker(budget: Budget, clock: Clock) -> None:
    fail(budget)
    clock.now_s += OPEN_S
    probe = budget.enter()

    with pytest.raises(Unavailable):
        budget.enter()

    budget.answered(probe, is_limited=False, wait_s=None)
    budget.enter()
    budget.enter()


def test_a_failing_probe_doubles_the_time(budget: Budget, clock: Clock) -> None:
    fail(budget)
    clock.now_s += OPEN_S
    budget.failed(budget.enter())
    clock.now_s += OPEN_S

    with pytest.raises(Unavailable):
        budget.enter()

    clock.now_s += OPEN_S
    assert budget.enter().is_probe


def test_a_cancelled_probe_lets_the_next_one_try(budget: Budget, clock: Clock) -> None:
    fail(budget)
    clock.now_s += OPEN_S
    budget.left(budget.enter())

    assert budget.enter().is_probe


def test_accounts_do_not_hold_each_other_back() -> None:
    budgets = Budgets()
    fail(budgets.of(("acme", "http", "default", "api.example.com:443")))

    budgets.of(("acme", "http", "second", "api.example.com:443")).enter()
    budgets.of(("beta", "http", "default", "api.example.com:443")).enter()
    budgets.of(("acme", "http", "default", "other.example.com:443")).enter()
    with pytest.raises(Unavailable):
        budgets.of(("acme", "http", "default", "api.example.com:443")).enter()


def test_the_table_is_bounded_and_forgets_the_longest_unused() -> None:
    budgets = Budgets(max_accounts=2)
    kept = budgets.of(("a", "http", "default", "h"))
    budgets.of(("b", "http", "default", "h"))
    budgets.of(("a", "http", "default", "h"))
    budgets.of(("c", "http", "default", "h"))

    assert 2 == len(budgets)
    assert kept is budgets.of(("a", "http", "default", "h"))
