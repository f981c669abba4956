"""The connection that is published on: it reconnects by itself, and knows when the broker blocks publishers."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from loguru import logger

from worker.broker import BrokerError, Connection, PublishChannel
from worker.broker.reconnect import RECONNECT, ReconnectPolicy

#: Seconds between checks whether the broker blocks publishers.
ALARM_CHECK_S: Final = 0.5

Connect = Callable[[], Awaitable[Connection]]


class PublisherLink:
    """One connection for publishing, with a channel that all share, and channels of a message's own."""

    def __init__(
        self,
        connect: Connect,
        *,
        name: str,
        on_change: Callable[[bool], None] | None = None,
        reconnect: ReconnectPolicy = RECONNECT,
    ) -> None:
        self.reconnect: Final = reconnect
        self.name = name
        self._connect = connect
        self._on_change = on_change or (lambda is_open: None)
        self._channel: PublishChannel | None = None
        self._connection: Connection | None = None
        self._open = asyncio.Event()
        #: Set while the broker accepts publishes; cleared by its memory or disk alarm.
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._reopening = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None
        self._unreachable = "not connected yet"

    @property
    def is_open(self) -> bool:
        """Whether it can be published on now."""
        return self._open.is_set()

    @property
    def connection(self) -> Connection | None:
        """The open connection; None while there is none."""
        return self._connection if self._open.is_set() else None

    @property
    def fault(self) -> str | None:
        """Why nothing can be published; None if something can."""
        if not self._open.is_set():
            return f"not connected to publish: {self._unreachable}"
        if not self.flowing.is_set():
            return "the broker blocks publishers: memory or disk alarm"
        return None

    def start(self) -> None:
        """Connect and stay connected, in the background."""
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name=f"{self.name}-publisher")

    async def close(self) -> None:
        """Stop; what is not confirmed stays uncertain."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        if self._connection is not None:
            await self._connection.close()

    async def shared_channel(self) -> PublishChannel:
        """Wait until something can be published, and return the channel that all share."""
        while True:
            connection, channel = await self._ready_connection(), self._channel
            if channel is not None and channel.is_open:
                return channel
            # A refusal closed the channel; its connection lives.
            async with self._reopening:
                if self._channel is channel:
                    try:
                        self._channel = await connection.publish_channel()
                    except BrokerError:
                        await asyncio.sleep(self.reconnect.delay_s(0))

    async def own_channel(self) -> PublishChannel:
        """Wait until something can be published, and return a new channel."""
        return await (await self._ready_connection()).publish_channel()

    async def _ready_connection(self) -> Connection:
        while True:
            await self._open.wait()
            await self.flowing.wait()
            if self._connection is not None and self._connection.is_open:
                return self._connection
            self._open.clear()

    async def _supervise(self) -> None:
        tries = 0
        while True:
            connection = None
            try:
                connection = await self._connect()
                self._channel = await connection.publish_channel()
            except BrokerError as error:
                if connection is not None:
                    await connection.close()
                self._unreachable = str(error)
                if tries == 0:
                    logger.warning("broker unreachable", link=self.name, reason=str(error))
                await asyncio.sleep(self.reconnect.delay_s(tries))
                tries += 1
                continue
            tries = 0
            await self._stay_open(connection)

    async def _stay_open(self, connection: Connection) -> None:
        """Offer a connection until it ends."""
        self._connection = connection
        self._open.set()
        self._on_change(True)
        logger.debug("broker link open", link=self.name)
        watch = asyncio.create_task(self._watch_alarm(connection))
        try:
            closed = await connection.closed()
        finally:
            watch.cancel()
            self._open.clear()
            self._on_change(False)
            self.flowing.set()
        self._unreachable = closed.reason
        logger.warning("broker link lost", link=self.name, reason=closed.reason)
        await connection.close()

    async def _watch_alarm(self, connection: Connection) -> None:
        while True:
            blocked = connection.is_blocked
            if blocked and self.flowing.is_set():
                logger.warning("broker blocks publishers", link=self.name, reason="memory or disk alarm")
                self.flowing.clear()
            elif not blocked and not self.flowing.is_set():
                logger.info("broker accepts publishes again", link=self.name)
                self.flowing.set()
            await asyncio.sleep(ALARM_CHECK_S)
