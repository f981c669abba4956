"""The bench of a job's stops runs, and its stops add up to a job."""

import pytest

from tests.bench.stops import measure


async def test_the_stops_add_up_to_a_whole_job() -> None:
    found = await measure(jobs=100, rounds=1)

    *stops, whole = found.values()
    assert whole > 0
    assert pytest.approx(whole) == sum(stops)
