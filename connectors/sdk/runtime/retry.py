"""What a failed attempt leads to: pure functions, no clock, no I/O."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from connectors.sdk.errors import ConnectorError
from connectors.sdk.runtime.deadline import deadline_exceeded
from connectors.sdk.runtime.outcome import Outcome
from schemas.error import Code

#: Seconds before the second, third, fourth and every later attempt; each is jittered to 50 to 100 %.
DELAYS_S: Final = (1.0, 5.0, 30.0, 120.0)
#: No wait longer than the worker's longest retry queue, six hours: the caller should know now of a quota
#: that is used up for the day.
MAX_WAIT_S: Final = 6 * 3600.0
#: Attempts in all, unless the operator sets another number.
MAX_ATTEMPTS: Final = 5
#: How the names end under which a connector says in `error.data` what it could not undo.
LEFT_BEHIND: Final = "left_behind"


@dataclass(frozen=True, slots=True)
class Retry:
    """Run the job again, not before this instant."""

    not_before: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Answer with the error; no further attempt."""

    #: Whether it was the deadline that ended the attempts, not their number.
    at_deadline: bool = False


def decide(
    code: Code,
    *,
    failures: int,
    max_attempts: int,
    now: datetime,
    deadline: datetime | None,
    retry_after_s: float | None,
    random_fraction: float,
    shortest_s: float = 0.0,
) -> Retry | GiveUp:
    """Decide whether a failed job is run again, and when.

    Args:
        failures: observed ones, this one counted; crashes are not.
        retry_after_s: what the provider asked for; no attempt comes before.
        random_fraction: from 0 to 1, for the jitter.
        shortest_s: seconds until a job that is sent to a retry queue is back at the earliest.
    """
    if not code.facts.retryable or failures >= max_attempts or (retry_after_s or 0.0) > MAX_WAIT_S:
        return GiveUp()
    delay_s = max(backoff_s(failures, random_fraction), retry_after_s or 0.0)
    not_before = now + timedelta(seconds=delay_s)
    if deadline is not None and max(not_before, now + timedelta(seconds=shortest_s)) >= deadline:
        return GiveUp(at_deadline=True)
    return Retry(not_before)


def backoff_s(failures: int, random_fraction: float) -> float:
    """Return the backoff after `failures` failures: 50 to 100 % of its step."""
    step_s = DELAYS_S[min(failures, len(DELAYS_S)) - 1]
    return step_s * (0.5 + 0.5 * random_fraction)


def final_outcome(outcome: Outcome, *, at_deadline: bool) -> Outcome:
    """Return what a job is answered that is not run again; an effect that may be there is never hidden."""
    error = outcome.error
    if error is None or error.code is Code.OUTCOME_UNKNOWN:
        return outcome
    if at_deadline:
        return replace(outcome, error=_out_of_time(error, is_uncertain=outcome.is_uncertain))
    if outcome.is_uncertain:
        error.data = {**(error.data or {}), "outcome": "unknown"}
    return outcome


def _out_of_time(last: ConnectorError, *, is_uncertain: bool) -> ConnectorError:
    # What an earlier request left at the provider is never hidden by the deadline.
    left = {name: value for name, value in (last.data or {}).items() if name.endswith(LEFT_BEHIND)}
    return deadline_exceeded(
        f"no time was left for another attempt before the deadline; the last met {last.code}: {last.message}",
        outcome="unknown" if is_uncertain else "not_started",
        last_code=last.code.value,
        **left,
    )
