"""A caller's queue for replies, made again whenever it is lost."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from worker.broker import BrokerError, BrokerRefused, Connection, Consumer, Delivery
from worker.broker.publisher_link import Connect
from worker.broker.reconnect import RECONNECT

#: Seconds between questions whether the broker still sees our consumer.
CHECK_S: Final = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class ReplyAddress:
    """One reply queue: its name, and an event that is set once it is lost."""

    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class ReplyQueue:
    """Consumes a queue of its own; a new one takes its place if it, its consumer or its connection ends."""

    def __init__(self, connect: Connect, on_reply: Callable[[Delivery], None], *, exchange: str = "") -> None:
        self._connect = connect
        self._on_reply = on_reply
        #: The exchange that replies go through; the queue is bound there by its name.
        self._exchange = exchange
        self._address: ReplyAddress | None = None
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        #: Why there is no reply queue now; None if there is one.
        self.fault: str | None = "not connected yet"

    async def start(self) -> None:
        """Open it once, then keep it open in the background.

        Raises:
            BrokerRefused: the broker refuses the login; retrying cannot succeed.
        """
        consumer = None
        try:
            consumer = await self._open()
        except BrokerRefused:
            raise
        except BrokerError as error:
            self.fault = str(error)
        self._supervisor = asyncio.create_task(self._supervise(consumer), name="reply-queue")

    async def close(self) -> None:
        """Stop consuming; the queue goes with its connection."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self._connection is not None:
            await self._connection.close()

    async def address(self) -> ReplyAddress:
        """Wait until there is a reply queue, and return it."""
        async with self._changed:
            while (address := self._address) is None:
                await self._changed.wait()
            return address

    async def _supervise(self, consumer: Consumer | None) -> None:
        tries = 0
        while True:
            if consumer is not None:
                await self._consume_until_lost(consumer)
                tries = 0
            await asyncio.sleep(RECONNECT.delay_s(tries))
            tries += 1
            consumer = None
            with suppress(BrokerError):
                consumer = await self._open()

    async def _open(self) -> Consumer:
        """Open the queue on the connection there is, or on a new one."""
        try:
            if self._connection is None or not self._connection.is_open:
                await self._close_connection()
                self._connection = await self._connect()
            consumer = await self._connection.consumer("", self._on_reply)
            try:
                name = await consumer.declare_reply_queue(self._exchange)
                await consumer.consume(0, no_ack=True)
            except BaseException:
                await consumer.close()
                raise
        except BrokerError as error:
            self.fault = str(error)
            raise
        async with self._changed:
            self._address, self.fault = ReplyAddress(name), None
            self._changed.notify_all()
        return consumer

    async def _consume_until_lost(self, consumer: Consumer) -> None:
        assert self._connection is not None
        assert self._address is not None
        ends = [asyncio.create_task(end) for end in (consumer.ended(), self._missed(consumer))]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self.fault = f"the reply queue was lost: {done.pop().result()}"
        finally:
            for end in ends:
                end.cancel()
        self._address.lost.set()
        self._address = None
        await consumer.close()

    async def _missed(self, consumer: Consumer) -> str:
        """Wait until the broker says that it has no consumer of ours; return the reason."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                if (await consumer.count())[1] == 0:
                    return "the broker sees no consumer on it"
            except BrokerError as error:
                return str(error)

    async def _close_connection(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
