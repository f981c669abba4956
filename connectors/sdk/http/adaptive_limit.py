"""How many calls one account may have in flight at one host: additive increase, multiplicative decrease (AIMD).

A limit of its own for each tenant, connector, credential and host, so that what one account's calls run into lowers
no other's. The signal is a call that failed: a timeout, a broken connection, a 5xx, a 429. Latency as such is none: a
report takes seconds where a lookup takes milliseconds, at the same host. Source: the loss-based limit of Netflix'
concurrency-limits, https://github.com/Netflix/concurrency-limits.
"""

from typing import Final

#: What a failure leaves of the limit.
DECREASE: Final = 0.7
#: A limit never falls below: calls must go on, to find out when the host is well again.
LEAST: Final = 4


class AdaptiveLimit:
    """The limit of one account at one host.

    Args:
        most: where it starts, and never above.
    """

    __slots__ = ("_least", "_lowered_at", "_most", "_value", "in_flight", "waiting")

    def __init__(self, most: int) -> None:
        self._most = most
        self._least = min(LEAST, most)
        self._value = float(most)
        self._lowered_at = float("-inf")
        #: Calls now.
        self.in_flight = 0
        self.waiting = 0

    @property
    def value(self) -> int:
        """Calls that may be in flight now."""
        return int(self._value)

    @property
    def has_room(self) -> bool:
        """Whether one more call may leave."""
        return self.in_flight < self.value

    def raise_(self) -> None:
        """Learn from a call that succeeded: one more for as many successes as the limit, if it is being used."""
        if self.in_flight * 2 >= self._value:
            self._value = min(float(self._most), self._value + 1 / self._value)

    def lower(self, started_at: float, now: float) -> None:
        """Learn from a call that failed; calls that were in flight together count once.

        Args:
            started_at: when that call left.
        """
        if started_at >= self._lowered_at:
            self._value = max(float(self._least), self._value * DECREASE)
            self._lowered_at = now
