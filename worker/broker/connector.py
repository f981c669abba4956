"""Opens the connections of one process to its broker, and slows down if the login is refused."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from worker.broker.connection import Connection
from worker.broker.errors import BrokerError, BrokerRefused


@dataclass(frozen=True, slots=True)
class BrokerLoginPolicy:
    """How often a refused login is repeated: after 5, 10, 20, 40 s, then each minute, for 5 minutes.

    A broker counts or logs each refused login, and ten connections of a worker are refused together.
    """

    first_wait_s: float = 5.0
    most_wait_s: float = 60.0
    give_up_after_s: float = 300.0


class BrokerConnector:
    """Opens connections; all of them share what the broker said to the last login.

    The first login of all that is refused is final: it cannot succeed as it is set. A later one may
    pass (a broker that starts, a password that is rotated), so it is repeated slowly before it is final.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
        policy: BrokerLoginPolicy | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            tls: called for each connection, because its files may have been replaced.
        """
        self._url = url
        self._tls = tls
        self._policy = policy or BrokerLoginPolicy()
        self._now = now
        self._was_accepted = False
        self._refusal: str | None = None
        self._refused_since = 0.0
        self._next_try_at = 0.0
        self._wait_s = 0.0

    async def open(self, name: str) -> Connection:
        """Open a connection.

        Raises:
            BrokerRefused: the login is refused, and retrying cannot succeed.
            BrokerError: it cannot be opened now.
        """
        if self._refusal is not None:
            if self._now() < self._next_try_at:
                raise self._verdict(self._refusal)
            self._slow_down()  # before the try, so that the other connections wait for its answer
        try:
            connection = await Connection.open(self._url, name=name, tls=self._context())
        except BrokerRefused as refused:
            if self._refusal is None:
                self._refused_since, self._wait_s = self._now(), 0.0
                self._slow_down()
            self._refusal = str(refused)
            raise self._verdict(self._refusal) from None
        self._was_accepted, self._refusal = True, None
        return connection

    def _context(self) -> ssl.SSLContext | None:
        try:
            return self._tls()
        except (OSError, ssl.SSLError) as error:
            raise BrokerError(f"the file of CONNECTORS_CA_FILE cannot be used: {error}") from None

    def _slow_down(self) -> None:
        self._wait_s = min(self._policy.most_wait_s, 2 * self._wait_s or self._policy.first_wait_s)
        self._next_try_at = self._now() + self._wait_s

    def _verdict(self, refusal: str) -> BrokerError:
        refused_for_s = self._now() - self._refused_since
        if not self._was_accepted:
            return BrokerRefused(refusal)
        if refused_for_s >= self._policy.give_up_after_s:
            return BrokerRefused(
                f"{refusal}; it was accepted before, and has been refused for {refused_for_s:.0f} s"
            )
        return BrokerError(f"{refusal}; it was accepted before, so it is tried again in {self._wait_s:.0f} s")
