"""One call to the broker: bounded in time, its errors translated."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, Literal

import aiormq

from worker.broker.errors import BrokerError, BrokerNotFound, Forbidden, TopologyMismatch, brief
from worker.broker.wire.channel import ChannelClosed

#: Seconds for a declaration, a consume, a cancel.
RPC_TIMEOUT_S: Final = 10.0


class rpc:  # noqa: N801  # reads as a verb at its uses
    """Bound a call to the broker in time, and translate its errors."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._timeout = asyncio.timeout(RPC_TIMEOUT_S)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise BrokerError(f"{self._doing}: no answer in {RPC_TIMEOUT_S:g} s") from None
        if error is None:
            return False
        code = error.code if isinstance(error, ChannelClosed) else None
        if code == 406 or isinstance(error, aiormq.exceptions.ChannelPreconditionFailed):
            raise TopologyMismatch(f"{self._doing}: {difference(error)}") from None
        if code == 404 or isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
            raise BrokerNotFound(f"{self._doing}: {brief(error)}") from None
        if code == 403 or isinstance(error, aiormq.exceptions.ChannelAccessRefused):
            raise Forbidden(f"{self._doing}: {brief(error)}") from None
        if isinstance(error, ChannelClosed | aiormq.AMQPError | RuntimeError | OSError):
            raise BrokerError(f"{self._doing}: {brief(error)}") from None
        if isinstance(error, asyncio.CancelledError) and not is_ours():
            raise BrokerError(f"{self._doing}: the connection broke") from None
        return False


async def close_quietly(closing: Awaitable[Any]) -> None:
    """Close something of the client library, bounded in time; its error is not ours.

    Waited for from outside: if a cancellation were swallowed in there, a timeout would end nothing.
    """
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=RPC_TIMEOUT_S)
    if not task.done():
        task.cancel()
    elif not task.cancelled():
        task.exception()  # retrieved, or asyncio logs it: what was closed may be broken already


async def close_channel(channel: aiormq.abc.AbstractChannel) -> None:
    """Close a channel that may be closed or dead already."""
    if not channel.is_closed:
        await close_quietly(channel.close())


def is_ours() -> bool:
    """Return whether a cancellation is ours, not one that the client library raises by itself."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def difference(error: BaseException) -> str:
    """Return the part of a 406 that says what differs: `inequivalent arg 'x' …: received … but current is …`."""
    text = brief(error)
    start = text.find("inequivalent")
    found = text[start:] if start >= 0 else text
    return f"it exists with other arguments: {found}; delete it, or set another CONNECTORS_PREFIX"
