"""The poison queue: what the broker dead-lettered by itself, and why."""

from collections import Counter
from typing import Any, Final

from worker.broker import Connection

#: Messages looked at; more are counted as not looked at.
MOST: Final = 1000
#: Reasons of RabbitMQ, as a person reads them.
_REASONS: Final = {
    "expired": "expired before a worker took them (the publisher's `expiration`, or a TTL of a policy)",
    "delivery_limit": "that no worker settled in 21 deliveries",
    "maxlen": "from a queue that was full (a policy's max-length)",
    "rejected": "that were rejected",
}


async def count_poison(connection: Connection, queue: str) -> dict[str, int]:
    """Return how many messages are in the poison queue, by the reason why; empty if there are none."""
    counted = await connection.count(queue)
    if counted is None or counted[0] == 0:
        return {}
    found: Counter[str] = Counter()
    browser = await connection.browser(queue)
    try:
        for _ in range(min(counted[0], MOST)):
            delivery = await browser.next()
            if delivery is None:
                break
            found[_reason(delivery.properties.headers.get("x-death"))] += 1
    finally:
        await browser.close()
    if counted[0] > MOST:
        found["that were not looked at"] = counted[0] - MOST
    return dict(found)


def _reason(deaths: Any) -> str:
    """Return why a message was dead-lettered last; RabbitMQ writes the newest death first."""
    death = deaths[0] if isinstance(deaths, list) and deaths else None
    reason = death.get("reason") if isinstance(death, dict) else None
    return _REASONS.get(str(reason), _REASONS["delivery_limit"])
