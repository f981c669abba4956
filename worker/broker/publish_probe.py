"""Whether replies, retries and dead letters can be published: tried without publishing anything."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any, Final

import aiormq
from aiormq.abc import ChannelFrame
from pamqp.commands import Basic, Tx
from pamqp.header import ContentHeader

from worker.broker.calls import close_channel
from worker.broker.channels import REFUSALS, refusal_of
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.connection import Connection
from worker.broker.errors import BrokerError, BrokerRefusal, BrokerRefused, PublishRefused, brief

#: Seconds between probes, and for one: readiness is known within 10 s.
PROBE_S: Final = 3.0
PROBE_TIMEOUT_S: Final = 5.0
#: What the broker answers to a user_id that is not ours (3.10 and 4.x).
_OTHER_USER: Final = re.compile(r"authenticated user was '(.+)'")


class PublishProbe:
    """Tries again and again whether a reply and a retry can go out; `fault` says why not."""

    def __init__(self, publisher: ConfirmedPublisher, exchanges: Iterable[str]) -> None:
        self._publisher = publisher
        self._exchanges = tuple(exchanges)
        self.fault: str | None = None

    async def run(self) -> None:
        """Probe as long as the worker lives."""
        while True:
            connection = self._publisher.connection
            if connection is not None and self._publisher.flowing.is_set():
                self.fault = await self._fault_of(connection)
            await asyncio.sleep(PROBE_S)

    async def _fault_of(self, connection: Connection) -> str | None:
        try:
            await dry_run(connection, self._exchanges)
        except PublishRefused as refused:
            if refused.refusal is BrokerRefusal.MISSING:
                await self._publisher.declare_again()
            return f"messages cannot be published: {refused}"
        except BrokerError as error:
            return f"the broker does not answer: {error}" if connection.is_open else None
        return None


async def learn_user(connection: Connection, believed: str, exchange: str) -> str:
    """Return the user that the broker knows this connection by, asked at an exchange it may write to.

    With a token in the password's place (OAuth 2), the name in the URL counts for nothing.
    """
    try:
        await dry_run(connection, [exchange], user_id=believed)
    except PublishRefused as refused:
        if (other := _OTHER_USER.search(str(refused))) is not None:
            return other[1]
    return believed


async def check_publishing(connection: Connection, exchanges: Iterable[str], reply_exchange: str) -> None:
    """Check that the user may publish what a worker publishes.

    Raises:
        BrokerRefused: it may not; says what to grant.
    """
    try:
        await dry_run(connection, [reply_exchange])
    except PublishRefused as refused:
        if reply_exchange or refused.refusal is not BrokerRefusal.FORBIDDEN:
            raise BrokerRefused(f"replies cannot be published: {refused}") from None
        raise BrokerRefused(
            "the broker user may not write to the default exchange, through which replies go: "
            "grant it, or name an exchange in CONNECTORS_REPLY_EXCHANGE that it may write to"
        ) from None
    try:
        await dry_run(connection, exchanges)
    except PublishRefused as refused:
        raise BrokerRefused(f"retries and dead letters cannot be published: {refused}") from None


async def dry_run(connection: Connection, exchanges: Iterable[str], *, user_id: str | None = None) -> None:
    """Publish to exchanges in a transaction that is rolled back: checked by the broker, routed nowhere.

    Raises:
        PublishRefused: one of them refuses.
        BrokerError: no answer in time.
    """
    channel = await connection.channel()
    assert isinstance(channel, aiormq.Channel)
    properties = Basic.Properties(user_id=user_id)
    frames: list[Any] = []
    for exchange in exchanges:
        frames.append(Basic.Publish(exchange=exchange, routing_key="connectors.probe"))
        frames.append(ContentHeader(properties=properties, body_size=0))
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await channel.tx_select()
            # In one write: a frame sent after the broker closed the channel would end the connection.
            frames.append(Tx.Rollback())
            await channel.write_queue.put(ChannelFrame.marshall(channel_number=channel.number, frames=frames))
            await _until_answered(channel)
    except REFUSALS as error:
        raise PublishRefused(brief(error), refusal_of(error)) from None
    except TimeoutError:
        raise BrokerError(f"no answer in {PROBE_TIMEOUT_S:g} s") from None
    except (aiormq.AMQPError, RuntimeError, OSError) as error:
        raise BrokerError(brief(error)) from None
    finally:
        await close_channel(channel)


async def _until_answered(channel: aiormq.Channel) -> None:
    """Wait for the answer to the rollback, or raise what closed the channel."""
    answer = asyncio.ensure_future(channel.rpc_frames.get())
    closing = channel.closing
    try:
        await asyncio.wait({answer, closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        answer.cancel()
    if not answer.done() or answer.cancelled():
        await closing
