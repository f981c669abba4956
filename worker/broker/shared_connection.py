"""The connection that all queue consumers of a worker share."""

import asyncio

from worker.broker.connection import Connection
from worker.broker.publisher_link import Connect


class SharedConnection:
    """One connection for all who ask; the first to ask after it ended has it opened again."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._opening: asyncio.Task[Connection] | None = None

    async def open(self) -> Connection:
        """Return the open connection, or open one: all who wait share what came of it.

        Raises:
            BrokerError: it cannot be opened.
        """
        opening = self._opening
        if opening is None or (opening.done() and not _is_open(opening)):
            opening = self._opening = asyncio.create_task(self._reopen(opening), name="consuming connection")
        return await asyncio.shield(opening)

    async def _reopen(self, before: "asyncio.Task[Connection] | None") -> Connection:
        await _close(before)  # it has ended; this frees the client's resources
        return await self._connect()

    async def close(self) -> None:
        """Close it: what was not acked is delivered again."""
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait({opening})
        await _close(opening)


def _is_open(opening: "asyncio.Task[Connection]") -> bool:
    return not opening.cancelled() and opening.exception() is None and opening.result().is_open


async def _close(opening: "asyncio.Task[Connection] | None") -> None:
    if opening is not None and not opening.cancelled() and opening.exception() is None:
        await opening.result().close()
