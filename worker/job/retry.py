"""When a failed job is run again: the rules are the SDK's, for the test kit shows them; the rungs are ours."""

from typing import Final

from connectors.sdk.retry import DELAYS_S, MAX_WAIT_S, GiveUp, Retry, backoff_s, decide
from worker.broker.topology import RUNGS

__all__ = ["DELAYS_S", "IN_HAND_S", "MAX_WAIT_S", "GiveUp", "Retry", "backoff_s", "decide", "rung_for"]

#: Rests shorter than this are waited out in hand; the shortest rung would take twice as long.
IN_HAND_S: Final = 0.5


def rung_for(rest_s: float) -> str:
    """Choose the longest rung that does not overshoot, or the shortest there is."""
    fitting = [rung for rung, seconds in RUNGS.items() if seconds <= rest_s]
    return fitting[-1] if fitting else next(iter(RUNGS))
