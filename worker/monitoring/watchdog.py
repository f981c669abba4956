"""The watchdog: how late the worker's event loop turns, and where it hangs."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

from loguru import logger

from worker.metrics import Metrics

#: Seconds between two beats of the loop, and between two checks of them.
BEAT_S: Final = 0.25
#: Seconds after which a loop that has not turned counts as blocked.
BLOCKED_AFTER_S: Final = 5.0
# Seconds. The worst lag is remembered for one to two of these periods.
_MEMORY_S = 30.0
# Seconds without a check after which the whole process stood still, not the loop alone: a stopped process,
# a sleeping machine, a C extension that keeps the interpreter.
_STANDSTILL_S = 2.0
# Frames of a blocked loop that are logged, the innermost ones.
_FRAMES = 25


class Watchdog:
    """Watches one event loop from another thread.

    1. the loop calls `beat` by a timer of its own; how late that comes is the lag
    2. another thread calls `check`; if the last beat is too long ago, it logs the action and the stack the loop
       hangs in, once for each block
    3. the next beat logs that the loop turns again, and how long it was blocked

    The monitoring server starts it on the loop to watch, calls `check`, and stops it.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        blocked_after_s: float = BLOCKED_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._blocked_after_s = blocked_after_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread_id = 0
        self._beat_at = self._checked_at = self._resumed_at = clock()
        self._is_reported = False
        self._worst_s = self._worst_before_s = 0.0
        self._remember_until = clock() + _MEMORY_S
        metrics.loop_lag_from(self.lag_s)

    def start(self) -> None:
        """Start the beat; call it on the loop to watch."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._beat_at = self._checked_at = self._clock()
        self._timer = self._loop.call_later(BEAT_S, self.beat)

    def stop(self) -> None:
        """End the beat; call it on the same loop."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()

    def beat(self) -> None:
        """Record that the loop turns."""
        now = self._clock()
        silent_s = now - self._beat_at
        self._beat_at = now
        self._remember(silent_s - BEAT_S, now)
        if self._is_reported:
            self._is_reported = False
            logger.warning("event loop turns again", blocked_s=round(silent_s, 1))
        elif silent_s >= self._blocked_after_s:
            # No check could run: the process was stopped, or an extension kept the interpreter.
            logger.warning("event loop stood still with the whole process", blocked_s=round(silent_s, 1))
        if self._loop is not None:
            self._timer = self._loop.call_later(BEAT_S, self.beat)

    def check(self) -> None:
        """Log the loop's stack if it is blocked; call it from another thread every `BEAT_S`."""
        now = self._clock()
        if now - self._checked_at > _STANDSTILL_S:
            self._resumed_at = now
        self._checked_at = now
        blocked_s = self.blocked_s()
        if blocked_s is None or self._is_reported:
            return
        self._is_reported = True
        self._metrics.loop_blocked()
        logger.error(
            "event loop blocked",
            blocked_s=round(blocked_s, 1),
            task=self.blocked_in(),
            hint="synchronous code runs on it; the innermost frame below shows which",
            stack=self._stack(),
        )

    def blocked_s(self) -> float | None:
        """Return the seconds since the loop last turned, if that is too long; None if it turns."""
        silent_s = self._clock() - max(self._beat_at, self._resumed_at)
        return silent_s if silent_s >= self._blocked_after_s else None

    def lag_s(self) -> float:
        """Return the loop's worst lag in seconds within the last minute, the present block included."""
        now = self._clock()
        return max(self._worst_s, self._worst_before_s, now - self._beat_at - BEAT_S, 0.0)

    def _remember(self, lag_s: float, now: float) -> None:
        if now >= self._remember_until:
            self._worst_before_s, self._worst_s = self._worst_s, 0.0
            self._remember_until = now + _MEMORY_S
        self._worst_s = max(self._worst_s, lag_s)

    def blocked_in(self) -> str:
        """Return the name of the task that the loop runs now; an action's says of which connector, and which job."""
        task = None if self._loop is None else asyncio.current_task(self._loop)
        return "no task" if task is None else task.get_name()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._thread_id)
        if frame is None:
            return "(the loop's thread is gone)"
        return "".join(traceback.format_stack(frame)[-_FRAMES:])
