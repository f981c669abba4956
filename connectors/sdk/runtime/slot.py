"""The right to run an action now, as the core sees it: who gives it out is the worker's business."""

from typing import Final, Protocol


class Slot(Protocol):
    """Held while an action runs; paused while its job only waits."""

    def pause(self) -> bool:
        """Allow another job to run while this one waits; return False if too many are paused already."""
        ...

    async def resume(self) -> None:
        """Hold a slot again before the job goes on; its deadline ends the waiting."""
        ...

    def release(self) -> None:
        """Allow another job to run for good: all that is left is to clean up, or to record how it ended."""
        ...


class _Unlimited:
    """A slot of a core that runs everything at once."""

    def pause(self) -> bool:
        return True

    async def resume(self) -> None:
        """Go on at once."""

    def release(self) -> None:
        """Release nothing."""


#: For a core that limits nothing, such as the test kit's.
UNLIMITED: Final = _Unlimited()
