"""Whether replies, retries and dead letters can be published: tried without publishing anything."""

import asyncio
import re
from collections.abc import Iterable
from typing import Final

from pamqp import commands

from worker.broker.calls import close_quietly
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.connection import Connection
from worker.broker.errors import BrokerError, BrokerRefusal, BrokerRefused, PublishRefused, brief
from worker.broker.properties import Properties
from worker.broker.publish_channel import refusal_of
from worker.broker.wire.channel import ChannelClosed
from worker.broker.wire.content import write_properties
from worker.broker.wire.frames import publish_frames

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
    channel = await connection.own_channel()
    header = write_properties(Properties(user_id=user_id), 0)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await channel.ask(commands.Tx.Select())
            for exchange in exchanges:
                channel.socket.send(
                    publish_frames(
                        channel.number,
                        exchange,
                        "connectors.probe",
                        header,
                        b"",
                        mandatory=False,
                        frame_max=channel.frame_max,
                    )
                )
            await channel.ask(commands.Tx.Rollback())
    except ChannelClosed as closed:
        if (refusal := refusal_of(closed)) is not None:
            raise PublishRefused(brief(closed), refusal) from None
        raise BrokerError(brief(closed)) from None
    except TimeoutError:
        raise BrokerError(f"no answer in {PROBE_TIMEOUT_S:g} s") from None
    finally:
        await close_quietly(channel.close())
