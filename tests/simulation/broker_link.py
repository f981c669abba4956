"""A worker's side of the simulated broker: what `worker.broker` offers to publishers and queue consumers.

Frames go one way each, in order, and take time. A connection that breaks loses what is on its way, and its two ends
learn of that one after the other: what was stored may stay unconfirmed, and what was acked may come again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from tests.simulation.broker import Broker, DIRECT, CONFIRMS_S, Message, ServedConsumer
from tests.simulation.loop import Host
from worker.broker import (
    BrokerError,
    BrokerRefusal,
    Closed,
    Properties,
    PublishRefused,
    PublishUncertain,
)
from worker.broker.calls import RPC_TIMEOUT_S

T = TypeVar("T")

#: Seconds until one end learns that the other is gone: at once (a reset), or by heartbeats.
NOTICED_S: Final = (0.001, 0.3, 33.0)
#: Steps of a worker after a frame in which it is killed more often.
HOT_STEPS: Final = 6


class _Wire:
    """One direction: frames arrive in order, or not at all."""

    def __init__(self, receiver: Host) -> None:
        self._receiver = receiver
        self._frames: deque[Callable[[], object]] = deque()
        self._last_at = 0.0
        self._due = 0
        self._is_cut = False
        self._is_held = False

    def send(self, latency_s: float, frame: Callable[[], object]) -> None:
        if self._is_cut:
            return
        self._last_at = max(self._receiver.loop.time() + latency_s, self._last_at)
        self._frames.append(frame)
        self._receiver.call_at(self._last_at, self._arrive)

    def _arrive(self) -> None:
        if self._is_held:
            self._due += 1
        elif self._frames:
            self._frames.popleft()()

    def hold(self, *, is_blocked: bool) -> None:
        """Read nothing for a while: the broker's alarm."""
        self._is_held = is_blocked
        while not self._is_held and self._due:
            self._due -= 1
            if self._frames:
                self._frames.popleft()()

    def cut(self) -> None:
        """Lose what is on its way, and all that comes after it."""
        self._is_cut = True
        self._frames.clear()


