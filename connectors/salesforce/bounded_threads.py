"""The threads in which simple-salesforce runs, shared fairly among orgs."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from connectors.sdk.errors import Sent, Unavailable

#: Measured on two cores: more threads are no faster, and delay the event loop (p99 300 ms with 200).
THREADS: Final = 32
#: An org may hold this many times the number of free threads: one alone gets 24 of 32, and a free one is left
#: for the next org even if many are slow.
SHARE: Final = 3
#: Seconds that a call waits for a thread; nothing is sent until then.
THREAD_WAIT_S: Final = 10.0
#: Seconds that a cancelled call waits for its thread to come free.
UNWIND_S: Final = 1.0

T = TypeVar("T")


class OrgThreads:
    """A bounded pool of threads in which no org can starve the others.

    1. a call starts if its org holds less than `SHARE` times the free threads, else it waits its turn
    2. its work runs in a thread
    3. the thread is free as soon as the work ends; a cancelled call must end its work (`cancel`)

    Used by one event loop at a time.
    """

    def __init__(self, total: int = THREADS) -> None:
        self._total = total
        self._pool = ThreadPoolExecutor(total, thread_name_prefix="salesforce")
        self._held: Counter[Hashable] = Counter()
        self._waiting: deque[tuple[Hashable, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """How many threads are idle."""
        return self._total - self._held.total()

    async def run(
        self,
        org: Hashable,
        work: Callable[[], T],
        cancel: Callable[[], None],
        *,
        wait_s: float = THREAD_WAIT_S,
    ) -> T:
        """Run work in a thread of this org's share.

        Args:
            cancel: ends the work at once; called if the job is cancelled.
            wait_s: seconds to wait for a thread.

        Raises:
            Unavailable: the org's share was busy for so long; nothing was sent.
        """
        await self._enter(org, wait_s)
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        except BaseException:
            self._leave(org)
            raise
        running.add_done_callback(lambda ended: self._end(org, ended))
        try:
            # Shielded: the thread is busy until the work ends, even if the job is cancelled.
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            cancel()
            await asyncio.wait({running}, timeout=UNWIND_S)
            raise

    async def _enter(self, org: Hashable, wait_s: float) -> None:
        if self._may_enter(org):
            self._held[org] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = org, turn
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave(org)  # its turn came in the same moment
            else:
                self._waiting.remove(entry)
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    f"other calls of this org kept every thread of its share busy for {wait_s:.0f} s",
                    sent=Sent.NO,
                ) from None
            raise

    def _may_enter(self, org: Hashable) -> bool:
        return self._held[org] < SHARE * self.free

    def _end(self, org: Hashable, ended: "asyncio.Future[T]") -> None:
        if not ended.cancelled():
            ended.exception()  # retrieved even if the job is gone, or asyncio reports it
        self._leave(org)

    def _leave(self, org: Hashable) -> None:
        self._held[org] -= 1
        if not self._held[org]:
            del self._held[org]
        for entry in tuple(self._waiting):
            if not self.free:
                return
            if self._may_enter(entry[0]) and not entry[1].done():
                self._waiting.remove(entry)
                self._held[entry[0]] += 1
                entry[1].set_result(None)
