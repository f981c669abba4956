"""Which logins are sent at all: each one that a vault refuses brings the role nearer to its lock."""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from worker.credentials.vault_config import LoginRefused

#: Statuses that judge what was sent. Others may mean a locked role, or a way to log in that is not there.
_JUDGED: Final = frozenset({400, 401})


@dataclass(frozen=True, slots=True)
class VaultLoginPolicy:
    """How often a vault may refuse us: it locks a role at five refusals in 15 minutes, everybody's together."""

    max_refusals: int = 3
    within_s: float = 900.0


class LoginGate:
    """Remembers refused logins.

    - What the vault judged to be wrong is not sent again until it changes, be it for days.
    - What it refused for another reason is sent again after a third of the policy's time.
    - No more than `max_refusals` logins are refused within that time, whatever is sent.

    Created by `VaultSession`.
    """

    def __init__(
        self,
        policy: VaultLoginPolicy = VaultLoginPolicy(),
        clock: Callable[[], float] = time.monotonic,  # frozen
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._refusals: deque[float] = deque(maxlen=policy.max_refusals)
        self._digest = ""
        self._refused: LoginRefused | None = None

    def check(self, proof: SecretStr) -> None:
        """Pass a login that may succeed.

        Raises:
            LoginRefused: as the vault did.
        """
        now, policy, refused = self._clock(), self._policy, self._refused
        if refused is None:
            return
        is_full = len(self._refusals) == policy.max_refusals and now < self._refusals[0] + policy.within_s
        is_same = _digest(proof) == self._digest
        is_early = now < self._refusals[-1] + policy.within_s / policy.max_refusals
        if is_full or (is_same and (refused.status in _JUDGED or is_early)):
            raise LoginRefused(str(refused), refused.status)

    def refused(self, proof: SecretStr, refused: LoginRefused) -> None:
        """Remember that the vault refused what was sent."""
        self._digest, self._refused = _digest(proof), refused
        self._refusals.append(self._clock())

    def accepted(self) -> None:
        """Forget: the vault took a login."""
        self._refusals.clear()
        self._refused = None


def _digest(proof: SecretStr) -> str:
    return hashlib.sha256(proof.get_secret_value().encode()).hexdigest()
