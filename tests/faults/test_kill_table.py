"""The README shows what was recorded, and every point of it."""

from tests.faults import kill_table
from tests.support import failing_worker


def test_the_table_is_the_record_rendered() -> None:
    assert kill_table.render(kill_table.load()) == kill_table.in_readme(), (
        "run `python -m tests.faults.kill_table`"
    )


def test_every_point_has_its_row() -> None:
    assert list(kill_table.POINTS) == failing_worker.POINTS
    assert {"SQLite", "PostgreSQL"} == set(kill_table.load())