class SimulatedConnection:
    """One connection, with both its ends."""

    def __init__(self, broker: Broker, host: Host) -> None:
        self.broker = broker
        self.host = host
        self.up, self.down = _Wire(broker.host), _Wire(host)
        #: Still open as the broker sees it.
        self.is_served = True
        self.is_blocked = False
        self.is_publishing = False
        self._channels: list[_Channel] = []
        self._closed: asyncio.Future[Closed] = host.loop.create_future()

    # What a worker sees.

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return not self._closed.done()

    async def closed(self) -> Closed:
        """Wait for the end, and return its reason."""
        await asyncio.wait({self._closed})
        return self._closed.result()

    async def consumer(self, queue: str, on_delivery: Callable[[Any], None]) -> "SimulatedConsumer":
        """Open a channel for consuming a queue."""
        channel = SimulatedConsumer(self, queue, on_delivery)
        await self.call("opening a channel", partial(self._channels.append, channel))
        return channel

    async def publish_channel(self) -> "SimulatedPublishChannel":
        """Open a channel with confirms."""
        channel = SimulatedPublishChannel(self)
        await self.call("opening a channel", partial(self._publish_on, channel))
        return channel

    def _publish_on(self, channel: "SimulatedPublishChannel") -> None:
        self._channels.append(channel)
        self.is_publishing = True
        self.block(self.broker.has_alarm)

    async def count(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages and consumers a queue has; None if there is no such queue."""
        return await self.call("looking at a queue", partial(self._count, queue))

    def _count(self, name: str) -> tuple[int, int] | None:
        queue = self.broker.queues.get(name)
        return None if queue is None else (len(queue.ready), len(queue.consumers))

    async def call(self, doing: str, serve: Callable[[], T]) -> T:
        """Ask the broker for something, bounded in time.

        Raises:
            BrokerError: it refused, or gave no answer.
        """
        if not self.is_open:
            raise BrokerError(f"{doing}: the connection is closed")
        answer: asyncio.Future[T | BrokerError] = self.host.loop.create_future()
        self.up.send(self.broker.latency_s(), lambda: self._serve(answer, serve))
        await asyncio.wait(
            {answer, self._closed}, timeout=RPC_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        if not answer.done():
            raise BrokerError(f"{doing}: no answer")
        answered = answer.result()
        if isinstance(answered, BrokerError):
            raise answered
        return answered

    def _serve(self, answer: "asyncio.Future[T | BrokerError]", serve: Callable[[], T]) -> None:
        try:
            answered: T | BrokerError = serve()
        except BrokerError as error:
            answered = error
        self.down.send(self.broker.latency_s(), lambda: answer.done() or answer.set_result(answered))

    async def close(self) -> None:
        """Close it; what was not acked is delivered again."""
        self.up.send(self.broker.latency_s(), self.end_served)
        self._end("closed")

    # What becomes of it.

    def break_off(self, reason: str) -> None:
        """Lose the connection; each end learns of it in its own time."""
        now, pick = self.broker.now, self.broker.choices.pick
        self.up.cut()
        self.down.cut()
        served_s, known_s = pick(NOTICED_S, 0.3), pick(NOTICED_S, 0.3)
        self.broker.events.disturb(max(served_s, known_s))
        self.broker.host.call_at(now + served_s, self.end_served)
        self.host.call_at(now + known_s, partial(self._end, reason))

    def end_served(self) -> None:
        """Let the broker take back what it delivered here."""
        if not self.is_served:
            return
        self.is_served = False
        self.up.cut()
        self.down.cut()
        for channel in self._channels:
            self.broker.release(channel)
        self.host.call_at(self.broker.now + self.broker.latency_s(), partial(self._end, "the broker ended it"))

    def undecodable(self) -> None:
        """End it in the client: a frame cannot be read."""
        self.down.cut()
        self.up.send(self.broker.latency_s(), self.end_served)
        self._end("a frame cannot be decoded", undecodable=True)

    def block(self, is_blocked: bool) -> None:  # noqa: FBT001
        """Tell of an alarm, and read nothing while it lasts."""
        if self.is_publishing and self.is_served:
            self.up.hold(is_blocked=is_blocked)
            self.down.send(self.broker.latency_s(), lambda: setattr(self, "is_blocked", is_blocked))

    def _end(self, reason: str, *, undecodable: bool = False) -> None:
        if not self._closed.done():
            self._closed.set_result(Closed(reason, undecodable=undecodable))
            for channel in self._channels:
                channel.end(reason)


class _Channel:
    """What both kinds of channel have."""

    def __init__(self, connection: SimulatedConnection) -> None:
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
        raise NotImplementedError

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


class SimulatedConsumer(_Channel):
    """One queue consumed on one channel."""

    def __init__(
        self, connection: SimulatedConnection, queue: str, on_delivery: Callable[[Any], None]
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
        self.tell(
            lambda: self._cancelled.done() or self._cancelled.set_result("the broker cancelled the consumer")
        )

    def deliver(self, tag: int, message: Message) -> None:
        """Send a delivery."""
        returns = message.returns if message.is_flagged else 0
        delivery = SimulatedDelivery(
            message.body, message.routing_key, message.properties, message.is_flagged, returns, tag, self
        )
        self.tell(partial(self._receive, delivery, is_undecodable=message.is_undecodable))

    def _receive(self, delivery: SimulatedDelivery, *, is_undecodable: bool) -> None:
        if is_undecodable:
            self.connection.undecodable()
        elif not self.is_closed:
            self.delivered += 1
            self.unsettled += 1
            self.host.hot_steps = max(self.host.hot_steps, HOT_STEPS)
            self._on_delivery(delivery)


class SimulatedPublishChannel(_Channel):
    """A channel with confirms."""

    def __init__(self, connection: SimulatedConnection) -> None:
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


async def connect(broker: Broker, host: Host, opened: Callable[[SimulatedConnection], object]) -> SimulatedConnection:
    """Open a connection.

    Raises:
        BrokerError: it cannot be reached.
    """
    await asyncio.sleep(broker.latency_s())
    if broker.is_away:
        raise BrokerError("RabbitMQ cannot be reached")
    connection = SimulatedConnection(broker, host)
    opened(connection)
    return connection
