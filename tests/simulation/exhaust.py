"""All schedules of the small casts that deviate from the calm one at most K times."""

from collections.abc import Iterator

from tests.simulation.campaign import Findings, run_all
from tests.simulation.choices import DeviatingChoices
from tests.simulation.schedules import SMALL, small_token
from tests.simulation.world import run_plan


def exhaust(most: int) -> Findings:
    """Run every schedule with at most so many deviations."""
    findings = Findings()
    for name in SMALL:
        findings.add(run_all(list(_tokens(name, {}, 0, most))))
    return findings


def _tokens(name: str, deviations: dict[int, int], first: int, left: int) -> Iterator[str]:
    """Yield a schedule, and those that deviate from it once more, later on."""
    yield small_token(name, deviations)
    if left == 0:
        return
    for number, width in enumerate(_widths(name, deviations)):
        if number >= first:
            for option in range(1, width):
                yield from _tokens(name, {**deviations, number: option}, number + 1, left - 1)


def _widths(name: str, deviations: dict[int, int]) -> list[int]:
    """Return how many options each decision of a schedule has; one that breaks something ends early."""
    choices = DeviatingChoices(deviations)
    try:
        run_plan(SMALL[name], choices)
    except AssertionError:
        pass
    return choices.widths
