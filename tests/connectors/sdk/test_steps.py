"""The parts of an action: each is recorded when it ends, and skipped by the next run."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.sdk.steps import Steps


class Record:
    """What was recorded, in order."""

    def __init__(self) -> None:
        self.results: list[Mapping[str, Any]] = []

    async def __call__(self, results: Mapping[str, Any]) -> None:
        self.results.append(results)


async def test_each_part_is_recorded_with_those_before_it() -> None:
    record = Record()
    steps = Steps(record=record)

    for name in ("order", "invoice"):
        async with steps.step(name) as step:
            assert not step.is_done
            step.result = name.upper()

    assert [{"order": "ORDER"}, {"order": "ORDER", "invoice": "INVOICE"}] == record.results


async def test_a_part_that_is_done_returns_its_result_and_is_not_recorded_again() -> None:
    record = Record()

    async with Steps({"order": 7}, record).step("order") as step:
        pass

    assert (True, 7, []) == (step.is_done, step.result, record.results)


async def test_a_part_that_fails_is_not_recorded() -> None:
    record = Record()
    steps = Steps(record=record)

    with pytest.raises(ValueError, match="mine"):
        async with steps.step("order"):
            raise ValueError("mine")

    assert ([], {}) == (record.results, steps.results)


async def test_a_part_whose_record_is_refused_is_not_done() -> None:
    async def refuse(_results: Mapping[str, Any]) -> None:
        raise ValueError("the claim is lost")

    told: list[bool] = []
    steps = Steps(record=refuse, on_recorded=lambda _: told.append(True))

    with pytest.raises(ValueError, match="claim is lost"):
        async with steps.step("order"):
            pass

    assert ({}, []) == (steps.results, told)


async def test_a_result_is_recorded_in_types_of_json() -> None:
    record = Record()

    async with Steps(record=record).step("order") as step:
        step.result = datetime(2037, 1, 2, tzinfo=UTC)

    assert [{"order": "2037-01-02T00:00:00Z"}] == record.results
