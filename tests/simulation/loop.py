"""An event loop whose time is simulated and whose processes take turns as the choices say.

A `Host` is a process: what it starts inherits it by a context variable. Within a host callbacks run in the order in
which they became ready, as asyncio promises; between hosts any order is possible. A host that stands still runs
nothing until it goes on, with its timers overdue; one that is killed never runs anything again, no clean-up either.
"""

import asyncio
import gc
import heapq
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

from tests.simulation.choices import Choices

T = TypeVar("T")

#: Steps after which a schedule is taken for one that never ends.
MAX_STEPS: Final = 200_000

_HOST: "ContextVar[Host]" = ContextVar("host")


class StuckError(Exception):
    """Nothing will ever happen again, or too much does."""


class Host:
    """One process: it runs, stands still or is dead."""

    def __init__(self, loop: "SimulatedLoop", name: str, *, is_mortal: bool = False) -> None:
        self.loop = loop
        self.name = name
        #: Whether it may be killed or stopped.
        self.is_mortal = is_mortal
        self.is_alive = True
        self.stalled_until = 0.0
        #: Seconds in which it stood still, in all.
        self.stalled_s = 0.0
        #: When it was told that the call of a key may leave.
        self.begun_at: dict[str, float] = {}
        #: Steps for which it is at its most delicate.
        self.hot_steps = 0
        #: Seconds by which its wall clock is ahead.
        self.skew_s = 0.0
        #: How often its wall clock jumped: two jumps may cancel each other out.
        self.jumps = 0
        self.ready: deque[Any] = deque()
        self.died: asyncio.Future[None] = loop.create_future()
        self._context: Context = copy_context()
        self._context.run(_HOST.set, self)
        loop.hosts.append(self)

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start something in this process."""
        return self.loop.create_task(work, context=self._context.copy())

    def call_at(self, when: float, callback: Callable[[], object]) -> None:
        """Have something called in this process; calls for the same instant come in any order."""
        self.loop.call_at(when, callback, context=self._context.copy())

    def kill(self) -> None:
        """Kill -9: nothing of it runs any more."""
        self.is_alive = False
        self.ready.clear()
        if not self.died.done():
            self.died.set_result(None)

    def stall(self, seconds: float) -> None:
        """Let the process stand still (SIGSTOP, a machine asleep)."""
        self.stalled_until = self.loop.time() + seconds
        self.stalled_s += seconds


class SimulatedLoop(asyncio.BaseEventLoop):
    """The scheduler. No selector, no threads, no real time."""

    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self._choices = choices
        self._now = 0.0
        self.steps = 0
        self.hosts: list[Host] = []
        #: Asked before each step of a mortal host; may kill it or stop it.
        self.before_step: Callable[[Host], None] = lambda host: None
        #: What no one looked at: a bug of what runs here.
        self.unseen: list[str] = []
        self._tasks: list[asyncio.Task[Any]] = []
        #: An invariant that does not hold, found where no one would hear of it.
        self.failure: AssertionError | None = None
        #: What happened: when, to whom, what. A replay prints it.
        self.journal: list[tuple[float, str, object]] = []
        self.set_task_factory(self._new_task)
        self.set_exception_handler(lambda _loop, context: self.unseen.append(str(context.get("message"))))
        self.outside = Host(self, "outside")

    def note(self, who: str, what: object) -> None:
        """Write what happened into the journal."""
        self.journal.append((self._now, who, what))

    def time(self) -> float:
        """Return the simulated time."""
        return self._now

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a schedule to its end, and throw away what is left of its processes."""
        was_enabled = gc.isenabled()
        gc.disable()  # what is dead stays dead until the end, and runs no `finally` meanwhile
        hook, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None
        try:
            return self.run_until_complete(self.outside.spawn(main))
        finally:
            self._bury()
            sys.unraisablehook = hook
            if was_enabled:
                gc.enable()

    def _run_once(self) -> None:
        self._sort_ready()
        host = self._next_host()
        if host.is_mortal:
            self.before_step(host)
            if not host.is_alive or host.stalled_until > self._now:
                return
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise StuckError(f"no end after {MAX_STEPS} steps, at {self._now:.0f} s")
        handle = host.ready.popleft()
        if not handle._cancelled:
            handle._run()
        if self.failure is not None:
            raise self.failure

    def _sort_ready(self) -> None:
        """Hand what became ready to the process that it belongs to."""
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        while ready:
            handle = ready.popleft()
            host = handle._context.get(_HOST, self.outside)
            if host.is_alive:
                host.ready.append(handle)

    def _next_host(self) -> Host:
        """Choose whose turn it is; while it is no one's, time passes."""
        while True:
            runnable = [each for each in self.hosts if each.ready and each.stalled_until <= self._now]
            if runnable:
                return runnable[0] if len(runnable) == 1 else self._choices.pick(runnable)
            self._pass_time()
            self._sort_ready()

    def _pass_time(self) -> None:
        timers: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        nexts = [each.stalled_until for each in self.hosts if each.ready]
        if timers:
            nexts.append(timers[0]._when)
        if not nexts:
            raise StuckError(f"nothing is left to happen, at {self._now:.1f} s")
        self._now = max(self._now, min(nexts))
        while timers and timers[0]._when <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            self._ready.append(timer)  # type: ignore[attr-defined]

    def _new_task(self, _loop: Any, work: Any, **options: Any) -> "asyncio.Task[Any]":
        task = asyncio.Task(work, loop=self, **options)
        self._tasks.append(task)
        return task

    def _bury(self) -> None:
        """Close what never ended; its clean-up finds no loop to run in."""
        self.close()
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(BaseException), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of coroutines that the dead never came to await
                    task.get_coro().close()
        self._tasks.clear()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Leave it where it is: it is skipped when its time comes."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """Let the generators of the dead be."""

    def _write_to_self(self) -> None:
        """There is no one to wake."""
