"""Every decision that is left to chance in a schedule, so that a token gives the same schedule again."""

import random
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Choices(Protocol):
    """Where a schedule's decisions come from. The first option is always the calm one."""

    def pick(self, options: Sequence[T], rare: float | None = None) -> T:
        """Return one of the options.

        Args:
            rare: how probable it is that the first is not taken; all are alike if left out.
        """
        ...


class SeededChoices:
    """Decisions from a seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def pick(self, options: Sequence[T], rare: float | None = None) -> T:
        """Pick an option."""
        if rare is None:
            return options[int(self._random.random() * len(options))]
        if self._random.random() >= rare:
            return options[0]
        return options[1 + int(self._random.random() * (len(options) - 1))]


class DeviatingChoices:
    """The calm option everywhere but where it is said otherwise; counts what there was to decide."""

    def __init__(self, deviations: Mapping[int, int]) -> None:
        self._deviations = deviations
        #: How many options each decision had.
        self.widths: list[int] = []

    def pick(self, options: Sequence[T], rare: float | None = None) -> T:
        """Take the option that this decision's number is given, or the first."""
        number = len(self.widths)
        self.widths.append(len(options))
        return options[self._deviations.get(number, 0) % len(options)]
