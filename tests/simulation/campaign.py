"""Many schedules on every core, and what came of them."""

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tests.simulation.loop import StuckError
from tests.simulation.schedules import run_token, token_of

T = TypeVar("T")

#: Schedules that a process takes at once.
BATCH: Final = 50
#: One in so many schedules has the SQL ledger.
SQLITE_SHARE: Final = 10
#: What happened must have happened, or the schedules prove little.
WANTED: Final = ("crashes", "takeovers", "uncertain calls", "stalls", "undos")
#: The same of schedules with a broker.
WANTED_OF_BROKER: Final = (
    "lost confirms",
    "returns",
    "redeliveries",
    "connection deaths",
    "consumer cancels",
    "dead letters",
    "retries",
    "crashes",
    "stalls",
)


@dataclass(slots=True)
class Findings:
    """What a batch of schedules came to."""

    schedules: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    #: The token of each schedule that broke something, and what.
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Findings") -> None:
        """Take another batch in."""
        self.schedules += other.schedules
        self.counts.update(other.counts)
        self.broken.update(other.broken)

    @property
    def missing(self) -> list[str]:
        """What never happened though it should have."""
        wanted = WANTED_OF_BROKER if "deliveries" in self.counts else WANTED
        return [each for each in wanted if not self.counts[each]]

    def table(self) -> str:
        """Return the counts as people read them."""
        rows = [("schedules", self.schedules), ("broken", len(self.broken)), *sorted(self.counts.items())]
        return "\n".join(f"{name:<36}{count:>12,}" for name, count in rows)


def tokens_of(seed: int, schedules: int) -> list[str]:
    """Return the tokens of a campaign."""
    stores = ("sqlite", *("memory",) * (SQLITE_SHARE - 1))
    return [token_of(stores[number % SQLITE_SHARE], seed, number) for number in range(schedules)]


def broker_tokens_of(seed: int, schedules: int) -> list[str]:
    """Return the tokens of a campaign with a broker."""
    return [token_of("broker", seed, number) for number in range(schedules)]


def run_batch(tokens: Iterable[str]) -> Findings:
    """Run some schedules in this process."""
    findings = Findings()
    for token in tokens:
        findings.schedules += 1
        try:
            findings.counts.update(run_token(token).counts)
        except (AssertionError, StuckError) as broken:
            findings.broken[token] = f"{type(broken).__name__}: {broken}"
    return findings


def run_all(tokens: Sequence[str]) -> Findings:
    """Run schedules on every core."""
    batches = [tokens[start : start + BATCH] for start in range(0, len(tokens), BATCH)]
    findings = Findings()
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        for batch in show_progress(pool.imap_unordered(run_batch, batches), len(batches)):
            findings.add(batch)
    return findings


def show_progress(batches: Iterable[T], total: int) -> Iterator[T]:
    """Pass batches on, and show a bar if people are looking."""
    begun = time.monotonic()
    for number, batch in enumerate(batches, 1):
        if sys.stderr.isatty():
            left_s = (time.monotonic() - begun) / number * (total - number)
            bar = "█" * (40 * number // total)
            print(f"\r{bar:<40} {100 * number // total:3} %  {left_s:4.0f} s left", end="", file=sys.stderr)
        yield batch
    if sys.stderr.isatty():
        print(file=sys.stderr)
