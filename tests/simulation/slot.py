"""The right to run on a busy worker: a job that paused waits for its turn."""

import asyncio
from typing import Final

from connectors.sdk.runtime.deadline import Deadline
from tests.simulation.choices import Choices

#: Seconds until a job has a slot again.
WAITS_S: Final = (0.0, 0.6, 4.0)


class SimulatedSlot:
    """One job's slot."""

    def __init__(self, choices: Choices, deadline: Deadline) -> None:
        self._choices = choices
        self._deadline = deadline
        self._is_paused = False

    def pause(self) -> bool:
        """Let another job run."""
        self._is_paused = True
        return True

    async def resume(self) -> None:
        """Wait for a slot, until the deadline at most."""
        if not self._is_paused:
            return
        self._is_paused = False
        wait_s, remaining_s = self._choices.pick(WAITS_S, 0.4), self._deadline.remaining_s()
        await asyncio.sleep(wait_s if remaining_s is None else min(wait_s, remaining_s))

    def release(self) -> None:
        """Hold none any more."""
        self._is_paused = False
