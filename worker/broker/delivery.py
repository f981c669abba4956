"""One message: its properties, and settling it once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from worker.broker.calls import RPC_TIMEOUT_S

PERSISTENT: Final = 2


@dataclass(frozen=True, slots=True)
class Properties:
    """The AMQP properties that are read and written here."""

    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    type: str | None = None
    user_id: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Delivery:
    """One message from a queue, to be settled once on the channel that brought it."""

    body: bytes
    routing_key: str
    properties: Properties
    redelivered: bool
    #: How often it was delivered before, by the queue's own count.
    returns: int
    _tag: int
    _channel: aiormq.abc.AbstractChannel
    _on_settled: Callable[[], None] = lambda: None

    @property
    def is_stale(self) -> bool:
        """Whether its channel has ended; the message is then delivered again."""
        return self._channel.is_closed

    async def ack(self) -> bool:
        """Acknowledge the message.

        Returns False if its channel has ended; the message is then delivered again. True proves
        nothing: AMQP 0-9-1 does not confirm an ack.
        """
        return await self._settle(lambda: self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self) -> bool:
        """Return the message to its queue, unchanged."""
        # Not nack: RabbitMQ 4.3 counts a reject towards the delivery limit, and a nack no more.
        return await self._settle(lambda: self._channel.basic_reject(self._tag, requeue=True, wait=False))

    async def _settle(self, send: Callable[[], Awaitable[None]]) -> bool:
        # Delivery tags start again on a new channel: a late ack must be dropped, never sent elsewhere.
        if self._channel.is_closed:
            return False
        self._on_settled()
        sending: asyncio.Future[None] | None = None
        try:
            if not self._channel.connection.write_queue.full():
                await send()  # ends at once
                return True
            # The client's queue of frames is short, and nothing empties it once the connection is dying
            # (measured: each ack behind the tenth then waits for its timeout, and so does its queue).
            sending = asyncio.ensure_future(send())
            ends = {sending, self._channel.connection.closing}
            await asyncio.wait(ends, timeout=RPC_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                return False
            await sending
        except (aiormq.AMQPError, RuntimeError, OSError):
            return False
        finally:
            if sending is not None:
                sending.cancel()
        return True


def read_delivery(
    message: DeliveredMessage,
    channel: aiormq.abc.AbstractChannel,
    on_settled: Callable[[], None] = lambda: None,
) -> Delivery:
    """Return a delivery of the client library as one of ours."""
    came = message.header.properties
    headers = came.headers or {}
    # On the first delivery RabbitMQ 3.10 lets a publisher's own header of this name through (measured).
    returns = headers.get("x-delivery-count", 0) if message.redelivered else 0
    return Delivery(
        body=message.body,
        routing_key=message.routing_key or "",
        properties=Properties(
            message_id=came.message_id or None,
            correlation_id=came.correlation_id or None,
            reply_to=came.reply_to or None,
            content_type=came.content_type or None,
            content_encoding=came.content_encoding or None,
            type=came.message_type or None,
            user_id=came.user_id or None,
            timestamp=came.timestamp,
            headers=headers,
        ),
        redelivered=bool(message.redelivered),
        returns=returns if isinstance(returns, int) else 0,
        _tag=message.delivery_tag or 0,
        _channel=channel,
        _on_settled=on_settled,
    )


def write_properties(properties: Properties) -> Basic.Properties:
    """Return properties as the client library writes them."""
    return Basic.Properties(
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        message_type=properties.type,
        user_id=properties.user_id,
        timestamp=properties.timestamp or datetime.now(UTC),
        headers=dict(properties.headers) or None,
        delivery_mode=PERSISTENT,
    )
