"""The boundary to the AMQP client: consume, settle, publish with confirm. Only here is aio-pika named.

Everything above speaks `Delivery`, `Properties` and `Link`; another client library would be another
version of this file.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

import aio_pika
import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from yarl import URL

from worker.topology import Exchange, Queue

#: Seconds between heartbeats. A dead peer is noticed after three, and one more each: about 33 s.
HEARTBEAT_S: Final = 10
#: Seconds for opening a connection, its handshake included.
CONNECT_TIMEOUT_S: Final = 10.0
#: Seconds for a declaration, a consume, a cancel.
RPC_TIMEOUT_S: Final = 10.0
#: Seconds for a publish until the broker's confirm.
CONFIRM_TIMEOUT_S: Final = 10.0

PERSISTENT: Final = 2

# The client speaks of each lost connection with a traceback; the lane and the outbox say it in one line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class BrokerError(Exception):
    """The broker, or the way to it, failed; the message says how."""


class BrokerRefused(BrokerError):
    """The broker will not have us, or we not it: password, virtual host, permission, certificate.

    Trying again is idle.
    """


class TopologyMismatch(BrokerError):
    """A queue or exchange exists with other arguments."""


class PublishUncertain(BrokerError):
    """No confirm came: the message may or may not be stored. Publish it again.

    Args:
        broke: the connection ended on it; else there was only no answer in time.
    """

    def __init__(self, message: str, *, broke: bool) -> None:
        super().__init__(message)
        self.broke = broke


class PublishRefused(BrokerError):
    """The broker said no: a full queue (nack), no permission, no such exchange.

    Args:
        channel_died: the refusal closed the channel, and with it hit what was published beside it.
    """

    def __init__(self, message: str, *, channel_died: bool = False) -> None:
        super().__init__(message)
        self.channel_died = channel_died


@dataclass(frozen=True, slots=True)
class Properties:
    """The AMQP properties that we read and write."""

    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    type: str | None = None
    user_id: str | None = None
    timestamp: datetime | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Delivery:
    """One message from a queue, to be settled once on the channel that brought it."""

    body: bytes
    routing_key: str
    properties: Properties
    redelivered: bool
    #: How often it came back before, by the queue's own count.
    returns: int
    _tag: int
    _channel: aiormq.abc.AbstractChannel

    @property
    def is_stale(self) -> bool:
        """Whether its channel is gone; the message then comes again."""
        return self._channel.is_closed

    async def ack(self) -> bool:
        """Tell the broker that the message is done with.

        Returns False where its channel is gone; the message then comes again. True proves nothing:
        AMQP 0-9-1 does not confirm an ack.
        """
        return await self._settle(lambda: self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self) -> bool:
        """Give the message back to its queue, untouched."""
        return await self._settle(lambda: self._channel.basic_nack(self._tag, requeue=True, wait=False))

    async def _settle(self, send: Callable[[], Awaitable[None]]) -> bool:
        # Delivery tags start again on a new channel: a late ack must be dropped, never sent elsewhere.
        if self._channel.is_closed:
            return False
        sending: asyncio.Future[None] | None = None
        try:
            if not self._channel.connection.write_queue.full():
                await send()  # ends at once
                return True
            # The client's queue of frames is short, and nobody empties it once the connection is dying
            # (measured: each ack behind the tenth then waits for its timeout, and so does its lane).
            sending = asyncio.ensure_future(send())
            ends = {sending, self._channel.connection.closing}
            await asyncio.wait(ends, timeout=RPC_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                return False
            await sending
        except (aiormq.AMQPError, RuntimeError, OSError):
            return False
        finally:
            if sending is not None:
                sending.cancel()
        return True


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
            BrokerError: nobody there, or no answer in CONNECT_TIMEOUT_S.
        """
        target = URL(url).update_query(heartbeat=str(HEARTBEAT_S))
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
        except aiormq.exceptions.InvalidFrameError:
            # What the broker says to Connection.Open does not reach us; logged in we are by then.
            vhost = target.path.removeprefix("/") or "/"
            raise BrokerRefused(
                f"RabbitMQ at {where} refuses the virtual host {vhost!r} to the user "
                f"{target.user or 'guest'!r}: there is none, or the user may not use it"
            ) from None
        except (aiormq.AMQPError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise BrokerRefused(
                    f"RabbitMQ at {where} shows a certificate that is not trusted here: "
                    f"{cause.verify_message}; name its authority in CONNECTORS_CA_FILE"
                ) from None
            if isinstance(cause, ssl.SSLError):
                raise BrokerError(f"RabbitMQ at {where}: TLS failed: {cause.reason or 'unknown'}") from None
            raise BrokerError(f"RabbitMQ at {where} cannot be reached: {_brief(error)}") from None
        except asyncio.CancelledError:
            if _is_ours():
                raise
            raise BrokerError(f"RabbitMQ at {where} broke off the handshake") from None
        assert owner.transport is not None
        assert isinstance(owner.transport.connection, aiormq.Connection)
        return cls(owner.transport.connection, owner)

    async def closed(self) -> Closed:
        """Wait for the end, and say why it came."""
        closing = self._transport.closing
        await asyncio.wait({closing})
        error = None if closing.cancelled() else closing.exception()
        known = (aiormq.AMQPError, OSError, EOFError, asyncio.CancelledError, type(None))
        undecodable = isinstance(error, aiormq.exceptions.InvalidFrameError) or not isinstance(error, known)
        return Closed(_brief(error) if error else "closed", undecodable=undecodable)

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
        async with _rpc("opening a channel"):
            return await self._transport.channel(publisher_confirms=confirms, on_return_raises=False)

    async def count(self, queue: str) -> tuple[int, int] | None:
        """Count a queue's waiting messages and its consumers; None where there is no such queue."""
        channel = await self.channel()
        try:
            async with _rpc(f"looking at {queue}"):
                found = await channel.queue_declare(queue, passive=True)
            return found.message_count or 0, found.consumer_count or 0
        except _NotFound:
            return None
        finally:
            await _close(channel)

    async def purge(self, queue: str) -> int:
        """Remove every message of a queue, and say how many."""
        channel = await self.channel()
        try:
            async with _rpc(f"purging {queue}"):
                return (await channel.queue_purge(queue)).message_count or 0
        finally:
            await _close(channel)

    async def remove_queue(self, queue: str) -> None:
        """Delete a queue, whatever is in it."""
        channel = await self.channel()
        try:
            async with _rpc(f"deleting {queue}"):
                await channel.queue_delete(queue)
        finally:
            await _close(channel)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo a binding."""
        channel = await self.channel()
        try:
            async with _rpc(f"unbinding {queue}"):
                await channel.queue_unbind(queue, exchange=exchange, routing_key=key)
        finally:
            await _close(channel)

    async def close(self) -> None:
        """Close it; what was not acked comes again."""
        with suppress(Exception):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                # The client drops what it has not written yet, the last acks among it.
                while self.is_open and not self._transport.write_queue.empty():  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                await self._owner.close()


class Consumer:
    """One queue consumed on one channel, from opening to the channel's end."""

    def __init__(
        self,
        connection: Connection,
        channel: aiormq.abc.AbstractChannel,
        queue: str,
        take: Callable[[Delivery], None],
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._take = take
        self._tag: str | None = None
        self._cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _frame: self._cancelled.set())

    @classmethod
    async def open(cls, connection: Connection, queue: str, take: Callable[[Delivery], None]) -> "Consumer":
        """Open the channel. `take` is called for each delivery and must only hand it over.

        What runs inside the client's callback is cancelled when the channel dies (measured), so a
        job never runs there.
        """
        return cls(connection, await connection.channel(), queue, take)

    async def declare_reply_queue(self, exchange: str = "") -> str:
        """Declare a queue for replies that lives as long as the connection, and say its name."""
        async with _rpc("declaring a reply queue"):
            declared = await self._channel.queue_declare("", exclusive=True, auto_delete=True)
            name = self._queue = declared.queue or ""
            if exchange:
                await self._channel.queue_bind(name, exchange=exchange, routing_key=name)
        return name

    async def consume(self, prefetch: int, *, no_ack: bool = False) -> None:
        """Begin, or begin again, with at most so many unsettled deliveries.

        Raises:
            BrokerRefused: the user may not read the queue.
        """

        async def receive(message: DeliveredMessage) -> None:
            self._take(_delivery(message, self._channel))

        try:
            async with _rpc(f"consuming {self._queue}"):
                await self._channel.basic_qos(prefetch_count=prefetch)
                consuming = await self._channel.basic_consume(self._queue, receive, no_ack=no_ack)
        except _Forbidden:
            raise BrokerRefused(f"the broker user may not read the queue {self._queue!r}; grant it") from None
        self._tag = consuming.consumer_tag

    async def ended(self) -> str:
        """Wait until the consumer gets nothing more, and say why."""
        closing = self._channel.closing
        cancelled = asyncio.create_task(self._cancelled.wait())
        try:
            await asyncio.wait({closing, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cancelled.cancel()
        if self._cancelled.is_set():
            return f"the broker cancelled the consumer of {self._queue}: the queue is gone"
        error = None if closing.cancelled() else closing.exception()
        return _brief(error) if error else "the channel was closed"

    async def count(self) -> int:
        """Count the consumers that the broker sees on this queue."""
        channel = await self._connection.channel()
        try:
            async with _rpc(f"looking at {self._queue}"):
                found = await channel.queue_declare(self._queue, passive=True)
        finally:
            await _close(channel)
        return found.consumer_count or 0

    async def cancel(self) -> None:
        """Take nothing more; what was taken can still be settled."""
        if self._tag is None or self._channel.is_closed:
            return
        with suppress(BrokerError):
            async with _rpc(f"cancelling the consumer of {self._queue}"):
                await self._channel.basic_cancel(self._tag)
        self._tag = None


class Browser:
    """Takes messages of a queue one by one; those that are not acked go back when it is closed."""

    def __init__(self, channel: aiormq.abc.AbstractChannel, queue: str) -> None:
        self._channel = channel
        self._queue = queue

    @classmethod
    async def open(cls, connection: Connection, queue: str) -> "Browser":
        """Open a channel for it."""
        return cls(await connection.channel(), queue)

    async def next(self) -> Delivery | None:
        """Take the next message; None at the end."""
        async with _rpc(f"reading {self._queue}"):
            message = await self._channel.basic_get(self._queue)
        return None if message.delivery_tag is None else _delivery(message, self._channel)

    async def close(self) -> None:
        """Give back what was not acked."""
        await _close(self._channel)


class PublishChannel:
    """A channel with confirms."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel

    @classmethod
    async def open(cls, connection: Connection) -> "PublishChannel":
        """Open one on a connection that nothing is consumed on."""
        channel = await connection.channel(confirms=True)
        assert isinstance(channel, aiormq.Channel)
        return cls(channel)

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        return not self._channel.is_closed

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties,
        *,
        mandatory: bool = True,
        timeout_s: float = CONFIRM_TIMEOUT_S,
    ) -> bool:
        """Publish persistently and wait for the confirm.

        Returns False where the message was returned: no queue is bound there.

        Raises:
            PublishUncertain: no confirm in time, or the connection broke.
            PublishRefused: the broker said no.
        """
        try:
            confirmed = await self._channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=_pamqp(properties),
                mandatory=mandatory,
                timeout=timeout_s,
                wait=False,
            )
        except aiormq.exceptions.DeliveryError:
            raise PublishRefused(
                f"the broker refused a message to {exchange or routing_key!r}: full?"
            ) from None
        except (aiormq.exceptions.ChannelAccessRefused, aiormq.exceptions.ChannelNotFoundEntity) as error:
            raise PublishRefused(_brief(error), channel_died=True) from None
        except TimeoutError:
            raise PublishUncertain(f"no confirm in {timeout_s:g} s", broke=False) from None
        except (aiormq.AMQPError, RuntimeError, OSError) as error:
            raise PublishUncertain(_brief(error), broke=True) from None
        except asyncio.CancelledError:
            # On a dead connection the client cancels its waiters, though the message may be stored.
            if _is_ours():
                raise
            raise PublishUncertain("the connection broke before the confirm", broke=True) from None
        return isinstance(confirmed, Basic.Ack)


async def declare(
    connection: Connection, exchanges: list[Exchange], queues: list[Queue], *, reply_exchange: str = ""
) -> None:
    """Declare what is needed; where the user may not configure, check that it is there.

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
    """Leave a mark, for as long as this connection lives, of the ledger that this worker keeps.

    An exchange that goes with its last binding, its alternate-exchange argument naming the ledger:
    declared with another argument, the broker refuses it.

    Raises:
        BrokerRefused: a worker with another ledger is at work on this broker.
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
            async with _rpc(f"binding the queue {queue.name!r}"):
                await channel.queue_bind(queue.name, exchange=queue.exchange, routing_key=queue.binding_key)

    async def check_reply_exchange(self, name: str) -> None:
        channel = await self._open()
        try:
            async with _rpc(f"looking for the exchange {name!r}"):
                await channel.exchange_declare(name, passive=True)
        except _NotFound:
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
            async with _rpc(f"declaring the exchange {name!r}"):
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
        except _Forbidden:
            pass  # least privilege: nobody can leave the mark, so nobody is misled by it
        return True

    async def _remove_stale(self, name: str) -> bool:
        """Remove a mark that nobody holds any more: its worker died before binding to it."""
        channel = await self._open()
        try:
            async with _rpc(f"deleting the exchange {name!r}"):
                await channel.exchange_delete(name, if_unused=True)
        except BrokerError:
            return False
        return True

    async def close(self) -> None:
        if self._channel is not None:
            await _close(self._channel)

    async def _open(self) -> aiormq.abc.AbstractChannel:
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel()
        return self._channel

    async def _declare(
        self, what: str, send: Callable[[aiormq.abc.AbstractChannel, bool], Awaitable[Any]]
    ) -> bool:
        """Declare, or check where declaring is forbidden; say whether it was declared."""
        try:
            async with _rpc(f"declaring the {what}"):
                await send(await self._open(), False)
            return True
        except _Forbidden:
            pass
        try:
            async with _rpc(f"looking for the {what}"):
                await send(await self._open(), True)
        except _Forbidden:
            raise BrokerRefused(
                f"the {what} can neither be declared nor seen: the broker user lacks permission"
            ) from None
        except _NotFound:
            raise BrokerRefused(
                f"the {what} is missing and the broker user may not declare it; "
                "run a worker once with a user that may configure, or grant it"
            ) from None
        return False


class _NotFound(BrokerError):
    """No such queue or exchange."""


class _Forbidden(BrokerError):
    """The user's permissions do not allow it."""


class _rpc:  # noqa: N801  # reads as a verb at its uses
    """Bound a call to the broker in time, and translate its errors."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._timeout = asyncio.timeout(RPC_TIMEOUT_S)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> Literal[False]:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise BrokerError(f"{self._doing}: no answer in {RPC_TIMEOUT_S:g} s") from None
        if isinstance(error, aiormq.exceptions.ChannelPreconditionFailed):
            raise TopologyMismatch(f"{self._doing}: {_difference(error)}") from None
        if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
            raise _NotFound(f"{self._doing}: {_brief(error)}") from None
        if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
            raise _Forbidden(f"{self._doing}: {_brief(error)}") from None
        if isinstance(error, aiormq.AMQPError | RuntimeError | OSError):
            raise BrokerError(f"{self._doing}: {_brief(error)}") from None
        if isinstance(error, asyncio.CancelledError) and not _is_ours():
            raise BrokerError(f"{self._doing}: the connection broke") from None
        return False


async def _close(channel: aiormq.abc.AbstractChannel) -> None:
    with suppress(Exception):
        async with asyncio.timeout(RPC_TIMEOUT_S):
            if not channel.is_closed:
                await channel.close()


def _is_ours() -> bool:
    """Tell a cancellation of ours from one that the client library raises by itself."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _delivery(message: DeliveredMessage, channel: aiormq.abc.AbstractChannel) -> Delivery:
    came = message.header.properties
    headers = came.headers or {}
    # On the first delivery RabbitMQ 3.10 lets a publisher's own header of this name through (measured).
    returns = headers.get("x-delivery-count", 0) if message.redelivered else 0
    return Delivery(
        body=message.body,
        routing_key=message.routing_key or "",
        properties=Properties(
            message_id=came.message_id or None,
            correlation_id=came.correlation_id or None,
            reply_to=came.reply_to or None,
            content_type=came.content_type or None,
            content_encoding=came.content_encoding or None,
            type=came.message_type or None,
            user_id=came.user_id or None,
            timestamp=came.timestamp,
            headers=headers,
        ),
        redelivered=bool(message.redelivered),
        returns=returns if isinstance(returns, int) else 0,
        _tag=message.delivery_tag or 0,
        _channel=channel,
    )


def _pamqp(properties: Properties) -> Basic.Properties:
    return Basic.Properties(
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        message_type=properties.type,
        user_id=properties.user_id,
        timestamp=properties.timestamp or datetime.now(UTC),
        headers=dict(properties.headers) or None,
        delivery_mode=PERSISTENT,
    )


def _brief(error: BaseException) -> str:
    """Say an error of the client library in one short line."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:300]


def _difference(error: BaseException) -> str:
    """Keep of a 406 what differs: `inequivalent arg 'x' …: received … but current is …`."""
    text = _brief(error)
    start = text.find("inequivalent")
    said = text[start:] if start >= 0 else text
    return f"it exists with other arguments: {said}; delete it, or set another CONNECTORS_PREFIX"
