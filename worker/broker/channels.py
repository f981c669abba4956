"""The three uses of a channel: consuming, browsing a queue, publishing with confirms."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from worker.broker.calls import close_channel, is_ours, rpc
from worker.broker.delivery import Delivery, Properties, read_delivery, write_properties
from worker.broker.errors import (
    BrokerError,
    BrokerRefusal,
    BrokerRefused,
    Forbidden,
    PublishRefused,
    PublishUncertain,
    brief,
)

#: Seconds for an operator's publish until the broker's confirm.
CONFIRM_TIMEOUT_S: Final = 10.0


class Consumer:
    """One queue consumed on one channel, from opening to the channel's end.

    `on_delivery` is called for each delivery and must only dispatch it: what runs inside the client's callback is
    cancelled when the channel dies (measured), so a job never runs there.

    Args:
        count: says how many messages and consumers a queue has; None if there is no such queue.
    """

    def __init__(
        self,
        channel: aiormq.abc.AbstractChannel,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        count: Callable[[str], Awaitable[tuple[int, int] | None]],
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._on_delivery = on_delivery
        self._count = count
        self._tag: str | None = None
        #: Deliveries so far, and those of them that are not settled.
        self.delivered = 0
        self.unsettled = 0
        self._cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _frame: self._cancelled.set())

    async def declare_reply_queue(self, exchange: str = "") -> str:
        """Declare a queue for replies that lives as long as the connection, and return its name."""
        async with rpc("declaring a reply queue"):
            declared = await self._channel.queue_declare("", exclusive=True, auto_delete=True)
            name = self._queue = declared.queue or ""
            if exchange:
                await self._channel.queue_bind(name, exchange=exchange, routing_key=name)
        return name

    async def consume(self, prefetch: int, *, no_ack: bool = False) -> None:
        """Start consuming with at most `prefetch` unsettled deliveries.

        Raises:
            BrokerRefused: the user may not read the queue.
        """

        async def receive(message: DeliveredMessage) -> None:
            self.delivered += 1
            self.unsettled += not no_ack
            self._on_delivery(read_delivery(message, self._channel, self._note_settled))

        try:
            async with rpc(f"consuming {self._queue}"):
                await self._channel.basic_qos(prefetch_count=prefetch)
                consuming = await self._channel.basic_consume(self._queue, receive, no_ack=no_ack)
        except Forbidden:
            raise BrokerRefused(f"the broker user may not read the queue {self._queue!r}; grant it") from None
        self._tag = consuming.consumer_tag

    async def ended(self) -> str:
        """Wait until the consumer gets no more deliveries, and return the reason."""
        closing = self._channel.closing
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({closing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        if self._cancelled.is_set():
            return f"the broker cancelled the consumer of {self._queue}, as it does if the queue is deleted"
        error = None if closing.cancelled() else closing.exception()
        return brief(error) if error else "the channel was closed"

    def _note_settled(self) -> None:
        self.unsettled -= 1

    async def count(self) -> tuple[int, int]:
        """Return how many messages are ready in the queue, and how many consumers the broker sees on it."""
        return await self._count(self._queue) or (0, 0)

    async def close(self) -> None:
        """Close the channel; what was not settled is delivered again."""
        await close_channel(self._channel)

    async def cancel(self) -> None:
        """Receive no more; what was received can still be settled."""
        if self._tag is None or self._channel.is_closed:
            return
        with suppress(BrokerError):
            async with rpc(f"cancelling the consumer of {self._queue}"):
                await self._channel.basic_cancel(self._tag)
        self._tag = None


class Browser:
    """Reads messages of a queue one by one; those that are not acked return to it on close."""

    def __init__(self, channel: aiormq.abc.AbstractChannel, queue: str) -> None:
        self._channel = channel
        self._queue = queue

    async def next(self) -> Delivery | None:
        """Return the next message; None at the end."""
        async with rpc(f"reading {self._queue}"):
            message = await self._channel.basic_get(self._queue)
        return None if message.delivery_tag is None else read_delivery(message, self._channel)

    async def close(self) -> None:
        """Return what was not acked to the queue."""
        await close_channel(self._channel)


class PublishChannel:
    """A channel with confirms, on a connection that consumes nothing."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        # The client notes why the broker closed a channel some loop turns before it calls it closed. What
        # is written in between ends the whole connection ("expected 'channel.open'", measured).
        return not self._channel.is_closed and self._channel._close_exception is None

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool = True,
        timeout_s: float | None = CONFIRM_TIMEOUT_S,
    ) -> bool:
        """Publish persistently and wait for the confirm.

        A live channel loses no confirm: without a timeout, only the end of the channel ends the waiting.

        Returns False if the message was returned: no queue is bound there.

        Raises:
            PublishUncertain: the channel or its connection ended first, or `timeout_s` was over.
            PublishRefused: the broker refused it.
        """
        if not self.is_open:
            raise PublishUncertain("the channel was closed before the message was sent")
        try:
            confirmed = await self._channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=write_properties(properties),
                mandatory=mandatory,
                timeout=timeout_s,
                wait=False,
            )
        except aiormq.exceptions.DeliveryError:
            reason = (
                f"a queue rejects messages to {exchange or routing_key!r}: it is full, or has no majority"
            )
            raise PublishRefused(reason, BrokerRefusal.FULL) from None
        except REFUSALS as error:
            raise PublishRefused(brief(error), refusal_of(error)) from None
        except TimeoutError:
            raise PublishUncertain(f"no confirm in {timeout_s or 0:g} s") from None
        except (aiormq.AMQPError, RuntimeError, OSError) as error:
            raise PublishUncertain(brief(error)) from None
        except asyncio.CancelledError:
            # On a dead connection the client cancels its waiters, though the message may be stored.
            if is_ours():
                raise
            raise PublishUncertain("the connection broke before the confirm") from None
        return isinstance(confirmed, Basic.Ack)

    async def close(self) -> None:
        """Close the channel."""
        await close_channel(self._channel)


REFUSALS: Final = (
    aiormq.exceptions.ChannelAccessRefused,
    aiormq.exceptions.ChannelNotFoundEntity,
    aiormq.exceptions.ChannelPreconditionFailed,
)


def refusal_of(error: aiormq.exceptions.AMQPChannelError) -> BrokerRefusal:
    """Return why a message was refused."""
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return BrokerRefusal.FORBIDDEN
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return BrokerRefusal.MISSING
    # 3.10 and 4.x: "message size 400000 is larger than configured max size 300000".
    return BrokerRefusal.TOO_LARGE if "larger than" in str(error) else BrokerRefusal.INVALID
