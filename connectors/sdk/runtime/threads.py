"""Threads for synchronous functions: bounded per connector, and honest about calls that cannot be stopped."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

#: Threads for synchronous actions, per connector.
THREADS: Final = 32


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
    """One bounded pool per connector: a connector that hangs its threads starves itself alone."""

    def __init__(self) -> None:
        self._pools: dict[str, ThreadPoolExecutor] = {}

    def start(self, connector: str, function: Callable[..., Any], *args: Any) -> ThreadCall:
        """Run a function in a thread of its connector's."""
        if connector not in self._pools:
            self._pools[connector] = ThreadPoolExecutor(THREADS, thread_name_prefix=f"{connector}-action")
        return ThreadCall(self._pools[connector].submit(function, *args))

    def close(self) -> None:
        """Close the pools; a thread that still blocks is not waited for."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
