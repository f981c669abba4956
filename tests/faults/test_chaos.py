"""A short chaos run; `make chaos` makes it long."""

from pathlib import Path

import pytest

from tests.faults.chaos import run_chaos

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]


async def test_random_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    tally = await run_chaos(300, 8, tmp_path, seed=20261122)

    assert [] == tally.lost(), tally.table()
    assert [] == tally.doubled(), tally.table()
    assert [] == tally.wrong(), tally.table()
