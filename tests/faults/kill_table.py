"""The table of tests/README.md: what came of a job whose worker was killed at each point.

`python -m tests.faults.kill_table` runs the tests, writes down what they saw, and renders the table from
it. The tests hold each later run to what was written down; another holds the README to it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

RECORD: Final = Path(__file__).with_name("kill_points.json")
README: Final = Path(__file__).parents[1] / "README.md"
BEGIN: Final = "<!-- kill table: written by `python -m tests.faults.kill_table` -->\n"
END: Final = "<!-- end of the kill table -->\n"
#: Where a run that writes the record leaves what it saw.
FOLDER: Final = "KILL_TABLE_FOLDER"

POINTS: Final = {
    "K0": "received",
    "K1": "validated",
    "K2": "claimed in the ledger",
    "K3": "secret read",
    "K4": "about to call",
    "K5": "processed by the provider",
    "K6": "answered, not recorded",
    "K7": "recorded, not replied",
    "K8": "replied, not confirmed",
    "K9": "confirmed, not acked",
    "K10": "acked",
}
ACTIONS: Final = {"book": "KEYED", "jot": "WRITE with reconcile", "scribble": "WRITE"}

Record = dict[str, dict[str, dict[str, str]]]


def recorded(database: str, action: str, seen: dict[str, str]) -> dict[str, str]:
    """Give what is on record, or put this run on record where that was asked for."""
    if folder := os.environ.get(FOLDER):
        Path(folder, f"{database} {action}").write_text(json.dumps(seen))
        return seen
    return load()[database][action]


def load() -> Record:
    """Read the record."""
    record: Record = json.loads(RECORD.read_text())
    return record


def render(record: Record) -> str:
    """Write the table."""
    lines = [f"| killed when | {' | '.join(ACTIONS.values())} |", "|---|" + "---|" * len(ACTIONS)]
    for point, what in POINTS.items():
        cells = []
        for action in ACTIONS:
            by_database = {database: record[database][action][point] for database in record}
            same = len(set(by_database.values())) == 1
            cells.append(
                next(iter(by_database.values()))
                if same
                else "; ".join(f"{database}: {seen}" for database, seen in by_database.items())
            )
        lines.append(f"| {point} {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def in_readme() -> str:
    """Read the table that the README shows."""
    return README.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> int:
    """Run, record, render."""
    with tempfile.TemporaryDirectory() as folder:
        tests = str(Path(__file__).with_name("test_kill_points.py"))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", tests]
        if code := subprocess.run(command, env={**os.environ, FOLDER: folder}, check=False).returncode:
            return code
        record: Record = {}
        for path in sorted(Path(folder).iterdir(), reverse=True):
            database, _, action = path.name.partition(" ")
            record.setdefault(database, {})[action] = json.loads(path.read_text())
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(before + BEGIN + render(record) + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
