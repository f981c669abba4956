"""A worker's side of the simulated broker: what `worker.broker` offers to publishers and queue consumers.

Frames go one way each, in order, and take time. A connection that breaks loses what is on its way, and its two ends
learn of that one after the other: what was stored may stay unconfirmed, and what was acked may come again.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from tests.simulation.broker import Broker
from tests.simulation.broker_channels import Channel, SimulatedConsumer, SimulatedPublishChannel, set_once
from tests.simulation.broker_wire import Wire
from tests.simulation.loop import Host
from worker.broker import BrokerError, Closed
from worker.broker.calls import RPC_TIMEOUT_S

T = TypeVar("T")

#: Seconds until one end learns that the other is gone: at once (a reset), or by heartbeats.
NOTICED_S: Final = (0.001, 0.3, 33.0)


class SimulatedConnection:
    """One connection, with both its ends."""

    def __init__(self, broker: Broker, host: Host) -> None:
        self.broker = broker
        self.host = host
        self.up, self.down = Wire(broker.host), Wire(host)
        #: Still open as the broker sees it.
        self.is_served = True
        self.is_blocked = False
        self.is_publishing = False
        self._channels: list[Channel] = []
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

    async def consumer(self, queue: str, on_delivery: Callable[[Any], None]) -> SimulatedConsumer:
        """Open a channel for consuming a queue."""
        channel = SimulatedConsumer(self, queue, on_delivery)
        await self.call("opening a channel", partial(self._channels.append, channel))
        return channel

    async def publish_channel(self) -> SimulatedPublishChannel:
        """Open a channel with confirms."""
        channel = SimulatedPublishChannel(self)
        await self.call("opening a channel", partial(self._publish_on, channel))
        return channel

    def _publish_on(self, channel: SimulatedPublishChannel) -> None:
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
        answer: asyncio.Future[Any] = self.host.loop.create_future()
        self.up.send(self.broker.latency_s(), lambda: self._serve(answer, serve))
        await asyncio.wait({answer, self._closed}, timeout=RPC_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise BrokerError(f"{doing}: no answer")
        answered: T | BrokerError = answer.result()
        if isinstance(answered, BrokerError):
            raise answered
        return answered

    def _serve(self, answer: "asyncio.Future[T | BrokerError]", serve: Callable[[], T]) -> None:
        try:
            answered: T | BrokerError = serve()
        except BrokerError as error:
            answered = error
        self.down.send(self.broker.latency_s(), partial(set_once, answer, answered))

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
        self.host.call_at(
            self.broker.now + self.broker.latency_s(), partial(self._end, "the broker ended it")
        )

    def block(self, is_blocked: bool) -> None:
        """Tell of an alarm, and read nothing while it lasts."""
        if self.is_publishing and self.is_served:
            self.up.hold(is_blocked=is_blocked)
            self.down.send(self.broker.latency_s(), lambda: setattr(self, "is_blocked", is_blocked))

    def _end(self, reason: str) -> None:
        if not self._closed.done():
            self._closed.set_result(Closed(reason))
            for channel in self._channels:
                channel.end(reason)


async def connect(
    broker: Broker, host: Host, opened: Callable[[SimulatedConnection], object]
) -> SimulatedConnection:
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
