"""One queue consumed on one connection, for as long as the worker lives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from loguru import logger

from worker.broker import (
    BrokerError,
    BrokerRefused,
    Closed,
    Connection,
    Consumer,
    Delivery,
    TopologyMismatch,
)
from worker.broker.publisher_link import Connect
from worker.broker.reconnect import RECONNECT
from worker.broker.topology import JobQueue

#: Seconds between checks for a change: an alarm, the end of a quarantine.
WATCH_S: Final = 0.5
#: Checks between questions whether the broker still knows our consumer (5 s: readiness must tell within 10 s).
CONSUMER_CHECK_TICKS: Final = 10
#: Seconds with messages ready, room for them, and none delivered, after which our consumer is missing.
MISSING_S: Final = 30.0
#: Seconds before a broken channel is built again.
REBUILD_S: Final = 1.0
#: Deliveries received one by one after a frame that could not be decoded.
QUARANTINE_DELIVERIES: Final = 20

OnDelivery = Callable[[JobQueue, Delivery], None]


class _Idle:
    """How long messages were ready for a consumer that has room, and none came."""

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch
        self._delivered = -1
        self._since = 0.0

    def is_missing(self, consumer: Consumer, ready: int) -> bool:
        """Note one look at the queue; return whether the consumer must have been forgotten."""
        has_room = consumer.unsettled < self._prefetch
        if ready == 0 or not has_room or consumer.delivered != self._delivered:
            self._delivered, self._since = consumer.delivered, _now()
            return False
        return _now() - self._since >= MISSING_S


def _now() -> float:
    return asyncio.get_running_loop().time()


class QueueConsumer:
    """Keeps consuming one queue: connects, consumes, and starts again if anything ends.

    A connection of its own, because one undecodable message kills it (measured) and must not stop the
    other queues. After such a message it receives one delivery at a time: the broker's delivery limit
    then counts for the bad one alone, which ends in the poison queue.

    Started by the service (`run` in a task); running jobs finish after `stop`.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        prefetch: int,
        connect: Connect,
        declare: Callable[[Connection], Awaitable[None]],
        flowing: asyncio.Event,
    ) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._connect = connect
        self._declare = declare
        self._flowing = flowing
        self._connection: Connection | None = None
        self._consumer: Consumer | None = None
        self._quarantine = 0
        self._has_consumed = False
        self._stopping = False
        self.fault: str | None = "not connected yet"

    @property
    def is_consuming(self) -> bool:
        """Whether deliveries arrive."""
        return self.fault is None

    @property
    def is_quarantined(self) -> bool:
        """Whether deliveries are received one by one, because of one that cannot be decoded."""
        return self._quarantine > 0

    async def run(self, on_delivery: OnDelivery) -> None:
        """Consume until stopped.

        Raises:
            TopologyMismatch, BrokerRefused: retrying cannot succeed.
        """
        tries = 0
        while not self._stopping:
            connection = None
            try:
                self._connection = connection = await self._connect()
                await self._declare(connection)
            except BrokerError as error:
                if connection is not None:
                    await connection.close()
                # A permission that is missing later may be granted again; a login refused is final by then.
                is_login = connection is None
                if isinstance(error, TopologyMismatch) or (
                    isinstance(error, BrokerRefused) and (is_login or not self._has_consumed)
                ):
                    raise
                self.fault = str(error)
                if tries == 0:
                    logger.warning("queue consumer cannot connect", queue=self.queue.name, reason=str(error))
                await asyncio.sleep(RECONNECT.delay_s(tries))
                tries += 1
                continue
            tries = 0
            await self._consume(connection, on_delivery)
            if not self._stopping:
                await connection.close()  # it has ended; this frees the client's resources

    async def stop(self) -> None:
        """Receive no more. The connection stays: running jobs need it for their acks."""
        self._stopping = True
        self.fault = "stopping"
        if self._consumer is not None:
            await self._consumer.cancel()

    async def close(self) -> None:
        """Close the connection, last of all."""
        if self._connection is not None:
            await self._connection.close()

    async def _consume(self, connection: Connection, on_delivery: OnDelivery) -> None:
        """Consume on one connection until it ends."""
        closed = asyncio.create_task(connection.closed())
        try:
            while not closed.done() and not self._stopping:
                try:
                    await self._consume_on_channel(connection, closed, on_delivery)
                except BrokerError as error:
                    if isinstance(error, BrokerRefused) and not self._has_consumed:
                        raise
                    if self.fault != str(error):
                        logger.warning(
                            "queue consumer cannot consume", queue=self.queue.name, reason=str(error)
                        )
                    self.fault = str(error)
                    await asyncio.wait({closed}, timeout=REBUILD_S)
                    if not closed.done():
                        with suppress(BrokerError):
                            await self._declare(connection)  # the queue may have been deleted
            if self._stopping:
                return
            end = await closed
            self.fault = end.reason
            if end.undecodable:
                self._quarantine = QUARANTINE_DELIVERIES
            logger.warning(
                "queue consumer lost its connection",
                queue=self.queue.name,
                reason=end.reason,
                quarantined=end.undecodable,
            )
        finally:
            closed.cancel()

    async def _consume_on_channel(
        self, connection: Connection, closed: "asyncio.Task[Closed]", on_delivery: OnDelivery
    ) -> None:
        """Consume on one channel until it, its consumer or its connection ends."""

        def receive(delivery: Delivery) -> None:
            self._quarantine = max(0, self._quarantine - 1)
            on_delivery(self.queue, delivery)

        consumer = self._consumer = await connection.consumer(self.queue.name, receive)
        ended = asyncio.create_task(consumer.ended())
        try:
            while not (closed.done() or ended.done() or self._stopping):
                if not self._flowing.is_set():
                    # The broker blocks publishers: more jobs could be run, but none answered.
                    await consumer.cancel()
                    self.fault = "paused: the broker's memory or disk alarm"
                    logger.warning(
                        "queue consumer paused", queue=self.queue.name, reason="memory or disk alarm"
                    )
                    flowing = asyncio.create_task(self._flowing.wait())
                    await asyncio.wait({closed, ended, flowing}, return_when=asyncio.FIRST_COMPLETED)
                    flowing.cancel()
                    continue
                prefetch = 1 if self.is_quarantined else self._prefetch
                await consumer.consume(prefetch)
                self._has_consumed = True
                self.fault = None
                logger.info("queue consumer started", queue=self.queue.name, prefetch=prefetch)
                await self._watch(consumer, prefetch, {closed, ended})
                if not (closed.done() or ended.done() or self._stopping):
                    await consumer.cancel()  # to start again with another prefetch
            if ended.done() and not closed.done() and not self._stopping:
                raise BrokerError(await ended)
        finally:
            ended.cancel()
            if not self._stopping:
                await consumer.close()  # a channel for each queue that was deleted would add up

    async def _watch(self, consumer: Consumer, prefetch: int, ends: set["asyncio.Task[Any]"]) -> None:
        """Wait until consuming has ended, or should start again."""
        ticks, idle = 0, _Idle(prefetch)
        while not self._stopping and self._flowing.is_set():
            done, _ = await asyncio.wait(ends, timeout=WATCH_S, return_when=asyncio.FIRST_COMPLETED)
            if done or (prefetch == 1 < self._prefetch and not self.is_quarantined):
                return
            ticks += 1
            if ticks % CONSUMER_CHECK_TICKS == 0:
                ready, consumers = await consumer.count()
                if consumers == 0:
                    raise BrokerError(f"the broker sees no consumer on {self.queue.name}")
                if idle.is_missing(consumer, ready):
                    raise BrokerError(
                        f"{ready} messages are ready in {self.queue.name} and none was delivered "
                        f"for {MISSING_S:g} s: the broker has forgotten our consumer"
                    )
