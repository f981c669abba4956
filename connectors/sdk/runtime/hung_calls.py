"""Calls that go on though they were given up: they cannot be stopped, so they are counted and named."""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import Any

#: Told a connector and how many of its calls hang now.
HungCallback = Callable[[str, int], None]


def ignore_hung(connector: str, calls: int) -> None:
    """Report to no one."""


class HungCalls:
    """Counts the hung calls of each connector: threads that block, and tasks that ignore their cancellation.

    Args:
        most: of one connector, before it may be short of threads.
    """

    def __init__(self, *, most: int, on_change: HungCallback = ignore_hung) -> None:
        self._most = most
        self._on_change = on_change
        #: By connector, then by action.
        self._calls: dict[str, Counter[str]] = {}
        self._effects: Counter[Hashable] = Counter()

    def add(self, connector: str, action: str, ended: "asyncio.Future[Any]") -> None:
        """Count a call as hung until it ends."""
        self._change(connector, action, 1)
        ended.add_done_callback(lambda _: self._change(connector, action, -1))

    def add_effect(self, identity: Hashable, ended: "asyncio.Future[Any]") -> None:
        """Take note that a hung call may have its effect until it ends."""
        self._effects[identity] += 1
        ended.add_done_callback(lambda _: self._end_effect(identity))

    def may_have_effect(self, identity: Hashable) -> bool:
        """Return whether a hung call under this key may still have its effect."""
        return identity in self._effects

    @property
    def by_action(self) -> Mapping[str, int]:
        """How many calls of each action hang, by the action as people write it."""
        return {
            f"{connector}.{action}": count
            for connector, actions in self._calls.items()
            for action, count in actions.items()
        }

    @property
    def fault(self) -> str | None:
        """Why a connector can no longer be counted on; None if all can."""
        faults = [
            f"{actions.total()} calls of {connector} hang ({', '.join(sorted(actions))})"
            for connector, actions in self._calls.items()
            if actions.total() >= self._most
        ]
        return f"{'; '.join(faults)}; restart the worker" if faults else None

    def _end_effect(self, identity: Hashable) -> None:
        self._effects[identity] -= 1
        if self._effects[identity] <= 0:
            del self._effects[identity]

    def _change(self, connector: str, action: str, change: int) -> None:
        actions = self._calls.setdefault(connector, Counter())
        actions[action] += change
        if actions[action] <= 0:
            del actions[action]
        self._on_change(connector, actions.total())
        if not actions:
            del self._calls[connector]
