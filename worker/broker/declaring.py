"""Declares the topology, or checks it if the user may not configure."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiormq

from worker.broker.calls import close_channel, rpc
from worker.broker.connection import Connection
from worker.broker.errors import BrokerError, BrokerRefused, Forbidden, NotFound, TopologyMismatch
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


async def mark_ledger(connection: Connection, name: str, ledger_id: str) -> None:
    """Mark this broker with the worker's ledger for as long as the connection lives.

    The mark is an exchange that is deleted with its last binding; its alternate-exchange argument
    names the ledger, so the broker refuses to declare it with another one.

    Raises:
        BrokerRefused: a worker with another ledger runs on this broker.
    """
    declarer = _Declarer(connection)
    try:
        await declarer.mark(name, ledger_id)
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
            channel = await self._open()
            async with rpc(f"binding the queue {queue.name!r}"):
                await channel.queue_bind(queue.name, exchange=queue.exchange, routing_key=queue.binding_key)

    async def check_reply_exchange(self, name: str) -> None:
        channel = await self._open()
        try:
            async with rpc(f"looking for the exchange {name!r}"):
                await channel.exchange_declare(name, passive=True)
        except NotFound:
            raise BrokerRefused(
                f"CONNECTORS_REPLY_EXCHANGE={name!r}: there is no such exchange; declare it first"
            ) from None

    async def mark(self, name: str, value: str) -> None:
        if not await self._mark(name, value) and not await self._remove_stale(name):
            raise BrokerRefused(
                "another worker on this broker keeps another ledger, so one effect could happen twice; "
                "set CONNECTORS_DATABASE_URL to one PostgreSQL for all of them"
            )

    async def _mark(self, name: str, value: str) -> bool:
        channel = await self._open()
        try:
            async with rpc(f"declaring the exchange {name!r}"):
                await channel.exchange_declare(
                    name,
                    exchange_type="fanout",
                    auto_delete=True,
                    arguments={"alternate-exchange": f"{name}.{value}"},
                )
                held = await channel.queue_declare("", exclusive=True)
                await channel.queue_bind(held.queue or "", exchange=name)
        except TopologyMismatch:
            return False
        except Forbidden:
            pass  # least privilege: no worker can leave the mark, so none relies on it
        return True

    async def _remove_stale(self, name: str) -> bool:
        """Remove a mark that no worker holds: its worker died before binding to it."""
        channel = await self._open()
        try:
            async with rpc(f"deleting the exchange {name!r}"):
                await channel.exchange_delete(name, if_unused=True)
        except BrokerError:
            return False
        return True

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
        except NotFound:
            raise BrokerRefused(
                f"the {what} is missing and the broker user may not declare it; "
                "run a worker once with a user that may configure, or grant it"
            ) from None
        return False
