"""The bound on calls that undo what earlier calls did; they pass every other gate."""

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from connectors.sdk.http.refresh_tokens import Account

#: Compensations of one account at a time: they pass pauses and breakers, so there must be few of them.
COMPENSATIONS_AT_ONCE: Final = 4
#: Seconds that all calls of one compensation get, unless they ask for others.
COMPENSATION_TIMEOUT_S: Final = 10.0


class CompensationSlots:
    """The compensation slots of each account; they live while a call holds or awaits one."""

    def __init__(self) -> None:
        self._slots: WeakValueDictionary[Account, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, account: Account) -> asyncio.Semaphore:
        """Return the slots of an account."""
        slots = self._slots.get(account)
        if slots is None:
            slots = self._slots[account] = asyncio.Semaphore(COMPENSATIONS_AT_ONCE)
        return slots
