"""Processor, publishers and queue consumers on a simulated broker: seeded schedules, and that they can fail."""

import subprocess
import sys

import pytest

from tests.simulation.campaign import broker_tokens_of
from tests.simulation.job_mutants import JOB_MUTANTS
from tests.simulation.mutants import apply_edit, judge
from tests.simulation.schedules import replay

pytestmark = pytest.mark.simulation


def test_seeded_schedules_with_a_broker_hold_every_invariant() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--broker", "--schedules", "150", "--seed", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)

    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout


def test_a_token_with_a_broker_is_the_same_schedule_each_time() -> None:
    for token in broker_tokens_of(3, 3):
        assert replay(token) == replay(token)


@pytest.mark.parametrize(
    ("name", "invariant"),
    [
        ("acked before it is published", "no ack before its answer"),
        ("a place is never left", "bounded memory"),
        ("a failure that is retried is answered, too", "copies of an answer agree"),
    ],
)
def test_a_processor_without_a_guard_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, invariant: str
) -> None:
    """The rest of the mutants take minutes: `python -m tests.simulation --broker --mutants`."""
    mutant = next(each for each in JOB_MUTANTS if each.name == name)
    for owner, function, old, new in mutant.edits:
        monkeypatch.setattr(owner, function, getattr(owner, function))
        apply_edit(owner, function, old, new)

    assert judge(mutant.store, 100, 1).invariant == invariant


def test_every_job_mutant_finds_the_code_that_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for mutant in JOB_MUTANTS:
        with monkeypatch.context() as patched:
            for owner, name, old, new in mutant.edits:
                patched.setattr(owner, name, getattr(owner, name))
                apply_edit(owner, name, old, new)
