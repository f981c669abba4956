"""Declares the topology, or checks it if the user may not configure."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiormq
from loguru import logger

from worker.broker.calls import close_channel, rpc
from worker.broker.connection import Connection
from worker.broker.errors import BrokerNotFound, BrokerRefused, Forbidden
from worker.broker.topology import Exchange, Queue


async def declare(
    connection: Connection, exchanges: list[Exchange], queues: list[Queue], *, reply_exchange: str = ""
) -> None:
    """Declare what is needed; if the user may not configure, check that it exists.

    Raises:
        TopologyMismatch: something exists with other arguments; names the difference.
        BrokerRefused: the user may not configure, and something is missing.
    """
    declarer = _Declarer(connection)
    try:
        for exchange in exchanges:
            await declarer.exchange(exchange)
        for queue in queues:
            await declarer.queue(queue)
        if reply_exchange:
            await declarer.check_reply_exchange(reply_exchange)
    finally:
        await declarer.close()


class _Declarer:
    """Declares on one channel, and on a new one after each refusal: that closes a channel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: aiormq.abc.AbstractChannel | None = None

    async def exchange(self, exchange: Exchange) -> None:
        await self._declare(
            f"exchange {exchange.name!r}",
            lambda channel, passive: channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                passive=passive,
                arguments=exchange.arguments,
            ),
        )

    async def queue(self, queue: Queue) -> None:
        declared = await self._declare(
            f"queue {queue.name!r}",
            lambda channel, passive: channel.queue_declare(
                queue.name, durable=True, passive=passive, arguments=queue.arguments
            ),
        )
        if declared:
            await self._bind(queue)

    async def _bind(self, queue: Queue) -> None:
        """Bind a queue; if the user may not, the binding has to be there already, and cannot be looked up."""
        channel = await self._open()
        try:
            async with rpc(f"binding the queue {queue.name!r}"):
                await channel.queue_bind(queue.name, exchange=queue.exchange, routing_key=queue.binding_key)
        except Forbidden as forbidden:
            logger.warning(
                "binding not checked",
                queue=queue.name,
                exchange=queue.exchange,
                key=queue.binding_key,
                reason=str(forbidden),
            )

    async def check_reply_exchange(self, name: str) -> None:
        channel = await self._open()
        try:
            async with rpc(f"looking for the exchange {name!r}"):
                await channel.exchange_declare(name, passive=True)
        except BrokerNotFound:
            raise BrokerRefused(
                f"CONNECTORS_REPLY_EXCHANGE={name!r}: there is no such exchange; declare it first"
            ) from None

    async def close(self) -> None:
        if self._channel is not None:
            await close_channel(self._channel)

    async def _open(self) -> aiormq.abc.AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel()
        return self._channel

    async def _declare(
        self, what: str, send: Callable[[aiormq.abc.AbstractChannel, bool], Awaitable[Any]]
    ) -> bool:
        """Declare, or check if declaring is forbidden; return whether it was declared."""
        try:
            async with rpc(f"declaring the {what}"):
                await send(await self._open(), False)
            return True
        except Forbidden:
            pass
        try:
            async with rpc(f"looking for the {what}"):
                await send(await self._open(), True)
        except Forbidden:
            raise BrokerRefused(
                f"the {what} can neither be declared nor seen: the broker user lacks permission"
            ) from None
        except BrokerNotFound:
            raise BrokerRefused(
                f"the {what} is missing and the broker user may not declare it; "
                "run a worker once with a user that may configure, or grant it"
            ) from None
        return False
