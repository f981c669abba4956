"""The parts of an action that writes more than once: each is recorded with its result, and skipped by the next run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_jsonable_python

RecordSteps = Callable[[Mapping[str, Any]], Awaitable[None]]


async def forget_steps(steps: Mapping[str, Any]) -> None:
    """Keep nothing: no ledger stands behind this run."""


@dataclass(slots=True, eq=False)
class Step:
    """One part of an action, as its author sees it inside `async with ctx.step(…)`."""

    #: An earlier run has finished this part; `result` is what it returned.
    is_done: bool = False
    #: JSON types. Set it before the block ends.
    result: Any = None


#: The part that this task is in; tasks that it starts are in it, too.
CURRENT_STEP: Final[ContextVar[Step | None]] = ContextVar("current_step", default=None)


@dataclass(slots=True)
class Steps:
    """The parts of one run."""

    #: What the finished parts returned, by name.
    results: dict[str, Any] = field(default_factory=dict)
    #: Stores the results; raises if the claim is lost.
    record: RecordSteps = forget_steps
    #: Called once a part is recorded: what it sent is known to have happened.
    on_recorded: Callable[[Step], None] = lambda step: None
    #: Parts may run at once; each record holds all before it.
    _recording: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Step]:
        """Enter one part; it is recorded when the block ends without an error."""
        if name in self.results:
            yield Step(is_done=True, result=self.results[name])
            return
        step = Step()
        outer = CURRENT_STEP.get()
        CURRENT_STEP.set(step)
        try:
            yield step
        finally:
            CURRENT_STEP.set(outer)
        async with self._recording:
            results = {**self.results, name: to_jsonable_python(step.result)}
            await self.record(results)
            self.results = results
        self.on_recorded(step)
