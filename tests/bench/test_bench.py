"""The bench itself, with tiny numbers and the product alone: it measures, and it finds what was not answered once."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import report, svg
from tests.bench.caller import NotOnce, check_once
from tests.bench.contestants import OURS
from tests.bench.drain import DRAIN
from tests.bench.latency import IDLE
from tests.bench.measure import Measure, Results, Sample, run_all
from tests.bench.session import Session
from worker.dev.rabbitmq import PrivateRabbitMQ

#: 20 jobs at least, whatever is divided.
TINY = 1000


def _run(session: Session, url: str, measures: list[Measure]) -> Results:
    session.admit(OURS, url)
    return run_all(measures, session, 1, lambda _sample: None)


def test_what_is_missing_doubled_or_foreign_is_named() -> None:
    check_once(["a", "b"], ["b", "a"])

    with pytest.raises(NotOnce, match=r"1 missing \(b\)"):
        check_once(["a", "b"], ["a"])
    with pytest.raises(NotOnce, match=r"1 answered more than once \(a\)"):
        check_once(["a"], ["a", "a"])
    with pytest.raises(NotOnce, match=r"1 never sent \(c\)"):
        check_once(["a"], ["a", "c"])


@pytest.mark.integration
async def test_a_tiny_run_measures_the_product(
    rabbitmq: PrivateRabbitMQ, broker_url: str, tmp_path: Path
) -> None:
    session = Session(tmp_path, rabbitmq, [OURS], TINY)

    results = await asyncio.to_thread(_run, session, broker_url, [DRAIN, IDLE])

    assert [] == results.failures
    assert {"drain", "idle"} == {each.measure for each in results.samples}
    assert all(
        value > 0 for each in results.samples if each.measure == "idle" for value in each.values.values()
    )
    assert "Each job was answered exactly once." in report.table([DRAIN, IDLE], results)


@pytest.mark.integration
async def test_a_run_with_a_job_answered_twice_fails(
    rabbitmq: PrivateRabbitMQ, broker_url: str, tmp_path: Path
) -> None:
    doubled = replace(OURS, write=lambda _id, work: OURS.write("one-id", work))
    session = Session(tmp_path, rabbitmq, [doubled], TINY)

    results = await asyncio.to_thread(_run, session, broker_url, [DRAIN])

    assert [] == results.samples
    assert "20 missing" in results.failures[0]
    assert "1 answered more than once (one-id)" in results.failures[0]
    assert "FAILED drain" in report.table([DRAIN], results)


def _found() -> Results:
    values = {"ours": 3000.0, "peer": 1500.0}
    return Results([Sample("drain", "", name, 1, {"jobs/s": value}) for name, value in values.items()])


def test_a_table_has_medians_and_ratios() -> None:
    lines = report.table([DRAIN], _found()).splitlines()

    assert ["jobs/s", "3,000", "1,500", "(2.00)"] == lines[2].split()


def test_samples_are_lines_of_json(tmp_path: Path) -> None:
    for sample in _found().samples:
        report.write_line(tmp_path / "out", sample, 0.25)

    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [3000.0, 1500.0] == [line["values"]["jobs/s"] for line in lines]
    assert 0.25 == lines[0]["load"]


def test_a_plot_is_svg_with_a_bar_for_each_contestant(tmp_path: Path) -> None:
    (file,) = svg.write_plots(tmp_path, [DRAIN], _found())

    picture = ElementTree.fromstring(file.read_text())
    assert 1 + 2 == len(picture.findall("{http://www.w3.org/2000/svg}rect"))
