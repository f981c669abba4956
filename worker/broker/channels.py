"""The two ways to read a queue: consume it, or browse it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pamqp import commands

from worker.broker.calls import close_quietly, rpc
from worker.broker.delivery import Delivery, read_delivery
from worker.broker.errors import BrokerError, BrokerRefused, Forbidden, brief
from worker.broker.wire import frames
from worker.broker.wire.channel import Channel


class Consumer:
    """One queue consumed on one channel, from opening to the channel's end.

    `on_delivery` is called for each delivery and must only dispatch it: the frames behind it wait.

    Args:
        count: says how many messages and consumers a queue has; None if there is no such queue.
        declare: declares a queue for replies, bound to an exchange, and returns its name.
    """

    def __init__(
        self,
        channel: Channel,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        count: Callable[[str], Awaitable[tuple[int, int] | None]],
        declare: Callable[[str], Awaitable[str]],
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._on_delivery = on_delivery
        self._count = count
        self._declare = declare
        self._tag: str | None = None
        self._no_ack = False
        #: Deliveries so far.
        self.delivered = 0
        self._cancelled = asyncio.Event()
        channel.on_content = self._receive
        channel.on_cancel = self._cancelled.set

    @property
    def unsettled(self) -> int:
        """How many deliveries are not settled."""
        return self._channel.unsettled

    async def declare_reply_queue(self, exchange: str = "") -> str:
        """Declare a queue for replies that lives as long as the connection, and return its name."""
        self._queue = await self._declare(exchange)
        return self._queue

    async def consume(self, prefetch: int, *, no_ack: bool = False) -> None:
        """Start consuming with at most `prefetch` unsettled deliveries.

        Raises:
            BrokerRefused: the user may not read the queue.
        """
        self._no_ack = no_ack
        try:
            async with rpc(f"consuming {self._queue}"):
                await self._channel.ask(commands.Basic.Qos(prefetch_count=prefetch))
                consuming = await self._channel.ask(commands.Basic.Consume(queue=self._queue, no_ack=no_ack))
        except Forbidden:
            raise BrokerRefused(f"the broker user may not read the queue {self._queue!r}; grant it") from None
        self._tag = consuming.consumer_tag

    def _receive(self, code: int, method: bytes, header: bytes, body: bytes) -> None:
        if code != frames.BASIC_DELIVER:
            return
        tag, redelivered, routing_key = frames.read_deliver(method)
        self.delivered += 1
        if not self._no_ack:
            self._channel.hold(tag, len(body))
        self._on_delivery(
            read_delivery(tag, routing_key, header, body, self._channel, redelivered=redelivered)
        )

    async def ended(self) -> str:
        """Wait until the consumer gets no more deliveries, and return the reason."""
        ended = self._channel.ended
        cancelled = asyncio.create_task(self._cancelled.wait())
        ends: set[asyncio.Future[Any]] = {ended, cancelled}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        if self._cancelled.is_set():
            return f"the broker cancelled the consumer of {self._queue}, as it does if the queue is deleted"
        return brief(ended.result())

    async def count(self) -> tuple[int, int]:
        """Return how many messages are ready in the queue, and how many consumers the broker sees on it.

        While too much is in flight for the connection to be read, no answer can come: none is ready, one consumes.
        """
        try:
            if not self._channel.socket.is_paused:
                return await self._count(self._queue) or (0, 0)
        except BrokerError:
            if not self._channel.socket.is_paused:
                raise
        return 0, 1

    async def close(self) -> None:
        """Close the channel; what was not settled is delivered again."""
        await close_quietly(self._channel.close())

    async def cancel(self) -> None:
        """Receive no more; what was received can still be settled."""
        if self._tag is None or self._channel.is_closed:
            return
        with suppress(BrokerError):
            async with rpc(f"cancelling the consumer of {self._queue}"):
                await self._channel.ask(commands.Basic.Cancel(consumer_tag=self._tag))
        self._tag = None


class Browser:
    """Reads messages of a queue one by one; those that are not acked return to it on close."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue

    async def next(self) -> Delivery | None:
        """Return the next message; None at the end."""
        async with rpc(f"reading {self._queue}"):
            answer = await self._channel.ask(commands.Basic.Get(queue=self._queue))
        if isinstance(answer, commands.Basic.GetEmpty):
            return None
        method, header, body = answer
        tag, redelivered, routing_key = frames.read_get_ok(method)
        self._channel.hold(tag, 0)  # an operator reads as much as there is
        return read_delivery(tag, routing_key, header, body, self._channel, redelivered=redelivered)

    async def close(self) -> None:
        """Return what was not acked to the queue."""
        await close_quietly(self._channel.close())
