"""One connection to the broker, from open to closed."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aio_pika
import aiormq
from aio_pika.abc import ConnectionParameter
from pamqp import commands
from yarl import URL

from worker.broker.calls import close_channel, close_quietly, is_ours, rpc
from worker.broker.channels import Browser, Consumer
from worker.broker.delivery import Delivery
from worker.broker.errors import BrokerError, BrokerNotFound, BrokerRefused, brief
from worker.broker.publish_channel import PublishChannel
from worker.broker.wire.channel import Channel
from worker.broker.wire.socket import Socket, SocketFactory

#: Seconds between heartbeats, unless the URL says otherwise (`?heartbeat=5`). A dead peer is noticed after
#: three missed: about 33 s.
HEARTBEAT_S: Final = 10
#: Seconds for opening a connection, its handshake included.
CONNECT_TIMEOUT_S: Final = 10.0
#: Channels and bytes of a frame where the broker sets no limit.
_MOST_CHANNELS: Final = 65535
_FRAME_MAX: Final = 131072


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended."""

    reason: str


def _as_given(value: Any) -> Any:
    return value


class _Client(aio_pika.Connection):
    """aio-pika's connection, which passes one more argument on to aiormq: who makes the socket."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=_as_given, is_kwarg=True),
    )


class Connection:
    """One connection to the broker, from open to closed; it does not come back by itself.

    The client connects, logs in, beats and declares; messages go over channels of our own on its socket.
    """

    def __init__(
        self, owner: aio_pika.abc.AbstractConnection, client: aiormq.Connection, socket: Socket
    ) -> None:
        self._owner = owner
        self._client = client
        self._socket = socket
        client.closing.add_done_callback(lambda _closing: socket.end("the connection was closed"))

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
        sockets = SocketFactory()
        owner = _Client(
            target,
            ssl_context=tls,
            client_properties={"connection_name": name},
            transport_factory=sockets,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await owner.connect()
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
        assert sockets.socket is not None
        return cls(owner, owner.transport.connection, sockets.socket)

    async def closed(self) -> Closed:
        """Wait for the end, and return its reason."""
        closing = self._client.closing
        await asyncio.wait({closing})
        error = None if closing.cancelled() else closing.exception()
        return Closed(brief(error) if error else "closed")

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return self._client.is_opened and self._socket.ended is None

    @property
    def is_blocked(self) -> bool:
        """Whether the broker stopped taking our publishes: a memory or disk alarm."""
        return self._socket.is_blocked

    async def channel(self) -> aiormq.abc.AbstractChannel:
        """Open a channel of the client, for declaring."""
        async with rpc("opening a channel"):
            return await self._client.channel(publisher_confirms=False)

    async def own_channel(self) -> Channel:
        """Open a channel of our own, for messages."""
        tuned = self._client.connection_tune
        async with rpc("opening a channel"):
            return await Channel.open(
                self._socket, tuned.channel_max or _MOST_CHANNELS, tuned.frame_max or _FRAME_MAX
            )

    async def consumer(self, queue: str, on_delivery: Callable[[Delivery], None]) -> Consumer:
        """Open a channel for consuming a queue."""
        return Consumer(await self.own_channel(), queue, on_delivery, self.count, self._declare_reply_queue)

    async def publish_channel(self) -> PublishChannel:
        """Open a channel with confirms."""
        channel = PublishChannel(await self.own_channel())
        async with rpc("asking for confirms"):
            await channel.start()
        return channel

    async def browser(self, queue: str) -> Browser:
        """Open a channel for reading a queue one by one."""
        return Browser(await self.own_channel(), queue)

    async def _declare_reply_queue(self, exchange: str) -> str:
        """Declare a queue for replies that lives as long as the connection, and return its name."""
        channel = await self.channel()
        try:
            async with rpc("declaring a reply queue"):
                name = (await channel.queue_declare("", exclusive=True, auto_delete=True)).queue or ""
                if exchange:
                    await channel.queue_bind(name, exchange=exchange, routing_key=name)
            return name
        finally:
            await close_channel(channel)

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
        self._socket.flush()  # the last acks
        self._socket.resume()  # or the broker's answer is not read
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
