"""Which process runs a call: one of a connector's, started by its first call and replaced when it hangs or dies."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from connectors.sdk.errors import Sent, Timeout, Unavailable
from connectors.sdk.isolation.isolated_process import IsolatedProcess
from connectors.sdk.isolation.plan import Plan
from connectors.sdk.isolation.reports import Callbacks
from connectors.sdk.runtime.invocation import Invocation

#: Processes of one connector: one that takes calls, and others whose calls hang and still run out.
MOST_PROCESSES: Final = 3
#: Seconds until a connector whose process could not start is tried again, doubled each time.
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0

#: Told a connector and how many processes it has now.
ProcessesCallback = Callable[[str, int], None]


class Processes:
    """The processes of all isolated connectors of this worker; an `IsolatedHost`.

    Args:
        plans: by connector; what has none cannot run here.
        on_change: called with the number of a connector's processes.
        on_end: called with a connector each time a process of it has ended before the worker.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        callbacks: Callbacks,
        *,
        on_change: ProcessesCallback = lambda connector, count: None,
        on_end: Callable[[str], None] = lambda connector: None,
    ) -> None:
        self._on_change = on_change
        self._on_end = on_end
        self._of = {name: _Connector(plan, callbacks) for name, plan in plans.items()}
        self._watching: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def invoke(self, invocation: Invocation) -> Any:
        """Run a function in a process of its connector; see `IsolatedHost.invoke`."""
        connector = self._of[invocation.call.job.connector]
        while (process := connector.usable()) is None:
            if connector.starting is None or connector.starting.done():
                connector.starting = asyncio.create_task(self._start(connector))
                connector.starting.add_done_callback(_retrieve_exception)
            # A call whose time is over leaves the start alone: the next one needs it, too.
            try:
                await asyncio.shield(connector.starting)
            except asyncio.CancelledError:
                name = invocation.call.name
                raise Timeout(f"the process of {name} did not start in its time", sent=Sent.NO) from None
        return await process.invoke(invocation)

    async def close(self) -> None:
        """Kill every process."""
        self._is_closed = True
        starting = [each.starting for each in self._of.values() if each.starting is not None]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        await asyncio.gather(*(process.close() for each in self._of.values() for process in each.processes))
        await asyncio.gather(*self._watching, return_exceptions=True)

    def pids(self, connector: str) -> list[int]:
        """Return the process ids of a connector, the oldest first."""
        return [process.pid for process in self._of[connector].processes if process.pid is not None]

    async def _start(self, connector: "_Connector") -> None:
        name = connector.plan.connector
        if self._is_closed:
            raise Unavailable("the worker ends", sent=Sent.NO)
        if (wait_s := connector.retry_at - time.monotonic()) > 0:
            raise Unavailable(
                f"the process of {name} failed to start: {connector.fault}",
                retry_after_s=round(wait_s, 3),
                sent=Sent.NO,
            )
        if len(connector.processes) >= MOST_PROCESSES:
            oldest = connector.processes[0]
            oldest.kill("its calls hang, and there are as many processes as may be")
            await oldest.ended.wait()
        process = IsolatedProcess(connector.plan, connector.callbacks)
        connector.processes.append(process)
        self._on_change(name, len(connector.processes))
        try:
            await process.start()
        except BaseException as error:
            if isinstance(error, Unavailable):
                connector.failed(error.message)
            connector.processes.remove(process)
            self._on_change(name, len(connector.processes))
            raise
        connector.started()
        watching = asyncio.create_task(self._watch(connector, process))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _watch(self, connector: "_Connector", process: IsolatedProcess) -> None:
        await process.ended.wait()
        connector.processes.remove(process)
        self._on_change(connector.plan.connector, len(connector.processes))
        if not self._is_closed:
            self._on_end(connector.plan.connector)


class _Connector:
    """The processes of one connector."""

    def __init__(self, plan: Plan, callbacks: Callbacks) -> None:
        self.plan = plan
        self.callbacks = callbacks
        self.processes: list[IsolatedProcess] = []
        #: The start that is under way.
        self.starting: asyncio.Task[None] | None = None
        self.retry_at = 0.0
        self.fault = ""
        self._failures = 0

    def usable(self) -> IsolatedProcess | None:
        """Return the newest process that takes calls."""
        return next((each for each in reversed(self.processes) if each.is_usable), None)

    def started(self) -> None:
        """Take note that a process is ready."""
        self._failures, self.retry_at = 0, 0.0

    def failed(self, fault: str) -> None:
        """Start no other for a while."""
        self.fault = fault
        self.retry_at = time.monotonic() + min(RETRY_S * 2**self._failures, RETRY_MAX_S)
        self._failures += 1


def _retrieve_exception(task: "asyncio.Task[None]") -> None:
    """Look at the error of a start that no one may wait for any more."""
    if not task.cancelled():
        task.exception()
