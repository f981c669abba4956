"""A publishing connection that reconnects by itself, and publishes until the broker confirms."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from enum import StrEnum
from typing import Final

from loguru import logger

from worker.broker import (
    BrokerError,
    Connection,
    Properties,
    PublishChannel,
    PublishRefused,
    PublishUncertain,
)

#: Seconds between tries to connect: doubling, with jitter, so that a fleet does not come back at once.
RECONNECT_S: Final = (0.2, 5.0)
#: Seconds between checks whether the broker blocks publishers.
ALARM_CHECK_S: Final = 0.5

Connect = Callable[[], Awaitable[Connection]]


class PublishOutcome(StrEnum):
    """How a publish ended."""

    DELIVERED = "delivered"
    #: No queue is bound there.
    RETURNED = "returned"
    #: The broker refuses it: a full queue, no permission, a forged address.
    REFUSED = "refused"


def reconnect_delay_s(tries: int) -> float:
    """Return the jittered wait after `tries` failed tries."""
    first, most = RECONNECT_S
    return random.uniform(0.5, 1.0) * min(most, first * float(2**tries))  # noqa: S311  # jitter, not a secret


class ConfirmedPublisher:
    """Publishes with confirms on a connection of its own.

    An uncertain publish is repeated: its reader may get a second copy. Started by `start`, or by the
    first publish.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        on_change: Callable[[bool], None] | None = None,
        declare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._connect = connect
        self._name = name
        self._on_change = on_change or (lambda is_open: None)
        #: Declares our queues again if one was deleted.
        self.declare = declare
        self._channel: PublishChannel | None = None
        self._connection: Connection | None = None
        self._open = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._solo = asyncio.Lock()
        self._reopening = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can publish now."""
        return self._open.is_set()

    @property
    def flowing(self) -> asyncio.Event:
        """Set while the broker accepts publishes; cleared by its memory or disk alarm."""
        return self._flowing

    def start(self) -> None:
        """Connect and stay connected, in the background."""
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name=f"{self._name}-publisher")

    async def close(self) -> None:
        """Stop; what is not confirmed stays uncertain."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        if self._connection is not None:
            await self._connection.close()

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool = True,
        refusals: int | None = None,
        must_route: bool = False,
    ) -> PublishOutcome:
        """Publish until the broker confirms, returns or refuses it.

        Waits as long as the broker is unavailable: what happened to a job is never dropped.

        Args:
            refusals: give up after this many; None for never, if it has nowhere else to go.
            must_route: it goes to a queue of ours, which is declared again if it is missing.
        """
        self.start()
        tries = 0
        refused = 0
        alone = False
        while True:
            try:
                async with self._solo if alone else nullcontext():
                    channel = await self._ready()
                    routed = await channel.publish(
                        exchange, routing_key, body, properties, mandatory=mandatory
                    )
                if routed or not must_route:
                    return PublishOutcome.DELIVERED if routed else PublishOutcome.RETURNED
                if tries == 0:
                    logger.error("our own queue is missing", exchange=exchange, routing_key=routing_key)
                await self._declare_again()
            except PublishUncertain as uncertain:
                # A forged direct reply-to kills the connection. Published alone, it is identified.
                suspect = uncertain.broke and mandatory is False
                refused += alone and suspect
                alone = alone or suspect
            except PublishRefused as refusal:
                refused += alone or not refusal.channel_died
                alone = alone or refusal.channel_died
                if must_route and refusal.channel_died:
                    await self._declare_again()
            if refusals is not None and refused >= refusals:
                return PublishOutcome.REFUSED
            tries += 1
            await asyncio.sleep(reconnect_delay_s(min(tries, 5)))

    async def _declare_again(self) -> None:
        if self.declare is not None and self._connection is not None:
            with suppress(BrokerError):
                await self.declare(self._connection)

    async def _ready(self) -> PublishChannel:
        while True:
            await self._open.wait()
            channel, connection = self._channel, self._connection
            if channel is not None and channel.is_open:
                return channel
            if connection is not None and connection.is_open:
                # A refusal closed the channel; its connection lives.
                async with self._reopening:
                    if self._channel is channel:
                        try:
                            self._channel = await PublishChannel.open(connection)
                        except BrokerError:
                            await asyncio.sleep(reconnect_delay_s(0))
            else:
                self._open.clear()

    async def _supervise(self) -> None:
        tries = 0
        while True:
            try:
                self._connection = connection = await self._connect()
                self._channel = await PublishChannel.open(connection)
            except BrokerError as error:
                if tries == 0:
                    logger.warning("broker unreachable", link=self._name, reason=str(error))
                await asyncio.sleep(reconnect_delay_s(tries))
                tries += 1
                continue
            tries = 0
            self._open.set()
            self._on_change(True)
            logger.debug("broker link open", link=self._name)
            watch = asyncio.create_task(self._watch_alarm(connection))
            try:
                closed = await connection.closed()
            finally:
                watch.cancel()
                self._open.clear()
                self._on_change(False)
                self._flowing.set()
            logger.warning("broker link lost", link=self._name, reason=closed.reason)
            await connection.close()

    async def _watch_alarm(self, connection: Connection) -> None:
        while True:
            blocked = connection.is_blocked
            if blocked and self._flowing.is_set():
                logger.warning("broker blocks publishers", link=self._name, reason="memory or disk alarm")
                self._flowing.clear()
            elif not blocked and not self._flowing.is_set():
                logger.info("broker accepts publishes again", link=self._name)
                self._flowing.set()
            await asyncio.sleep(ALARM_CHECK_S)
