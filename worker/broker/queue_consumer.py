"""One queue consumed on a channel of its own, for as long as the worker lives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
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

#: Seconds between checks for an alarm.
WATCH_S: Final = 0.5
#: Checks between questions whether the broker still knows our consumer (5 s: readiness must tell within 10 s).
CONSUMER_CHECK_TICKS: Final = 10
#: Seconds with messages ready, room for them, and none delivered, after which our consumer is missing.
MISSING_S: Final = 30.0
#: Seconds before a broken channel is built again.
REBUILD_S: Final = 1.0

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

    The connection is shared with the other consumers, and its owner closes it. Started by the service (`run`
    in a task); running jobs finish after `stop`, and need the connection for their acks.
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
        self._consumer: Consumer | None = None
        self._has_consumed = False
        self._stopping = False
        self.fault: str | None = "not connected yet"

    @property
    def is_consuming(self) -> bool:
        """Whether deliveries arrive."""
        return self.fault is None

    async def run(self, on_delivery: OnDelivery) -> None:
        """Consume until stopped.

        Raises:
            TopologyMismatch, BrokerRefused: retrying cannot succeed.
        """
        tries = 0
        while not self._stopping:
            connection = None
            try:
                connection = await self._connect()
                await self._declare(connection)
            except BrokerError as error:
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

    async def stop(self) -> None:
        """Receive no more."""
        self._stopping = True
        self.fault = "stopping"
        if self._consumer is not None:
            await self._consumer.cancel()

    async def _consume(self, connection: Connection, on_delivery: OnDelivery) -> None:
        """Consume on one connection until it ends."""
        closed = asyncio.create_task(connection.closed())
        try:
            while _is_open(connection) and not self._stopping:
                try:
                    await self._consume_on_channel(connection, closed, on_delivery)
                except BrokerError as error:
                    if isinstance(error, BrokerRefused) and not self._has_consumed:
                        raise
                    if not _is_open(connection):
                        break
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
            logger.warning("queue consumer lost its connection", queue=self.queue.name, reason=end.reason)
        finally:
            closed.cancel()

    async def _consume_on_channel(
        self, connection: Connection, closed: "asyncio.Task[Closed]", on_delivery: OnDelivery
    ) -> None:
        """Consume on one channel until it, its consumer or its connection ends."""
        consumer = self._consumer = await connection.consumer(
            self.queue.name, partial(on_delivery, self.queue)
        )
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
                await consumer.consume(self._prefetch)
                self._has_consumed = True
                self.fault = None
                logger.info("queue consumer started", queue=self.queue.name, prefetch=self._prefetch)
                await self._watch(consumer, {closed, ended})
            if ended.done() and _is_open(connection) and not self._stopping:
                raise BrokerError(await ended)
        finally:
            ended.cancel()
            if not self._stopping:
                await consumer.close()  # a channel for each queue that was deleted would add up

    async def _watch(self, consumer: Consumer, ends: set["asyncio.Task[Any]"]) -> None:
        """Wait until consuming has ended, or the broker blocks publishers."""
        ticks, idle = 0, _Idle(self._prefetch)
        while not self._stopping and self._flowing.is_set():
            done, _ = await asyncio.wait(ends, timeout=WATCH_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
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


def _is_open(connection: Connection) -> bool:
    """Return whether a connection can still be used, which changes while it is waited for."""
    return connection.is_open
