"""The connections to one host, shared among tenants: none fills them all, and who waits gets its turn.

A tenant may have three times as many calls in flight as there are connections left free: three quarters of them alone,
43 % each of two that ask for all. So there is always room for one more. Waiting tenants are served in turn, each in
the order of its calls.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from connectors.sdk.errors import ConnectorError, RateLimited, Sent, Unavailable
from connectors.sdk.http.adaptive_limit import AdaptiveLimit

#: Calls of one tenant for each connection that they leave free.
SHARE: Final = 3
#: Seconds after which a call that found no room may be tried again.
RETRY_S: Final = 1.0

_Waiter = tuple[AdaptiveLimit, "asyncio.Future[None]"]


class HostRoom:
    """The connections to one host."""

    def __init__(self, host: str, most: int) -> None:
        self._host = host
        self._free = most
        self._in_flight: Counter[str] = Counter()
        #: By tenant; the first is the next to be served.
        self._waiting: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    @asynccontextmanager
    async def enter(self, tenant: str, limit: AdaptiveLimit, timeout_s: float) -> AsyncIterator[bool]:
        """Hold a connection while the block runs; yield whether it had to be waited for.

        Raises:
            RateLimited: the account's own calls left no room in time; nothing was sent.
            Unavailable: the host's connections were taken for so long; nothing was sent.
        """
        has_waited = not self._may_enter(tenant, limit)
        if has_waited:
            await self._wait(tenant, limit, timeout_s)
        else:
            self._take(tenant, limit)
        try:
            yield has_waited
        finally:
            self._give_back(tenant, limit)

    def _may_enter(self, tenant: str, limit: AdaptiveLimit) -> bool:
        return limit.has_room and self._free > 0 and self._in_flight[tenant] < SHARE * self._free

    async def _wait(self, tenant: str, limit: AdaptiveLimit, timeout_s: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (limit, turn)
        self._waiting.setdefault(tenant, deque()).append(waiter)
        limit.waiting += 1
        try:
            await asyncio.wait_for(asyncio.shield(turn), max(timeout_s, 0.0))
        except BaseException as error:
            if turn.done():  # its turn came at the same moment
                self._give_back(tenant, limit)
            else:
                self._forget(tenant, waiter)
            if isinstance(error, TimeoutError):
                raise self._no_room(limit, timeout_s) from None
            raise
        finally:
            limit.waiting -= 1

    def _no_room(self, limit: AdaptiveLimit, timeout_s: float) -> ConnectorError:
        waited = f"within {max(timeout_s, 0.0):.3g} s"
        if not limit.has_room:
            return RateLimited(
                f"this account has {limit.in_flight} calls to {self._host} in flight, all that it may, and none ended "
                f"{waited}",
                retry_after_s=RETRY_S,
                sent=Sent.NO,
            )
        return Unavailable(
            f"no connection to {self._host} came free {waited}", retry_after_s=RETRY_S, sent=Sent.NO
        )

    def _take(self, tenant: str, limit: AdaptiveLimit) -> None:
        self._free -= 1
        self._in_flight[tenant] += 1
        limit.in_flight += 1

    def _give_back(self, tenant: str, limit: AdaptiveLimit) -> None:
        self._free += 1
        limit.in_flight -= 1
        self._in_flight[tenant] -= 1
        if not self._in_flight[tenant]:
            del self._in_flight[tenant]
        while self._serve_next():
            pass

    def _serve_next(self) -> bool:
        """Admit one call, of the tenant that was served least lately; return whether one could."""
        for tenant, waiters in self._waiting.items():
            for waiter in waiters:
                limit, turn = waiter
                if self._may_enter(tenant, limit):
                    self._take(tenant, limit)
                    turn.set_result(None)
                    self._forget(tenant, waiter)
                    if tenant in self._waiting:
                        self._waiting.move_to_end(tenant)
                    return True
        return False

    def _forget(self, tenant: str, waiter: _Waiter) -> None:
        self._waiting[tenant].remove(waiter)
        if not self._waiting[tenant]:
            del self._waiting[tenant]


class HostRooms:
    """The rooms of all hosts; one lives while a call is in it or waits for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rooms: WeakValueDictionary[str, HostRoom] = WeakValueDictionary()

    def of(self, netloc: str) -> HostRoom:
        """Return the room of a host."""
        room = self._rooms.get(netloc)
        if room is None:
            room = self._rooms[netloc] = HostRoom(netloc, self._most)
        return room
