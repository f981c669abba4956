"""A short duel: ours, and one that must lose, because a harness that cannot fail proves nothing."""

from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from tests.duel.callers import Said
from tests.duel.contest import compete
from tests.duel.contestants import ours, plain_httpx
from tests.duel.count import Caller, Tally
from tests.duel.plan import Plan
from worker.dev.postgres import PrivatePostgres

#: Slow answers come sooner, and nobody asks again, so that it is over in seconds.
SHORT = Plan(
    seed=20261126,
    bookings=30,
    slow_s=1.0,
    slower_s=2.0,
    timeout_s=3.0,
    line_s=5.0,
    asks_again=False,
    quiet_s=3.0,
)


@pytest.mark.integration
@pytest.mark.faults
async def test_of_thirty_bookings_ours_doubles_loses_and_misreports_none(
    broker_url: str, postgres: PrivatePostgres, tmp_path: Path
) -> None:
    database_url = await postgres.create_database(f"duel_{uuid4().hex}")

    tally = await compete(ours(broker_url, database_url), SHORT, tmp_path / "ours")

    assert (0, 0, 0, 0) == tally.faults, tally
    assert len(tally.unknown) < SHORT.bookings / 2, tally


@pytest.mark.integration
@pytest.mark.faults
async def test_plain_retries_are_seen_to_double_bookings(tmp_path: Path) -> None:
    tally = await compete(plain_httpx(), SHORT, tmp_path / "httpx")

    assert tally.doubled, tally


@pytest.mark.parametrize(
    ("booked", "heard", "after_s", "faults"),
    [
        (1, Said.BOOKED, 0.1, (0, 0, 0, 0)),
        (0, Said.FAILED, 0.1, (0, 0, 0, 0)),
        (1, Said.UNKNOWN, 4.5, (0, 0, 0, 0)),
        (0, Said.UNKNOWN, 4.5, (0, 0, 0, 0)),
        (2, Said.BOOKED, 0.1, (1, 0, 0, 0)),
        (0, None, 5.0, (0, 1, 0, 1)),
        (0, Said.BOOKED, 0.1, (0, 0, 1, 0)),
        (1, Said.FAILED, 0.1, (0, 0, 1, 0)),
        (1, Said.BOOKED, 5.1, (0, 0, 0, 1)),
    ],
)
def test_each_fault_is_counted(
    booked: int, heard: Said | None, after_s: float, faults: tuple[int, int, int, int]
) -> None:
    caller = Caller("booking-000", heard, after_s, last=heard)

    tally = Tally(Plan(seed=1, bookings=1), Counter({"booking-000": booked}), (caller,))

    assert faults == tally.faults
