"""The instant after which nothing is started."""

from datetime import timedelta

import pytest

from connectors.sdk import ConnectorError
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.testing import FakeClock
from schemas.error import Code


def test_without_a_deadline_time_never_runs_out() -> None:
    deadline = Deadline(None, FakeClock())

    deadline.check()

    assert deadline.remaining_s() is None
    assert not deadline.has_passed
    assert "" == str(deadline)


def test_the_remaining_time_shrinks_and_is_never_negative() -> None:
    clock = FakeClock()
    deadline = Deadline(clock.now() + timedelta(seconds=10), clock)

    before_s = deadline.remaining_s()
    clock.skip(60)

    assert before_s == pytest.approx(10, abs=1)
    assert 0 == deadline.remaining_s()
    assert deadline.has_passed


def test_nothing_starts_after_the_deadline_and_the_error_says_so() -> None:
    clock = FakeClock()
    deadline = Deadline(clock.now() + timedelta(seconds=1), clock)
    deadline.check()
    clock.skip(3)

    with pytest.raises(ConnectorError, match=str(deadline)) as caught:
        deadline.check()

    assert (Code.DEADLINE_EXCEEDED, {"outcome": "not_started"}) == (caught.value.code, caught.value.data)
