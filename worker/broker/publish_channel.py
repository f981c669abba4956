"""Publishing with confirms: each message is confirmed, returned, refused, or its fate is unknown."""

import asyncio
import struct
from dataclasses import dataclass
from typing import Final

from pamqp import commands

from worker.broker.calls import close_quietly
from worker.broker.errors import BrokerRefusal, PublishRefused, PublishUncertain, brief
from worker.broker.properties import Properties
from worker.broker.wire import frames
from worker.broker.wire.channel import Channel, ChannelClosed
from worker.broker.wire.content import read_properties, write_properties

#: Seconds for an operator's publish until the broker's confirm.
CONFIRM_TIMEOUT_S: Final = 10.0
#: Codes of a channel's end that are the answer to a message.
_REFUSED: Final = {
    403: BrokerRefusal.FORBIDDEN,
    404: BrokerRefusal.MISSING,
    406: BrokerRefusal.INVALID,
}


@dataclass(slots=True, eq=False)
class _Publish:
    """A message that is not confirmed yet."""

    #: Whether the broker took it; None if its channel ended.
    confirmed: "asyncio.Future[bool | None]"
    exchange: str
    routing_key: str
    properties: Properties
    body: bytes
    is_returned: bool = False

    def is_returned_as(self, address: tuple[str, str], properties: Properties, body: bytes) -> bool:
        """Return whether the broker returned this message: AMQP does not say which it was."""
        ours = self.properties
        return (
            not self.is_returned
            and address == (self.exchange, self.routing_key)
            and ours.correlation_id == properties.correlation_id
            and ours.message_id == properties.message_id
            and body == self.body
        )


class PublishChannel:
    """A channel with confirms, on a connection that consumes nothing."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sent = 0
        #: What is not confirmed, by its number, the oldest first.
        self._waiting: dict[int, _Publish] = {}
        channel.on_confirm = self._confirm
        channel.on_content = self._returned
        channel.on_end = self._end

    async def start(self) -> None:
        """Ask for confirms."""
        await self._channel.ask(commands.Confirm.Select())

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
        timeout_s: float | None = CONFIRM_TIMEOUT_S,
    ) -> bool:
        """Publish persistently and wait for the confirm.

        A live channel loses no confirm: without a timeout, only the end of the channel ends the waiting.

        Returns False if the message was returned: no queue is bound there.

        Raises:
            PublishUncertain: the channel or its connection ended first, or `timeout_s` was over.
            PublishRefused: the broker refused it.
        """
        if timeout_s is None:
            return await self._publish(exchange, routing_key, body, properties, mandatory=mandatory)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._publish(exchange, routing_key, body, properties, mandatory=mandatory)
        except TimeoutError:
            raise PublishUncertain(f"no confirm in {timeout_s:g} s") from None

    async def _publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, *, mandatory: bool
    ) -> bool:
        channel = self._channel
        if not channel.socket.may_publish.is_set():
            await channel.socket.may_publish.wait()
        if channel.is_closed:
            raise PublishUncertain("the channel was closed before the message was sent")
        channel.socket.send(self._frames(exchange, routing_key, body, properties, mandatory=mandatory))
        self._sent += 1
        confirmed: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        publish = self._waiting[self._sent] = _Publish(confirmed, exchange, routing_key, properties, body)
        answer = await confirmed
        if answer is None:
            raise self._ended()
        if not answer:
            where = exchange or repr(routing_key)
            reason = f"a queue rejects messages to {where}: it is full, or has no majority"
            raise PublishRefused(reason, BrokerRefusal.FULL)
        return not publish.is_returned

    def _frames(
        self, exchange: str, routing_key: str, body: bytes, properties: Properties, *, mandatory: bool
    ) -> bytes:
        """Return the frames of a message.

        Raises:
            PublishRefused: it cannot be written.
        """
        channel = self._channel
        try:
            header = write_properties(properties, len(body))
            if len(header) + frames.FRAME_SIZE + 1 > channel.frame_max:
                # Sent, it would end the connection.
                raise PublishRefused(f"its headers have {len(header)} bytes", BrokerRefusal.TOO_LARGE)
            return frames.publish_frames(
                channel.number,
                exchange,
                routing_key,
                header,
                body,
                mandatory=mandatory,
                frame_max=channel.frame_max,
            )
        except (ValueError, TypeError, struct.error) as error:
            raise PublishRefused(f"it cannot be written: {brief(error)}", BrokerRefusal.INVALID) from None

    def _confirm(self, tag: int, multiple: bool, taken: bool) -> None:
        waiting = self._waiting
        if not multiple:
            tags = [tag] if tag in waiting else []
        else:
            tags = []
            for each in waiting:
                if each > tag:
                    break
                tags.append(each)
        for each in tags:
            confirmed = waiting.pop(each).confirmed
            if not confirmed.done():
                confirmed.set_result(taken)

    def _returned(self, code: int, method: bytes, header: bytes, body: bytes) -> None:
        """Note which message no queue took; its confirm follows."""
        if code != frames.BASIC_RETURN:
            return
        address, properties = frames.read_return(method), read_properties(header)[0]
        for publish in self._waiting.values():
            if publish.is_returned_as(address, properties, body):
                publish.is_returned = True
                return

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for publish in waiting.values():
            if not publish.confirmed.done():
                publish.confirmed.set_result(None)

    def _ended(self) -> PublishRefused | PublishUncertain:
        """Return what the end of the channel means for a message that was not confirmed."""
        reason = self._channel.ended.result()
        if isinstance(reason, ChannelClosed) and (refusal := refusal_of(reason)) is not None:
            return PublishRefused(brief(reason), refusal)
        return PublishUncertain(brief(reason))

    async def close(self) -> None:
        """Close the channel."""
        await close_quietly(self._channel.close())


def refusal_of(closed: ChannelClosed) -> BrokerRefusal | None:
    """Return why a message was refused; None if its channel ended for another reason."""
    # 3.10 and 4.x: "message size 400000 is larger than configured max size 300000".
    if closed.code == 406 and "larger than" in str(closed):
        return BrokerRefusal.TOO_LARGE
    return _REFUSED.get(closed.code)
