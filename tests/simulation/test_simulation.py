"""The core in a simulated world: seeded schedules, those that once broke something, and that both can fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.campaign import run_batch, tokens_of
from tests.simulation.mutants import MUTANTS, apply_edit, judge
from tests.simulation.schedules import SMALL, replay, small_token

pytestmark = pytest.mark.simulation

#: Schedules that broke something once, each with its cause in a line.
TOKENS = [
    line.split("  ", 1)
    for line in (Path(__file__).parent / "tokens.txt").read_text().splitlines()
    if not line.startswith("#")
]

#: Mutants that die within few schedules, one for each kind of invariant.
QUICK = (
    "a WRITE is repeated blindly",
    "a later failure erases an uncertain one",
    "an unreachable ledger means not started",
    "an undo does not look",
    "a refused undo erases an uncertain one",
    "an attempt counts twice",
    "the deadline ends no waiting",
    "what ended is kept",
    "memory: a living claim is stolen",
    "sql: writes without a fence",
)


def test_three_hundred_seeded_schedules_hold_every_invariant() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--schedules", "300", "--seed", "1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)

    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout


@pytest.mark.parametrize(("token", "cause"), TOKENS, ids=[token for token, _ in TOKENS])
def test_what_was_found_once_stays_fixed(token: str, cause: str) -> None:
    findings = run_batch([token])

    assert {} == findings.broken, cause


def test_a_token_is_the_same_schedule_each_time() -> None:
    for token in (*tokens_of(3, 2), small_token("undone", {12: 1, 40: 2})):
        assert replay(token) == replay(token)


@pytest.mark.parametrize("name", SMALL)
def test_a_calm_schedule_succeeds(name: str) -> None:
    journal, broken = replay(small_token(name, {}))

    assert broken is None
    assert "told: success" in journal


@pytest.mark.parametrize("name", QUICK)
def test_a_core_without_a_guard_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the mutants take minutes: `make mutants`."""
    mutant = next(each for each in MUTANTS if each.name == name)
    for owner, function, old, new in mutant.edits:
        monkeypatch.setattr(owner, function, getattr(owner, function))
        apply_edit(owner, function, old, new)

    assert judge(mutant.store, schedules=1000, seed=1).token


def test_every_mutant_finds_the_code_that_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    for mutant in MUTANTS:
        with monkeypatch.context() as patched:
            for owner, name, old, new in mutant.edits:
                patched.setattr(owner, name, getattr(owner, name))
                apply_edit(owner, name, old, new)
