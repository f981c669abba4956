"""What an account may still ask of a host."""

import pytest

from connectors.sdk.errors import RateLimited, Sent, Unavailable
from connectors.sdk.http.circuit_breaker import BreakerPolicy, HostBreaker, HostBreakers


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> HostBreaker:
    return HostBreaker("api.example.com", clock)


def fail(breaker: HostBreaker, times: int = BreakerPolicy().failures_to_open) -> None:
    for _ in range(times):
        breaker.failed(breaker.enter())


def test_a_wait_that_was_asked_for_is_kept_without_asking_again(breaker: HostBreaker, clock: Clock) -> None:
    breaker.answered(breaker.enter(), is_limited=True, wait_s=7)
    clock.now_s += 2

    with pytest.raises(RateLimited) as refusal:
        breaker.enter()

    assert 5.0 == refusal.value.retry_after_s
    assert Sent.NO is refusal.value.sent
    clock.now_s += 5
    breaker.enter()


def test_a_limit_used_up_by_a_success_holds_back_the_next(breaker: HostBreaker) -> None:
    breaker.answered(breaker.enter(), is_limited=False, wait_s=7)

    with pytest.raises(RateLimited):
        breaker.enter()


def test_an_older_answer_does_not_shorten_a_wait(breaker: HostBreaker) -> None:
    first, second = breaker.enter(), breaker.enter()
    breaker.answered(first, is_limited=True, wait_s=7)
    breaker.answered(second, is_limited=False, wait_s=None)

    with pytest.raises(RateLimited):
        breaker.enter()


def test_refusals_that_name_no_wait_pause_from_the_second_on(breaker: HostBreaker, clock: Clock) -> None:
    breaker.answered(breaker.enter(), is_limited=True, wait_s=None)
    clock.now_s += 1
    breaker.answered(breaker.enter(), is_limited=True, wait_s=None)

    with pytest.raises(RateLimited) as refusal:
        breaker.enter()

    assert 1.0 == refusal.value.retry_after_s


def test_refusals_of_calls_made_together_count_once(breaker: HostBreaker, clock: Clock) -> None:
    permits = [breaker.enter() for _ in range(50)]
    clock.now_s += 1
    for permit in permits:
        breaker.answered(permit, is_limited=True, wait_s=None)

    breaker.enter()


def test_a_pause_by_a_failing_host_is_not_called_a_limit(breaker: HostBreaker) -> None:
    breaker.failed(breaker.enter(), wait_s=7)

    with pytest.raises(Unavailable) as refusal:
        breaker.enter()

    assert 7.0 == refusal.value.retry_after_s


def test_the_breaker_opens_after_failures_in_a_row(breaker: HostBreaker) -> None:
    fail(breaker, BreakerPolicy().failures_to_open - 1)
    breaker.failed(breaker.enter())

    with pytest.raises(Unavailable) as refusal:
        breaker.enter()

    assert Sent.NO is refusal.value.sent
    assert BreakerPolicy().open_s == refusal.value.retry_after_s


def test_a_success_in_between_starts_the_count_anew(breaker: HostBreaker) -> None:
    fail(breaker, BreakerPolicy().failures_to_open - 1)
    breaker.answered(breaker.enter(), is_limited=False, wait_s=None)
    fail(breaker, BreakerPolicy().failures_to_open - 1)

    breaker.enter()


def test_failures_far_apart_are_not_in_a_row(breaker: HostBreaker, clock: Clock) -> None:
    for _ in range(BreakerPolicy().failures_to_open * 2):
        breaker.failed(breaker.enter())
        clock.now_s += 100

    breaker.enter()


def test_one_probe_closes_the_breaker(breaker: HostBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now_s += BreakerPolicy().open_s
    probe = breaker.enter()

    with pytest.raises(Unavailable):
        breaker.enter()

    breaker.answered(probe, is_limited=False, wait_s=None)
    breaker.enter()
    breaker.enter()


def test_a_failing_probe_doubles_the_time(breaker: HostBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now_s += BreakerPolicy().open_s
    breaker.failed(breaker.enter())
    clock.now_s += BreakerPolicy().open_s

    with pytest.raises(Unavailable):
        breaker.enter()

    clock.now_s += BreakerPolicy().open_s
    assert breaker.enter().is_probe


def test_a_cancelled_probe_lets_the_next_one_try(breaker: HostBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now_s += BreakerPolicy().open_s
    breaker.release(breaker.enter())

    assert breaker.enter().is_probe


def test_accounts_do_not_hold_each_other_back() -> None:
    breakers = HostBreakers()
    fail(breakers.of(("acme", "http", "default", "api.example.com:443")))

    breakers.of(("acme", "http", "second", "api.example.com:443")).enter()
    breakers.of(("beta", "http", "default", "api.example.com:443")).enter()
    breakers.of(("acme", "http", "default", "other.example.com:443")).enter()
    with pytest.raises(Unavailable):
        breakers.of(("acme", "http", "default", "api.example.com:443")).enter()


def test_the_table_is_bounded_and_forgets_the_longest_unused() -> None:
    breakers = HostBreakers(policy=BreakerPolicy(max_accounts=2))
    kept = breakers.of(("a", "http", "default", "h"))
    breakers.of(("b", "http", "default", "h"))
    breakers.of(("a", "http", "default", "h"))
    breakers.of(("c", "http", "default", "h"))

    assert 2 == len(breakers)
    assert kept is breakers.of(("a", "http", "default", "h"))
