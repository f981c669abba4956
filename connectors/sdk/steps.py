"""The parts of an action that writes more than once: each is recorded with its result, and skipped by the next run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_jsonable_python

RecordSteps = Callable[[Mapping[str, Any]], Awaitable[None]]


async def forget_steps(steps: Mapping[str, Any]) -> None:
    """Keep nothing: no ledger stands behind this run."""


@dataclass(slots=True)
class Step:
    """One part of an action, as its author sees it inside `async with ctx.step(…)`."""

    #: An earlier run has finished this part; `result` is what it returned.
    is_done: bool = False
    #: JSON types. Set it before the block ends.
    result: Any = None


@dataclass(slots=True)
class Steps:
    """The parts of one run."""

    #: What the finished parts returned, by name.
    results: dict[str, Any] = field(default_factory=dict)
    #: Stores the results; raises if the claim is lost.
    record: RecordSteps = forget_steps
    #: Called when a part is recorded: what it sent is known to have happened.
    on_recorded: Callable[[], None] = lambda: None

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[Step]:
        """Enter one part; it is recorded when the block ends without an error."""
        if name in self.results:
            yield Step(is_done=True, result=self.results[name])
            return
        step = Step()
        yield step
        results = {**self.results, name: to_jsonable_python(step.result)}
        await self.record(results)
        self.results = results
        self.on_recorded()
