"""Bars of one value, a picture for each: SVG, written by hand."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from tests.bench.measure import MORE_IS_BETTER, Measure, Results

WIDTH: Final = 640
BAR: Final = 22
LABEL: Final = 220


def write_plots(folder: Path, measures: Sequence[Measure], results: Results) -> list[Path]:
    """Write a picture for each value of each measure; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for measure in measures:
        found = [each for each in results.samples if each.measure == measure.name]
        for value in dict.fromkeys(value for each in found for value in each.values):
            bars = [
                (f"{case} {name}".strip(), median)
                for case in measure.cases
                for name in dict.fromkeys(each.contestant for each in found)
                if (median := results.median(measure.name, case, name, value)) is not None
            ]
            better = "more" if value in MORE_IS_BETTER else "less"
            file = folder / f"{measure.name}-{_file_name(value)}.svg"
            file.write_text(plot(f"{measure.name}: {value} ({better} is better)", bars), encoding="utf-8")
            written.append(file)
    return written


def plot(title: str, bars: Sequence[tuple[str, float]]) -> str:
    """Return a picture with a bar for each label, the longest as wide as there is room."""
    most = max((amount for _, amount in bars), default=0.0) or 1.0
    height = BAR * len(bars) + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (label, amount) in enumerate(bars):
        y = 34 + BAR * number
        width = (WIDTH - LABEL - 90) * max(0.0, amount) / most
        color = "#2a6fbb" if "ours" in label else "#b9c4d0"
        lines += [
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 5}" fill="{color}"/>',
            f'<text x="{LABEL + width + 6:.1f}" y="{y + 13}">{amount:,.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])


def _file_name(value: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in value.lower())
