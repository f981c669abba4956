"""The channels of a simulated connection, with both their ends: consuming, settling, publishing with confirms."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.broker import CONFIRMS_S, DIRECT, Message, ServedConsumer
from worker.broker import BrokerError, BrokerRefusal, Properties, PublishRefused, PublishUncertain

if TYPE_CHECKING:
    from tests.simulation.broker_link import SimulatedConnection

#: Steps of a worker after a frame in which it is killed more often.
HOT_STEPS: Final = 6


def set_once(future: "asyncio.Future[Any]", value: object) -> None:
    """Give a future its value, unless it has one."""
    if not future.done():
        future.set_result(value)


class Channel:
    """What both kinds of channel have."""

    def __init__(self, connection: "SimulatedConnection") -> None:
        self.connection = connection
        self.host = connection.host
        self.broker = connection.broker
        #: What the broker waits for here.
        self.unacked: dict[int, tuple[ServedConsumer, Message]] = {}
        self.ended_by: asyncio.Future[str] = self.host.loop.create_future()

    @property
    def is_closed(self) -> bool:
        """Whether its end is known here."""
        return self.ended_by.done()

    def end(self, reason: str) -> None:
        """Learn of the end."""
        if not self.ended_by.done():
            self.ended_by.set_result(reason)

    async def close(self) -> None:
        """Close the channel; what was not settled is delivered again."""
        if not self.is_closed:
            self.connection.up.send(self.broker.latency_s(), partial(self.broker.release, self))
            self.end("the channel was closed")

    def send(self, frame: Callable[[], object]) -> None:
        """Send a frame to the broker."""
        self.host.hot_steps = max(self.host.hot_steps, HOT_STEPS)
        self.connection.up.send(self.broker.latency_s(), frame)

    def tell(self, frame: Callable[[], object]) -> None:
        """Send a frame to the client."""
        self.connection.down.send(self.broker.latency_s(), frame)

    def deliver(self, tag: int, message: Message) -> None:
        """Send a delivery."""
        raise AssertionError("a channel that publishes is delivered nothing")

    def cancel_by_broker(self) -> None:
        """Tell that its consumer gets nothing more."""

    def break_off(self, kind: str) -> None:
        """End its connection."""
        self.connection.break_off(kind)


@dataclass(slots=True, eq=False)
class SimulatedDelivery:
    """One message from a queue, as `worker.broker.Delivery`."""

    body: bytes
    routing_key: str
    properties: Properties
    redelivered: bool
    returns: int
    _tag: int
    _channel: "SimulatedConsumer"
    #: What of its properties cannot be decoded.
    undecodable: str | None = None

    @property
    def is_stale(self) -> bool:
        """Whether its channel has ended."""
        return self._channel.is_closed

    async def ack(self) -> bool:
        """Acknowledge the message."""
        return self._settle(requeue=False)

    async def requeue(self) -> bool:
        """Return the message to its queue."""
        return self._settle(requeue=True)

    def _settle(self, *, requeue: bool) -> bool:
        if self._channel.is_closed:
            return False
        channel = self._channel
        channel.unsettled -= 1
        channel.send(partial(channel.broker.settle, channel, self._tag, requeue=requeue))
        return True


class SimulatedConsumer(Channel):
    """One queue consumed on one channel."""

    def __init__(
        self, connection: "SimulatedConnection", queue: str, on_delivery: Callable[[Any], None]
    ) -> None:
        super().__init__(connection)
        self.delivered = 0
        self.unsettled = 0
        self._queue = queue
        self._on_delivery = on_delivery
        self._cancelled: asyncio.Future[str] = self.host.loop.create_future()
        self._served: ServedConsumer | None = None

    async def consume(self, prefetch: int) -> None:
        """Start consuming."""
        await self.connection.call("consuming", partial(self._begin, prefetch))

    def _begin(self, prefetch: int) -> None:
        queue = self.broker.queue(self._queue)
        self._served = ServedConsumer(self, queue, prefetch)
        queue.consumers.append(self._served)
        self.broker.dispatch(queue)

    async def cancel(self) -> None:
        """Receive no more; what was received can still be settled."""
        if not self.is_closed:
            try:
                await self.connection.call("cancelling", self.forget)
            except BrokerError:
                pass

    def forget(self) -> None:
        """Have the broker deliver nothing more here."""
        if self._served is not None and self._served in self._served.queue.consumers:
            self._served.queue.consumers.remove(self._served)

    async def ended(self) -> str:
        """Wait until the consumer gets no more deliveries, and return the reason."""
        await asyncio.wait({self.ended_by, self._cancelled}, return_when=asyncio.FIRST_COMPLETED)
        return (self._cancelled if self._cancelled.done() else self.ended_by).result()

    async def count(self) -> tuple[int, int]:
        """Return how many messages are ready in the queue, and how many consumers it has."""
        return await self.connection.count(self._queue) or (0, 0)

    def cancel_by_broker(self) -> None:
        """Tell that the consumer gets nothing more."""
        self.tell(partial(set_once, self._cancelled, "the broker cancelled the consumer"))

    def deliver(self, tag: int, message: Message) -> None:
        """Send a delivery."""
        returns = message.returns if message.is_flagged else 0
        delivery = SimulatedDelivery(
            message.body, message.routing_key, message.properties, message.is_flagged, returns, tag, self
        )
        if message.is_undecodable:
            delivery.undecodable = "a header is cut off"
        self.tell(partial(self._receive, delivery))

    def _receive(self, delivery: SimulatedDelivery) -> None:
        if not self.is_closed:
            self.delivered += 1
            self.unsettled += 1
            self.host.hot_steps = max(self.host.hot_steps, HOT_STEPS)
            self._on_delivery(delivery)


class SimulatedPublishChannel(Channel):
    """A channel with confirms."""

    def __init__(self, connection: "SimulatedConnection") -> None:
        super().__init__(connection)
        self._waiting: dict[asyncio.Future[bool | BrokerRefusal | None], None] = {}
        self._is_refused = False

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return not self.is_closed

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool = True,
        timeout_s: float | None = 10.0,
    ) -> bool:
        """Publish and wait for the confirm, as the real one does."""
        if not self.is_open:
            raise PublishUncertain("the channel was closed before the message was sent")
        confirm: asyncio.Future[bool | BrokerRefusal | None] = self.host.loop.create_future()
        self._waiting[confirm] = None
        message = Message(body, routing_key, properties)
        self.send(partial(self._take, exchange, message, confirm, mandatory=mandatory))
        try:
            await asyncio.wait({confirm}, timeout=timeout_s)
        finally:
            del self._waiting[confirm]
        if not confirm.done() or (confirmed := confirm.result()) is None:
            raise PublishUncertain("no confirm")
        if isinstance(confirmed, BrokerRefusal):
            raise PublishRefused(f"refused: {confirmed}", confirmed)
        return confirmed

    def end(self, reason: str, refusal: BrokerRefusal | None = None) -> None:
        """Learn of the end: nothing more is confirmed here."""
        super().end(reason)
        for confirm in tuple(self._waiting):
            if not confirm.done():
                confirm.set_result(refusal)

    def _take(
        self,
        exchange: str,
        message: Message,
        confirm: "asyncio.Future[bool | BrokerRefusal | None]",
        *,
        mandatory: bool,
    ) -> None:
        broker = self.broker
        if self._is_refused:
            return
        if message.routing_key.startswith(DIRECT) and message.routing_key.endswith("forged"):
            broker.counts["forged addresses"] += 1
            self.break_off("a forged address")
            return
        if broker.befalls("connection deaths before a publish"):
            self.break_off("before a publish")
            return
        if broker.befalls("refusals that close a channel", broker.rare / 2):
            self._is_refused = True
            self.tell(partial(self.end, "ACCESS_REFUSED", BrokerRefusal.FORBIDDEN))
            return
        taken = broker.publish(exchange, message, mandatory=mandatory)
        if broker.befalls("lost confirms"):
            self.break_off("between publish and confirm")
            return
        later_s = broker.choices.pick(CONFIRMS_S, broker.rare * 2)
        broker.host.call_at(broker.now + later_s, lambda: self.tell(partial(self._confirm, confirm, taken)))

    def _confirm(
        self, confirm: "asyncio.Future[bool | BrokerRefusal | None]", taken: bool | BrokerRefusal
    ) -> None:
        self.host.hot_steps = max(self.host.hot_steps, HOT_STEPS)
        if not confirm.done():
            confirm.set_result(taken)
