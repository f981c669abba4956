"""When a failed job is run again: the rules are the SDK's, for the test kit shows them."""

from typing import Final

from connectors.sdk.retry import DELAYS_S, MAX_WAIT_S, GiveUp, Retry, backoff_s, decide

__all__ = ["DELAYS_S", "IN_HAND_S", "MAX_WAIT_S", "GiveUp", "Retry", "backoff_s", "decide"]

#: Waits shorter than this are spent in memory; the shortest retry queue would take twice as long.
IN_HAND_S: Final = 0.5
