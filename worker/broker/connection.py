"""One connection to the broker, from open to closed."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import aio_pika
import aiormq
from pamqp import commands
from yarl import URL

from worker.broker.calls import RPC_TIMEOUT_S, close_channel, close_quietly, is_ours, rpc
from worker.broker.channels import Browser, Consumer, PublishChannel
from worker.broker.delivery import Delivery
from worker.broker.errors import BrokerError, BrokerNotFound, BrokerRefused, brief

#: Seconds between heartbeats, unless the URL says otherwise (`?heartbeat=5`). A dead peer is noticed after
#: three missed: about 33 s.
HEARTBEAT_S: Final = 10
#: Seconds for opening a connection, its handshake included.
CONNECT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended."""

    reason: str
    #: A frame that the client library cannot decode: a message no code of ours will ever see.
    undecodable: bool = False


class Connection:
    """One connection to the broker, from open to closed; it does not come back by itself."""

    def __init__(
        self, transport: aiormq.abc.AbstractConnection, owner: aio_pika.abc.AbstractConnection
    ) -> None:
        self._transport = transport
        self._owner = owner

    @classmethod
    async def open(cls, url: str, *, name: str, tls: ssl.SSLContext | None = None) -> "Connection":
        """Connect and log in.

        Raises:
            BrokerRefused: wrong user, password or virtual host; a certificate that is not trusted.
            BrokerError: it cannot be reached, or gave no answer in CONNECT_TIMEOUT_S.
        """
        target = URL(url)
        if "heartbeat" not in target.query:
            target = target.update_query(heartbeat=str(HEARTBEAT_S))
        where = f"{target.host}:{target.port or (5671 if target.scheme == 'amqps' else 5672)}"
        try:
            owner = await aio_pika.connect(
                target,
                timeout=CONNECT_TIMEOUT_S,
                ssl_context=tls,
                client_properties={"connection_name": name},
            )
        except (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError):
            raise BrokerRefused(
                f"RabbitMQ at {where} refuses the user {target.user or 'guest'!r}: wrong user or password"
            ) from None
        except aiormq.exceptions.InvalidFrameError as error:
            raise _refused_virtual_host(target, where, _close_reason(error)) from None
        except (aiormq.AMQPError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise BrokerRefused(
                    f"RabbitMQ at {where} shows a certificate that is not trusted here: "
                    f"{cause.verify_message}; name its authority in CONNECTORS_CA_FILE"
                ) from None
            if isinstance(cause, ssl.SSLError):
                raise BrokerError(f"RabbitMQ at {where}: TLS failed: {cause.reason or 'unknown'}") from None
            raise BrokerError(f"RabbitMQ at {where} cannot be reached: {brief(error)}") from None
        except asyncio.CancelledError:
            if is_ours():
                raise
            raise BrokerError(f"RabbitMQ at {where} broke off the handshake") from None
        assert owner.transport is not None
        assert isinstance(owner.transport.connection, aiormq.Connection)
        return cls(owner.transport.connection, owner)

    async def closed(self) -> Closed:
        """Wait for the end, and return its reason."""
        closing = self._transport.closing
        await asyncio.wait({closing})
        error = None if closing.cancelled() else closing.exception()
        known = (aiormq.AMQPError, OSError, EOFError, asyncio.CancelledError, type(None))
        undecodable = isinstance(error, aiormq.exceptions.InvalidFrameError) or not isinstance(error, known)
        return Closed(brief(error) if error else "closed", undecodable=undecodable)

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return self._transport.is_opened

    @property
    def is_blocked(self) -> bool:
        """Whether the broker stopped taking our publishes: a memory or disk alarm."""
        waiting = self._transport.ready()
        try:
            waiting.send(None)  # it ends at once unless blocked
        except StopIteration:
            return False
        waiting.close()
        return True

    async def channel(self, *, confirms: bool = False) -> aiormq.abc.AbstractChannel:
        """Open a channel."""
        async with rpc("opening a channel"):
            return await self._transport.channel(publisher_confirms=confirms, on_return_raises=False)

    async def consumer(self, queue: str, on_delivery: Callable[[Delivery], None]) -> Consumer:
        """Open a channel for consuming a queue."""
        return Consumer(await self.channel(), queue, on_delivery, self.count)

    async def publish_channel(self) -> PublishChannel:
        """Open a channel with confirms."""
        channel = await self.channel(confirms=True)
        assert isinstance(channel, aiormq.Channel)
        return PublishChannel(channel)

    async def browser(self, queue: str) -> Browser:
        """Open a channel for reading a queue one by one."""
        return Browser(await self.channel(), queue)

    async def count(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages and consumers a queue has; None if there is no such queue."""
        channel = await self.channel()
        try:
            async with rpc(f"looking at {queue}"):
                found = await channel.queue_declare(queue, passive=True)
            return found.message_count or 0, found.consumer_count or 0
        except BrokerNotFound:
            return None
        finally:
            await close_channel(channel)

    async def purge(self, queue: str) -> int:
        """Remove every message of a queue, and return how many there were."""
        channel = await self.channel()
        try:
            async with rpc(f"purging {queue}"):
                return (await channel.queue_purge(queue)).message_count or 0
        finally:
            await close_channel(channel)

    async def remove_queue(self, queue: str) -> None:
        """Delete a queue and its messages."""
        channel = await self.channel()
        try:
            async with rpc(f"deleting {queue}"):
                await channel.queue_delete(queue)
        finally:
            await close_channel(channel)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Remove a binding."""
        channel = await self.channel()
        try:
            async with rpc(f"unbinding {queue}"):
                await channel.queue_unbind(queue, exchange=exchange, routing_key=key)
        finally:
            await close_channel(channel)

    async def close(self) -> None:
        """Close it; what was not acked is delivered again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                # The client drops what it has not written yet, the last acks among it.
                while self.is_open and not self._transport.write_queue.empty():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
        await close_quietly(self._owner.close())


def _refused_virtual_host(target: URL, where: str, reason: str) -> BrokerError:
    """Return the error of a login that succeeded, but not for this virtual host."""
    vhost, user = target.path.removeprefix("/") or "/", target.user or "guest"
    said = f": {reason}" if reason else ""
    # Measured on 3.10: "access to vhost 'v' refused for user 'u': connection limit (20) is reached".
    if "limit" in reason or "is down" in reason:
        return BrokerError(f"RabbitMQ at {where} accepts no connection now{said}")
    return BrokerRefused(f"RabbitMQ at {where} refuses the virtual host {vhost!r} to the user {user!r}{said}")


def _close_reason(error: BaseException) -> str:
    """Return what the broker answered to Connection.Open.

    The client takes that answer for an invalid frame and does not pass it on; it is a local variable of
    the function that raised.
    """
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame.f_locals.get("frame")
        if isinstance(frame, commands.Connection.Close):
            return str(frame.reply_text or "").removeprefix("NOT_ALLOWED - ")
        trace = trace.tb_next
    return ""
