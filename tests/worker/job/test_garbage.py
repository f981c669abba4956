"""A job that has ended leaves nothing for the garbage collector: its body may be large, and its secret is one."""

import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.job_bench import Bench
from worker.broker import Delivery


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.shop.gate.set()
    yield bench
    await bench.close()


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "job",
    [
        {"action": "quick"},
        {"action": "order"},
        {"action": "quick", "params": {"note": "x" * 2000}},
        {"action": "quick", "version": 2},
        {"action": "quick", "params": {"colour": "red"}},
        {"action": "fly"},
        {"action": "quick", "seconds": -1},
        {"action": "order", "seconds": -1},
        {"action": "order", "mode": "undo"},
    ],
    ids=lambda job: " ".join(map(str, job.values()))[:24],
)
async def test_a_job_that_has_ended_is_kept_by_nothing(bench: Bench, job: dict[str, Any]) -> None:
    before = _deliveries()

    bench.send(**{"id": "j", **job})
    await bench.until(lambda: bench.acked and bench.processor.in_flight == 0)

    assert before == _deliveries()


def _deliveries() -> int:
    return sum(type(each) is Delivery for each in gc.get_objects())
