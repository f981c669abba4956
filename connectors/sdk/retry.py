"""What becomes of a failed attempt: pure functions, no clock, no I/O. The worker and the test kit ask here."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from schemas.error import Code

#: Seconds before the second, third, fourth and every later try; each is drawn between half and whole.
DELAYS_S: Final = (1.0, 5.0, 30.0, 120.0)
#: No wait longer than the longest of the worker's rungs: a quota that is used up for the day is the caller's to
#: know now.
MAX_WAIT_S: Final = 6 * 3600.0
#: Tries in all, unless the operator sets another number.
MAX_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the job again, not before this instant."""

    not_before: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer with the error; no further try."""

    #: Whether it was the deadline that ended the tries, not their number.
    at_deadline: bool = False


def decide(
    code: Code,
    *,
    failures: int,
    max_attempts: int,
    now: datetime,
    deadline: datetime | None,
    retry_after_s: float | None,
    chance: float,
) -> Retry | GiveUp:
    """Decide whether a failed job is run again, and when.

    Args:
        failures: observed ones, this one counted; crashes are not.
        retry_after_s: what the provider asked for; no try comes before.
        chance: a random number from 0 to 1.
    """
    if not code.facts.retryable or failures >= max_attempts or (retry_after_s or 0.0) > MAX_WAIT_S:
        return GiveUp()
    delay_s = max(backoff_s(failures, chance), retry_after_s or 0.0)
    not_before = now + timedelta(seconds=delay_s)
    if deadline is not None and not_before >= deadline:
        return GiveUp(at_deadline=True)
    return Retry(not_before)


def backoff_s(failures: int, chance: float) -> float:
    """Draw the delay after so many failures, between half and whole of its step."""
    step_s = DELAYS_S[min(failures, len(DELAYS_S)) - 1]
    return step_s * (0.5 + 0.5 * chance)
