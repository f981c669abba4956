"""What was found: a table with ratios, and a line of JSON for each sample."""

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.bench.contestants import OURS
from tests.bench.measure import Measure, Results, Sample

#: Widths of the columns.
LABEL: Final = 30
COLUMN: Final = 18


def write_line(file: Path, sample: Sample, load: float) -> None:
    """Append a sample to a file of JSON lines, with the time and the load average."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(sample), "load": round(load, 2)}
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def table(measures: Sequence[Measure], results: Results) -> str:
    """Return a table of medians; in brackets, how many times a peer's value ours is."""
    lines: list[str] = []
    for measure in measures:
        names = _contestants(measure, results)
        if not names:
            continue
        lines += [
            "",
            f"{measure.name}: {measure.what}",
            " " * LABEL + "".join(f"{n:>{COLUMN}}" for n in names),
        ]
        for case in measure.cases:
            for value in _values(measure, case, results):
                label = f"  {case} {value}" if case else f"  {value}"
                cells = [_cell(results, measure.name, case, name, value) for name in names]
                lines.append(f"{label:<{LABEL}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    lines += ["", *(f"FAILED {failure}" for failure in results.failures)]
    if not results.failures:
        lines.append("Each job was answered exactly once.")
    return "\n".join(lines[1:])


def conditions(before: float, after: float, versions: str) -> str:
    """Return what the numbers were measured on, and what else ran."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, {platform.machine()}; "
        f"load average {before:.1f} before, {after:.1f} after\n{versions}"
    )


def _contestants(measure: Measure, results: Results) -> list[str]:
    return list(dict.fromkeys(each.contestant for each in results.samples if each.measure == measure.name))


def _values(measure: Measure, case: str, results: Results) -> list[str]:
    found = [each for each in results.samples if (each.measure, each.case) == (measure.name, case)]
    return list(dict.fromkeys(value for each in found for value in each.values))


def _cell(results: Results, measure: str, case: str, name: str, value: str) -> str:
    mine = results.median(measure, case, OURS.name, value)
    theirs = results.median(measure, case, name, value)
    if theirs is None:
        return "-"
    said = f"{theirs:,.0f}" if theirs >= 100 else f"{theirs:.2f}"
    return said if name == OURS.name or mine is None or theirs == 0 else f"{said} ({mine / theirs:.2f})"
