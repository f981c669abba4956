"""The limit of an account: it falls by what fails, rises by what succeeds, and stays within its bounds."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.http.adaptive_limit import LEAST, AdaptiveLimit

#: Whether a call fails, how long it took, and how much later the next one ends.
_ENDS = st.lists(
    st.tuples(st.booleans(), st.floats(0, 60), st.floats(0, 60), st.integers(0, 200)), max_size=200
)


@given(st.integers(1, 200), _ENDS)
def test_it_stays_within_its_bounds_whatever_happens(
    most: int, ends: list[tuple[bool, float, float, int]]
) -> None:
    limit, now = AdaptiveLimit(most), 0.0
    for fails, took_s, later_s, in_flight in ends:
        now += later_s
        before, limit.in_flight = limit.value, in_flight
        if fails:
            limit.lower(now - took_s, now)
            assert limit.value <= before
        else:
            limit.raise_()
            assert before <= limit.value <= before + 1
        assert min(LEAST, most) <= limit.value <= most


@given(st.integers(LEAST, 200), st.integers(2, 100))
def test_calls_that_were_in_flight_together_count_once(most: int, calls: int) -> None:
    once, many = AdaptiveLimit(most), AdaptiveLimit(most)
    once.lower(1.0, 31.0)
    for index in range(calls):
        many.lower(1.0, 31.0 + index)

    assert once.value == many.value


@given(st.integers(LEAST + 1, 200))
def test_a_host_that_is_well_again_gets_the_whole_limit_back(most: int) -> None:
    limit = AdaptiveLimit(most)
    for instant in range(100):
        limit.lower(instant, instant)
    assert LEAST == limit.value
    for _ in range(most * most):
        limit.in_flight = limit.value
        limit.raise_()

    assert most == limit.value


def test_a_limit_that_is_not_used_is_not_raised() -> None:
    limit = AdaptiveLimit(100)
    limit.lower(0.0, 1.0)
    limit.in_flight = 1
    for _ in range(1000):
        limit.raise_()

    assert 70 == limit.value
