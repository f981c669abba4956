"""What a measure is, and how measures are run: contestants in turns, round after round."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.bench.caller import NotOnce
from tests.bench.contestants import Contestant
from tests.bench.session import Session

#: By name with its unit: "jobs/s".
Values = dict[str, float]

#: Values of which more is better; of all others less is.
MORE_IS_BETTER: Final = {"jobs/s", "of ideal"}


@dataclass(frozen=True)
class Measure:
    """Something that is measured of each contestant, in one or more cases."""

    name: str
    what: str
    run: Callable[[Session, Contestant, Any], Values]
    #: What `run` gets, by the name that the table shows.
    cases: Mapping[str, Any] = field(default_factory=lambda: {"": None})
    #: The contestants that it is measured of; none named: all.
    only: Sequence[str] = ()
    rounds: int | None = None


@dataclass(frozen=True)
class Sample:
    """One contestant's values of one round."""

    measure: str
    case: str
    contestant: str
    round: int
    values: Values


@dataclass
class Results:
    """All samples so far, and what went wrong."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, measure: str, case: str, contestant: str, value: str) -> float | None:
        """Return the median over the rounds; None if nothing was measured."""
        found = [
            sample.values[value]
            for sample in self.samples
            if (sample.measure, sample.case, sample.contestant) == (measure, case, contestant)
            and value in sample.values
        ]
        return statistics.median(found) if found else None


def run_all(
    measures: Sequence[Measure], session: Session, rounds: int, on_sample: Callable[[Sample], None]
) -> Results:
    """Run measures, each case in rounds, and in each round one contestant after the other."""
    results = Results()
    steps = [
        (measure, case, number, contestant)
        for measure in measures
        for case in measure.cases
        for number in range(1, (measure.rounds or rounds) + 1)
        for contestant in session.contestants
        if not measure.only or contestant.name in measure.only
    ]
    for done, (measure, case, number, contestant) in enumerate(steps):
        show_progress(done, len(steps), f"{measure.name} {case} {contestant.name}, round {number}")
        try:
            values = measure.run(session, contestant, measure.cases[case])
        except NotOnce as failure:
            results.failures.append(f"{measure.name} {case} {contestant.name}, round {number}: {failure}")
            with session.caller(contestant) as caller:
                caller.purge()
            continue
        sample = Sample(measure.name, case, contestant.name, number, values)
        results.samples.append(sample)
        on_sample(sample)
    show_progress(len(steps), len(steps), "done")
    return results


def show_progress(done: int, total: int, what: str) -> None:
    """Show a bar on a terminal; write a line elsewhere."""
    if not sys.stderr.isatty():
        print(f"{done}/{total} {what}", file=sys.stderr, flush=True)
        return
    filled = 30 * done // max(1, total)
    end = "\n" if done == total else ""
    line = f"\r\033[K[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {what}"
    print(line, end=end, file=sys.stderr, flush=True)
