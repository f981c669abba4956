"""What a job is answered from the ledger alone, and what it is answered at its deadline."""

from typing import assert_never

from connectors.sdk.errors import Conflict, ConnectorError, OutcomeUnknown
from connectors.sdk.runtime.call import Call
from connectors.sdk.runtime.deadline import deadline_exceeded
from connectors.sdk.runtime.ledger import Done, InProgress, Mismatch, Undone, Unknown
from connectors.sdk.runtime.outcome import Outcome, Snooze
from schemas.error import Code


def outcome_of(known: Done | InProgress | Unknown | Undone | Mismatch, call: Call) -> Outcome:
    """Return the answer to a job whose key is known.

    Raises:
        Snooze: another worker is at it.
    """
    attempts = call.attempt.attempts
    match known:
        case Done(result, attempts):
            return Outcome(data=result, attempts=attempts, replayed=True)
        case InProgress(lease_s):
            raise Snooze("another worker is running this job", at_most_s=lease_s)
        case Unknown(attempts):
            error: ConnectorError = OutcomeUnknown(
                f"an earlier run under the key {call.job.key!r} may or may not have happened; "
                "`connectors dead resolve` settles it"
            )
        case Undone():
            error = Conflict(
                f"the effect of the key {call.job.key!r} was undone; use a new key to run it again",
                data={"outcome": "undone"},
            )
        case Mismatch():
            error = ConnectorError(
                f"the key {call.job.key!r} was used before with other params or another credential",
                code=Code.IDEMPOTENCY_CONFLICT,
            )
        case _:
            assert_never(known)
    return Outcome(error=error, attempts=attempts)


def outcome_past_deadline(known: Done | InProgress | Unknown | Undone | Mismatch, call: Call) -> Outcome:
    """Return the answer to a job that came after its deadline and whose key is known."""
    if isinstance(known, InProgress):  # the worker that holds it may send at any moment
        error = late(call, is_uncertain=True)
        return Outcome(error=error, attempts=call.attempt.attempts, is_uncertain=True)
    return outcome_of(known, call)


def late(call: Call, *, is_uncertain: bool) -> ConnectorError:
    """Create the error of a job whose deadline came before its answer."""
    return deadline_exceeded(
        f"the deadline {call.attempt.deadline} came before the answer",
        outcome="unknown" if is_uncertain else "not_started",
    )
