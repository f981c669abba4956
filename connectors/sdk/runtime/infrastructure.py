"""Waiting for vault and ledger: a job that needs them waits, and no attempt is used up."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from connectors.sdk.runtime.clock import Clock
from connectors.sdk.runtime.outcome import Attempt, Snooze

T = TypeVar("T")


class InfrastructureUnavailable(Exception):
    """A part of the service cannot be asked for now; no fault of the job's.

    Args:
        reason: in our own words; safe in logs, on `/readyz` and on the wire.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """How long a job waits in memory before it goes back through a retry queue."""

    #: Seconds. Far below the broker's consumer_timeout of 30 minutes.
    hold_s: float = 60.0
    #: Seconds after which a question that has no answer yet no longer keeps its job's slot.
    prompt_s: float = 0.2


class Infrastructure:
    """Asks vault and ledger on behalf of jobs. Made by the executor, which stops it."""

    def __init__(self, policy: HoldPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the worker drains."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """End every job's waiting: the worker is stopping."""
        self._stopping.set()

    async def ask(
        self,
        question: Callable[[], Awaitable[T]],
        wait_available: Callable[[float], Awaitable[bool]],
        attempt: Attempt,
        *,
        may_abandon: bool = False,
    ) -> T:
        """Ask until there is an answer, waiting while there is none to be had; the slot is another job's meanwhile.

        Args:
            may_abandon: the question changes nothing, and is given up if too many jobs wait already.

        Raises:
            Snooze: it stayed unavailable for the hold, too many jobs wait already, or the worker stops.
            ConnectorError: DEADLINE_EXCEEDED while waiting.
        """
        asked_at = self._clock.monotonic()
        while True:
            try:
                return await self._ask_promptly(question, attempt, may_abandon=may_abandon)
            except InfrastructureUnavailable as unavailable:
                hold_s = self._policy.hold_s - (self._clock.monotonic() - asked_at)
                if self.is_stopping or hold_s <= 0 or not attempt.slot.pause():
                    raise Snooze(unavailable.reason) from None
            attempt.report_progress("waiting", "a part of the service is not available")
            await self._wait(wait_available, hold_s, attempt)
            # Before the question, not after it: a lease, once given, must not run out behind other jobs.
            await attempt.slot.resume()
            attempt.deadline.check()

    async def _ask_promptly(
        self, question: Callable[[], Awaitable[T]], attempt: Attempt, *, may_abandon: bool
    ) -> T:
        pausing = _Pausing(attempt, asyncio.current_task() if may_abandon else None)
        timer = asyncio.get_running_loop().call_later(self._policy.prompt_s, pausing.pause)
        try:
            return await question()
        except asyncio.CancelledError:
            if not pausing.is_abandoned or pausing.is_cancelled_otherwise():
                raise
            raise Snooze("too many jobs wait for an answer of the vault or the ledger") from None
        finally:
            timer.cancel()

    async def _wait(
        self, wait_available: Callable[[float], Awaitable[bool]], hold_s: float, attempt: Attempt
    ) -> None:
        remaining_s = attempt.deadline.remaining_s()
        limit_s = hold_s if remaining_s is None else min(hold_s, remaining_s)
        back = asyncio.ensure_future(wait_available(limit_s))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await self._clock.wait({back, stopping}, limit_s)
        finally:
            back.cancel()
            stopping.cancel()
        attempt.deadline.check()


class _Pausing:
    """Pauses a slot once its job's question takes long, or ends the question if too many jobs wait."""

    def __init__(self, attempt: Attempt, asking: "asyncio.Task[Any] | None") -> None:
        self._attempt = attempt
        self._asking = asking
        self.is_abandoned = False

    def pause(self) -> None:
        """Release the slot to another job."""
        if not self._attempt.slot.pause() and self._asking is not None:
            self.is_abandoned = True
            self._asking.cancel()

    def is_cancelled_otherwise(self) -> bool:
        """Return whether the job was cancelled as well, not its question alone."""
        return self._asking is not None and self._asking.uncancel() > 0
