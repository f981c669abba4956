"""Publishes until the broker confirms, returns or refuses a message."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Final

from loguru import logger

from worker.broker import (
    BrokerError,
    BrokerRefusal,
    Connection,
    Properties,
    PublishRefused,
    PublishUncertain,
)
from worker.broker.publisher_link import Connect, PublisherLink
from worker.broker.reconnect import RECONNECT, ReconnectPolicy

#: Connections that a message may end, published alone, before it is what ends them.
_MOST_BROKEN_CONNECTIONS: Final = 2
#: Messages published on channels of their own at once.
_MOST_OWN_CHANNELS: Final = 20


class PublishOutcome(StrEnum):
    """How a publish ended."""

    DELIVERED = "delivered"
    #: No queue is bound there.
    RETURNED = "returned"
    #: The broker refuses it: a full queue, no permission, a forged address.
    REFUSED = "refused"
    #: The broker accepts no message of this size.
    TOO_LARGE = "too_large"


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
        reconnect: ReconnectPolicy = RECONNECT,
    ) -> None:
        self._link = PublisherLink(connect, name=name, on_change=on_change, reconnect=reconnect)
        #: Declares our queues again if one was deleted.
        self.declare = declare
        #: Exchanges whose last message was refused: the next is published alone, to close no shared channel.
        self._suspects: set[str] = set()
        self._own_channels = asyncio.Semaphore(_MOST_OWN_CHANNELS)
        self._solo = asyncio.Lock()
        #: Our user as it is configured, and as the broker knows it.
        self._user: tuple[str, str] | None = None
        #: Why a message of ours is refused again and again, by the message.
        self._refused: dict[object, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether it can publish now."""
        return self._link.is_open

    @property
    def flowing(self) -> asyncio.Event:
        """Set while the broker accepts publishes; cleared by its memory or disk alarm."""
        return self._link.flowing

    @property
    def connection(self) -> Connection | None:
        """The open connection; None while there is none."""
        return self._link.connection

    @property
    def fault(self) -> str | None:
        """Why nothing, or not everything, can be published; None if all is well."""
        return self._link.fault or next(iter(self._refused.values()), None)

    def start(self) -> None:
        """Connect and stay connected, in the background."""
        self._link.start()

    async def close(self) -> None:
        """Stop; what is not confirmed stays uncertain."""
        await self._link.close()

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
                    if refusals is not None and refusal.refusal is BrokerRefusal.TOO_LARGE:
                        return PublishOutcome.TOO_LARGE
                    if refusals is not None and (refusal.is_final or refused + 1 >= refusals):
                        return PublishOutcome.REFUSED
                    reason = str(refusal)
                refused += 1
                self._note_refusal(message, exchange, reason, said=refused > 1)
                if must_route:
                    await self.declare_again()
                await asyncio.sleep(self._link.reconnect.delay_s(min(refused, 5)))
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
                    raise PublishRefused(
                        f"it ends its connection: {uncertain}", BrokerRefusal.INVALID
                    ) from None
                alone = alone or not mandatory
            except BrokerError:
                pass  # no channel could be opened
            tries += 1
            await asyncio.sleep(self._link.reconnect.delay_s(min(tries, 5)))

    async def _publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> bool:
        channel = await self._link.shared_channel()
        return await channel.publish(
            exchange, routing_key, body, properties, mandatory=mandatory, timeout_s=None
        )

    async def _publish_alone(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, mandatory: bool
    ) -> bool:
        """Publish on a channel that nothing else is published on."""
        # What may end the connection goes one by one; what may end its channel, side by side.
        async with self._own_channels if mandatory else self._solo:
            channel = await self._link.own_channel()
            try:
                return await channel.publish(
                    exchange, routing_key, body, properties, mandatory=mandatory, timeout_s=None
                )
            finally:
                await channel.close()

    def _note_refusal(self, message: object, exchange: str, reason: str, *, said: bool) -> None:
        self._refused[message] = f"cannot publish to {exchange or 'the default exchange'}: {reason}"
        if not said:
            logger.error("broker refuses a message", link=self._link.name, exchange=exchange, reason=reason)

    async def declare_again(self) -> None:
        """Declare our queues and exchanges again, because one is missing."""
        connection = self._link.connection
        if self.declare is not None and connection is not None:
            with suppress(BrokerError):
                await self.declare(connection)
