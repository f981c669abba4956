"""One message, to be settled once."""

from dataclasses import dataclass
from typing import Protocol

from worker.broker.properties import Properties
from worker.broker.wire.content import read_properties


class SettlingChannel(Protocol):
    """The channel that brought a delivery."""

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""

    def ack(self, tag: int) -> bool:
        """Acknowledge a delivery; False if it is not unsettled here."""

    def reject(self, tag: int) -> bool:
        """Return a delivery to its queue; False if it is not unsettled here."""


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
    _channel: SettlingChannel
    #: What of its properties cannot be decoded; None if all can.
    undecodable: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether its channel has ended; the message is then delivered again."""
        return self._channel.is_closed

    async def ack(self) -> bool:
        """Acknowledge the message.

        Returns False if its channel has ended; the message is then delivered again. True proves
        nothing: AMQP 0-9-1 does not confirm an ack.
        """
        # Delivery tags start again on a new channel: a late ack is dropped, never sent elsewhere.
        return self._channel.ack(self._tag)

    async def requeue(self) -> bool:
        """Return the message to its queue, unchanged."""
        # Not nack: RabbitMQ 4.3 counts a reject towards the delivery limit, and a nack no more.
        return self._channel.reject(self._tag)


def read_delivery(
    tag: int, routing_key: str, header: bytes, body: bytes, channel: SettlingChannel, *, redelivered: bool
) -> Delivery:
    """Return what the broker delivered."""
    properties, undecodable = read_properties(header)
    # On the first delivery RabbitMQ 3.10 lets a publisher's own header of this name through (measured).
    returns = properties.headers.get("x-delivery-count", 0) if redelivered else 0
    returns = returns if isinstance(returns, int) else 0
    return Delivery(body, routing_key, properties, redelivered, returns, tag, channel, undecodable)
