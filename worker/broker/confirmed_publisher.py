"""A publishing connection that reconnects by itself, and publishes until the broker confirms."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
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
    Refusal,
)

#: Seconds between tries to connect: doubling, with jitter, so that a fleet does not come back at once.
RECONNECT_S: Final = (0.2, 5.0)
#: Seconds between checks whether the broker blocks publishers.
ALARM_CHECK_S: Final = 0.5
#: Connections that a message may end, published alone, before it is what ends them.
_MOST_BROKEN_CONNECTIONS: Final = 2
#: Messages published on channels of their own at once.
_MOST_OWN_CHANNELS: Final = 20

Connect = Callable[[], Awaitable[Connection]]


class PublishOutcome(StrEnum):
    """How a publish ended."""

    DELIVERED = "delivered"
    #: No queue is bound there.
    RETURNED = "returned"
    #: The broker refuses it: a full queue, no permission, a forged address.
    REFUSED = "refused"
    #: The broker accepts no message of this size.
    TOO_LARGE = "too_large"


def reconnect_delay_s(tries: int) -> float:
    """Return the jittered wait after `tries` failed tries."""
    first, most = RECONNECT_S
    return random.uniform(0.5, 1.0) * min(most, first * float(2**tries))  # noqa: S311  # jitter, not a secret


class ConfirmedPublisher:
    """Publishes with confirms on a connection of its own.

    1. while the broker blocks publishers, nothing is sent
    2. a message whose channel ended before its confirm is published again: its reader may get a second
       copy. A confirm that is late is waited for, because a live channel loses none
    3. a refusal that closes the channel hits what was published beside it; each of those is published
       again on a channel of its own, so that the one refused is known

    Started by `start`, or by the first publish.
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
        #: Exchanges whose last message was refused: the next is published alone, to close no shared channel.
        self._suspects: set[str] = set()
        self._own_channels = asyncio.Semaphore(_MOST_OWN_CHANNELS)
        self._solo = asyncio.Lock()
        self._reopening = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None
        #: Our user as it is configured, and as the broker knows it.
        self._user: tuple[str, str] | None = None
        self._unreachable: str | None = "not connected yet"
        #: Why a message of ours is refused again and again, by the message.
        self._refused: dict[object, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether it can publish now."""
        return self._open.is_set()

    @property
    def flowing(self) -> asyncio.Event:
        """Set while the broker accepts publishes; cleared by its memory or disk alarm."""
        return self._flowing

    @property
    def connection(self) -> Connection | None:
        """The open connection; None while there is none."""
        return self._connection if self._open.is_set() else None

    @property
    def fault(self) -> str | None:
        """Why nothing, or not everything, can be published; None if all is well."""
        if not self._open.is_set():
            return f"not connected to publish: {self._unreachable}"
        if not self._flowing.is_set():
            return "the broker blocks publishers: memory or disk alarm"
        return next(iter(self._refused.values()), None)

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

    def act_as(self, configured: str, actual: str) -> None:
        """Publish under the user that the broker knows, if it is not the configured one."""
        self._user = (configured, actual)

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
        message, refused = object(), 0
        try:
            while True:
                try:
                    routed = await self.deliver(exchange, routing_key, body, properties, mandatory=mandatory)
                    if routed or not must_route:
                        return PublishOutcome.DELIVERED if routed else PublishOutcome.RETURNED
                    reason = f"our own queue behind {exchange!r} is missing"
                except PublishRefused as refusal:
                    if refusals is not None and refusal.refusal is Refusal.TOO_LARGE:
                        return PublishOutcome.TOO_LARGE
                    if refusals is not None and (refusal.is_final or refused + 1 >= refusals):
                        return PublishOutcome.REFUSED
                    reason = str(refusal)
                refused += 1
                self._note_refusal(message, exchange, reason, said=refused > 1)
                if must_route:
                    await self._declare_again()
                await asyncio.sleep(reconnect_delay_s(min(refused, 5)))
        finally:
            self._refused.pop(message, None)

    async def deliver(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, *, mandatory: bool = True
    ) -> bool:
        """Publish until the broker confirms or refuses it; return whether a queue took it.

        Raises:
            PublishRefused: this very message was refused, not one beside it.
        """
        self.start()
        if self._user is not None and properties.user_id == self._user[0]:
            properties = replace(properties, user_id=self._user[1])
        alone, broke, tries = exchange in self._suspects, 0, 0
        while True:
            try:
                publish = self._publish_alone if alone else self._publish
                routed = await publish(exchange, routing_key, body, properties, mandatory)
                self._suspects.discard(exchange)
                return routed
            except PublishRefused as refusal:
                if not refusal.channel_died:
                    raise
                if alone:
                    self._suspects.add(exchange)
                    raise
                alone = True
                continue
            except PublishUncertain as uncertain:
                # A forged direct reply-to ends the connection. Published alone, it is identified.
                broke += alone and not mandatory
                if broke >= _MOST_BROKEN_CONNECTIONS:
                    raise PublishRefused(f"it ends its connection: {uncertain}", Refusal.INVALID) from None
                alone = alone or not mandatory
            except BrokerError:
                pass  # no channel could be opened
            tries += 1
            await asyncio.sleep(reconnect_delay_s(min(tries, 5)))

    async def _publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> bool:
        channel = await self._ready()
        return await channel.publish(
            exchange, routing_key, body, properties, mandatory=mandatory, timeout_s=None
        )

    async def _publish_alone(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> bool:
        """Publish on a channel that nothing else is published on."""
        # What may end the connection goes one by one; what may end its channel, side by side.
        async with self._own_channels if mandatory else self._solo:
            channel = await PublishChannel.open(await self._ready_connection())
            try:
                return await channel.publish(
                    exchange, routing_key, body, properties, mandatory=mandatory, timeout_s=None
                )
            finally:
                await channel.close()

    def _note_refusal(self, message: object, exchange: str, reason: str, *, said: bool) -> None:
        self._refused[message] = f"cannot publish to {exchange or 'the default exchange'}: {reason}"
        if not said:
            logger.error("broker refuses a message", link=self._name, exchange=exchange, reason=reason)

    async def _declare_again(self) -> None:
        if self.declare is not None and self._connection is not None:
            with suppress(BrokerError):
                await self.declare(self._connection)

    async def _ready(self) -> PublishChannel:
        """Wait until something can be published, and return the channel that all share."""
        while True:
            connection, channel = await self._ready_connection(), self._channel
            if channel is not None and channel.is_open:
                return channel
            # A refusal closed the channel; its connection lives.
            async with self._reopening:
                if self._channel is channel:
                    try:
                        self._channel = await PublishChannel.open(connection)
                    except BrokerError:
                        await asyncio.sleep(reconnect_delay_s(0))

    async def _ready_connection(self) -> Connection:
        while True:
            await self._open.wait()
            await self._flowing.wait()
            if self._connection is not None and self._connection.is_open:
                return self._connection
            self._open.clear()

    async def _supervise(self) -> None:
        tries = 0
        while True:
            connection = None
            try:
                connection = await self._connect()
                self._channel = await PublishChannel.open(connection)
            except BrokerError as error:
                if connection is not None:
                    await connection.close()
                self._unreachable = str(error)
                if tries == 0:
                    logger.warning("broker unreachable", link=self._name, reason=str(error))
                await asyncio.sleep(reconnect_delay_s(tries))
                tries += 1
                continue
            tries = 0
            await self._stay_open(connection)

    async def _stay_open(self, connection: Connection) -> None:
        """Offer a connection until it ends."""
        self._connection = connection
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
        self._unreachable = closed.reason
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
