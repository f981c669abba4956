"""The README names a test for each fault of the list, or why there is none; and each test it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = (TESTS / "README.md").read_text()
ROWS = [line for line in README.splitlines() if re.match(r"\| [FB]\d\d", line)]


def test_every_fault_that_can_run_on_one_machine_has_a_row() -> None:
    listed = {int(number) for row in ROWS for number in re.findall(r"\bF(\d\d)\b", row.split("|")[1])}

    assert {*range(1, 54), *range(57, 60), *range(68, 74)} <= listed


def test_every_row_names_a_test_or_the_reason_why_not() -> None:
    assert [] == [row for row in ROWS if "::test_" not in row and "Not run" not in row]


def test_every_test_named_is_there() -> None:
    named = re.findall(r"`([a-z_/]+\.py)(?:::(test_\w+))?`", README)

    absent = [
        f"{path}::{name}"
        for path, name in named
        if not (TESTS / path).exists() or (name and f"def {name}(" not in (TESTS / path).read_text())
    ]
    assert [] == absent
    assert len(named) > 60
