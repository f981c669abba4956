"""One direction of a connection to the simulated broker."""

from collections import deque
from collections.abc import Callable

from tests.simulation.loop import Host


class Wire:
    """One direction: frames arrive in order, or not at all."""

    def __init__(self, receiver: Host) -> None:
        self._receiver = receiver
        self._frames: deque[Callable[[], object]] = deque()
        self._last_at = 0.0
        self._due = 0
        self._is_cut = False
        self._is_held = False

    def send(self, latency_s: float, frame: Callable[[], object]) -> None:
        """Put a frame on its way."""
        if self._is_cut:
            return
        self._last_at = max(self._receiver.loop.time() + latency_s, self._last_at)
        self._frames.append(frame)
        self._receiver.call_at(self._last_at, self._arrive)

    def _arrive(self) -> None:
        if self._is_held:
            self._due += 1
        elif self._frames:
            self._frames.popleft()()

    def hold(self, *, is_blocked: bool) -> None:
        """Read nothing for a while: the broker's alarm."""
        self._is_held = is_blocked
        while not self._is_held and self._due:
            self._due -= 1
            if self._frames:
                self._frames.popleft()()

    def cut(self) -> None:
        """Lose what is on its way, and all that comes after it."""
        self._is_cut = True
        self._frames.clear()
