"""How soon a lost connection is opened again."""

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Waits between tries to connect: doubling, with jitter, so that a fleet does not come back at once."""

    first_s: float = 0.2
    most_s: float = 5.0

    def delay_s(self, tries: int) -> float:
        """Return the jittered wait after `tries` failed tries."""
        part = random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        return part * min(self.most_s, self.first_s * float(2**tries))


RECONNECT: Final = ReconnectPolicy()
