"""Threads for synchronous functions: bounded per connector, and honest about calls that cannot be stopped."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

#: Synchronous actions of one connector that run at once, unless the worker sets another number.
THREADS: Final = 32
#: Times as many threads as run at once: beside them there is room for writes past their deadline, and twice for
#: calls that hang. They are started as they are needed.
HEADROOM: Final = 4


class ThreadCall:
    """One synchronous call in a thread: it can be given up, but not stopped once it runs."""

    def __init__(self, call: "Future[Any]") -> None:
        self._call = call
        self._ended = asyncio.wrap_future(call)

    async def result(self) -> Any:
        """Wait for the function's result; cancelling the wait leaves the thread alone."""
        return await asyncio.shield(self._ended)

    def give_up(self) -> "asyncio.Future[Any] | None":
        """Keep the function from starting; return what ends with it if it runs already."""
        if self._call.done() or self._call.cancel():
            return None
        return self._ended

    @property
    def never_started(self) -> bool:
        """Whether the function was given up before a thread took it."""
        return self._call.cancelled()


class Threads:
    """One bounded pool per connector: a connector that hangs its threads starves itself alone, and late.

    Args:
        at_once: calls of one connector that run at once; threads that hang are replaced up to four times as many.
    """

    def __init__(self, at_once: int = THREADS) -> None:
        self.at_once = at_once
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def start(self, connector: str, function: Callable[..., Any], *args: Any) -> ThreadCall:
        """Run a function in a thread of its connector's."""
        if connector not in self._pools:
            self._pools[connector] = ThreadPoolExecutor(
                self.at_once * HEADROOM, thread_name_prefix=f"{connector}-action"
            )
        return ThreadCall(self._pools[connector].submit(function, *args))

    def close(self) -> None:
        """Close the pools; a thread that still blocks is not waited for."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
