"""One job's slot: waited for, held while its action runs, paused while it waits for vault or ledger."""

import asyncio
from enum import IntEnum, auto
from typing import Protocol

from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.deadline import Deadline


class SlotState(IntEnum):
    """What a job does with its slot. An IntEnum because it is a key, and other enums are hashed in Python."""

    #: It holds none: not asked for so far, its deadline came first, or its job has ended.
    NONE = auto()
    WAITING = auto()
    RUNNING = auto()
    PAUSED = auto()
    #: Given back; only cleaning up or recording is left.
    FINISHING = auto()


class SlotKeeper(Protocol):
    """Grants slots; told of each change."""

    clock: Clock

    @property
    def is_closed(self) -> bool:
        """Whether no new job is started any more."""
        ...

    def wait(self, slot: "JobSlot", *, first: bool) -> None:
        """Grant the slot to a job as soon as it may run."""
        ...

    def may_become(self, slot: "JobSlot", state: SlotState) -> bool:
        """Return whether one more job may be in this state."""
        ...

    def changed(self, slot: "JobSlot", before: SlotState) -> None:
        """Count a slot's new state."""
        ...


class JobSlot:
    """The slot of one job, from its arrival to its settling. Created by the limiter; `end` always comes last."""

    def __init__(self, keeper: SlotKeeper, tenant: str, *, bulk: bool) -> None:
        self.tenant = tenant
        self.bulk = bulk
        self.state = SlotState.NONE
        #: It ran once; a job that did goes on while the worker drains.
        self.was_started = False
        self._keeper = keeper
        self._deadline: Deadline | None = None
        self._granted: asyncio.Future[None] | None = None

    async def take(self, deadline: Deadline) -> bool:
        """Wait for a slot; return False if the deadline comes first, or the worker stops."""
        self._deadline = deadline
        if not self._keeper.is_closed:
            await self._wait(deadline, first=False)
        return self.state is SlotState.RUNNING

    def pause(self) -> bool:
        """Allow another job to run while this one waits; return False if too many are paused already."""
        if self.state is not SlotState.RUNNING:
            return True
        if not self._keeper.may_become(self, SlotState.PAUSED):
            return False
        self.become(SlotState.PAUSED)
        return True

    async def resume(self) -> None:
        """Hold a slot again before the job goes on; its deadline ends the waiting."""
        if self.state is SlotState.PAUSED and self._deadline is not None:
            await self._wait(self._deadline, first=True)

    def release(self) -> None:
        """Allow another job to run for good, unless too many are finishing already: then it keeps its slot."""
        if self.state is SlotState.RUNNING and not self._keeper.may_become(self, SlotState.FINISHING):
            return
        if self.state in {SlotState.RUNNING, SlotState.PAUSED, SlotState.WAITING}:
            self.become(SlotState.FINISHING)

    def end(self) -> None:
        """Hold and wait for nothing any more."""
        self.become(SlotState.NONE)

    def become(self, state: SlotState) -> None:
        """Change the state, and wake the job if it waits for a slot."""
        before, self.state = self.state, state
        self.was_started = self.was_started or state is SlotState.RUNNING
        if before is not state:
            self._keeper.changed(self, before)
        if self._granted is not None and state is not SlotState.WAITING and not self._granted.done():
            self._granted.set_result(None)

    async def _wait(self, deadline: Deadline, *, first: bool) -> None:
        self.become(SlotState.WAITING)
        self._keeper.wait(self, first=first)
        if self.state is not SlotState.WAITING:
            return
        self._granted = asyncio.get_running_loop().create_future()
        try:
            while self.state is SlotState.WAITING and not deadline.has_passed:
                await self._keeper.clock.wait({self._granted}, deadline.remaining_s())
        finally:
            if self.state is SlotState.WAITING:
                self.become(SlotState.NONE)
