"""What the callers heard, held against the provider's journal."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tests.duel.callers import Said
from tests.duel.plan import Plan


@dataclass(frozen=True)
class Caller:
    """What one caller heard within its patience, and what it knew in the end."""

    reference: str
    heard: Said | None
    after_s: float
    last: Said | None


@dataclass(frozen=True)
class Tally:
    """One contestant's bookings and answers."""

    plan: Plan
    booked: Counter[str]
    callers: tuple[Caller, ...]

    @classmethod
    def read(cls, plan: Plan, journal: str, heard: str) -> "Tally":
        """Read what provider and callers wrote."""
        callers = {each["reference"]: each for each in _lines(heard)}
        return cls(
            plan,
            Counter(each["reference"] for each in _lines(journal) if each["event"] == "booked"),
            tuple(
                Caller(each["reference"], _said(each["heard"]), each["after_s"], _said(each["last"]))
                for each in (callers[reference] for reference in plan.references)
            ),
        )

    @property
    def doubled(self) -> list[str]:
        """Booked more than once."""
        return [each for each in self.plan.references if self.booked[each] > 1]

    @property
    def lost(self) -> list[str]:
        """Not booked, and the caller heard nothing."""
        return [each.reference for each in self.callers if not self.booked[each.reference] and not each.last]

    @property
    def told_wrongly(self) -> list[str]:
        """Said to be booked, and is not; or said to have failed, and is booked."""
        return [each.reference for each in self.callers if {each.heard, each.last} & {self._untrue(each)}]

    @property
    def silent(self) -> list[str]:
        """Callers that heard nothing within their patience."""
        return [
            each.reference for each in self.callers if each.heard is None or each.after_s > self.plan.line_s
        ]

    @property
    def unknown(self) -> list[str]:
        """Callers that heard in time that it cannot be said yet."""
        return [each.reference for each in self.callers if each.heard is Said.UNKNOWN]

    @property
    def faults(self) -> tuple[int, int, int, int]:
        """How many are doubled, lost, told wrongly, silent."""
        return len(self.doubled), len(self.lost), len(self.told_wrongly), len(self.silent)

    def _untrue(self, caller: Caller) -> Said:
        return Said.FAILED if self.booked[caller.reference] else Said.BOOKED


def _said(text: str | None) -> Said | None:
    return None if text is None else Said(text)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
