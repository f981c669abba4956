"""What a failed attempt leads to: retry with backoff and jitter, or give up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.runtime.retry import DELAYS_S, MAX_WAIT_S, GiveUp, Retry, backoff_s, decide
from schemas.error import Code

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _decide(code: Code = Code.UNAVAILABLE, **how: Any) -> Retry | GiveUp:
    facts: dict[str, Any] = {
        "failures": 1,
        "max_attempts": 5,
        "now": NOW,
        "deadline": None,
        "retry_after_s": None,
        "random_fraction": 0.5,
    }
    return decide(code, **{**facts, **how})


@pytest.mark.parametrize("code", Code)
def test_only_retryable_codes_are_retried(code: Code) -> None:
    assert code.facts.retryable == isinstance(_decide(code), Retry)


def test_the_last_attempt_gives_up() -> None:
    assert isinstance(_decide(failures=4), Retry)
    assert GiveUp() == _decide(failures=5)


def test_no_retry_is_planned_past_the_deadline() -> None:
    assert GiveUp(at_deadline=True) == _decide(deadline=NOW + timedelta(seconds=0.7))
    assert isinstance(_decide(deadline=NOW + timedelta(seconds=0.8)), Retry)


def test_no_retry_is_sent_to_a_queue_that_it_leaves_past_the_deadline() -> None:
    soon = NOW + timedelta(seconds=0.9)

    assert GiveUp(at_deadline=True) == _decide(deadline=soon, shortest_s=1.0)
    assert Retry(NOW + timedelta(seconds=0.75)) == _decide(
        deadline=soon + timedelta(seconds=0.2), shortest_s=1.0
    )


def test_retry_after_is_never_undercut() -> None:
    assert Retry(NOW + timedelta(seconds=90)) == _decide(Code.RATE_LIMITED, retry_after_s=90.0)


def test_a_retry_after_beyond_the_longest_wait_is_given_up() -> None:
    assert isinstance(_decide(Code.RATE_LIMITED, retry_after_s=MAX_WAIT_S), Retry)
    assert GiveUp() == _decide(Code.RATE_LIMITED, retry_after_s=MAX_WAIT_S + 1)


@given(st.integers(1, 50), st.floats(0, 1))
def test_backoff_is_50_to_100_percent_of_its_step(failures: int, random_fraction: float) -> None:
    step_s = DELAYS_S[min(failures, len(DELAYS_S)) - 1]

    assert step_s / 2 <= backoff_s(failures, random_fraction) <= step_s
