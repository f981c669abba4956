"""One of our own channels: asks and is answered, receives content, settles it, ends."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from pamqp import base, commands, frame

from worker.broker.errors import BrokerError
from worker.broker.wire import content, frames
from worker.broker.wire.socket import Socket


class ChannelClosed(BrokerError):
    """The channel has ended.

    Args:
        code: the broker's reason (403, 404, 406 and others); 0 if its connection ended, or it was closed here.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


#: A method that content follows: its code, its bytes, the content header, the body.
OnContent = Callable[[int, bytes, bytes, bytes], None]
#: A confirm: the tag, whether of all up to it, whether the broker took it.
OnConfirm = Callable[[int, bool, bool], None]


def _nothing(*_: Any) -> None:
    """Ignore what was not asked for."""


class Channel:
    """A channel of ours, from open to ended. Its number is free again once both sides know that it is closed."""

    def __init__(self, socket: Socket, number: int, frame_max: int) -> None:
        self.socket = socket
        self.number = number
        self.frame_max = frame_max
        self.on_content: OnContent = _nothing
        self.on_confirm: OnConfirm = _nothing
        self.on_cancel: Callable[[], None] = _nothing
        self.on_end: Callable[[], None] = _nothing
        #: Set to the reason once it has ended.
        self.ended: asyncio.Future[ChannelClosed] = asyncio.get_running_loop().create_future()
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._code = 0
        self._method = self._header = b""
        self._missing = 0
        self._pieces: list[bytes] = []
        #: Deliveries that the broker waits for, in order: their bytes by their tag; and those that were acked
        #: and are not written yet.
        self._unsettled: dict[int, int] = {}
        self._acked: set[int] = set()

    @classmethod
    async def open(cls, socket: Socket, channel_max: int, frame_max: int) -> "Channel":
        """Open a channel with the highest number that is free.

        Raises:
            BrokerError: none is free.
            ChannelClosed: the connection has ended.
        """
        number = socket.free_number(channel_max)
        if number is None:
            raise BrokerError(f"all {channel_max} channels are in use")
        channel = cls(socket, number, frame_max)
        if socket.ended is None:
            socket.add(number, channel)
        await channel.ask(commands.Channel.Open())
        return channel

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.ended.done()

    @property
    def unsettled(self) -> int:
        """How many deliveries are not settled."""
        return len(self._unsettled) - len(self._acked)

    async def ask(self, method: base.Frame) -> Any:
        """Send a method and wait for its answer.

        Raises:
            ChannelClosed: the channel or its connection ended first.
        """
        if self.socket.ended is not None:
            raise ChannelClosed(0, self.socket.ended)
        if self.is_closed:
            raise _again(self.ended.result())
        found = await self._send(method)
        if isinstance(found, ChannelClosed):
            raise _again(found)
        return found

    def _send(self, method: base.Frame) -> asyncio.Future[Any]:
        """Send a method, and return its answer to be."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self.socket.send(frame.marshal(method, self.number))
        return answer

    async def close(self) -> None:
        """Close it, after its last acks; what was not settled is delivered again."""
        if self.is_closed:
            return
        for ack in self.acks():
            self.socket.send(ack)
        closed = self._send(commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0))
        self._finish(ChannelClosed(0, "the channel was closed"), keeps_answers=True)
        await closed

    # Settling.

    def hold(self, tag: int, size: int) -> None:
        """Count a delivery that is to be settled."""
        self._unsettled[tag] = size
        self.socket.hold(size)

    def ack(self, tag: int) -> bool:
        """Acknowledge a delivery; False if it is not unsettled here."""
        if self.is_closed or tag in self._acked or (size := self._unsettled.get(tag)) is None:
            return False
        self._acked.add(tag)
        self.socket.release(size)
        self.socket.ack_soon(self)
        return True

    def reject(self, tag: int) -> bool:
        """Return a delivery to its queue; False if it is not unsettled here."""
        if self.is_closed or tag in self._acked or (size := self._unsettled.pop(tag, None)) is None:
            return False
        self.socket.release(size)
        self.socket.send(frames.reject_frame(self.number, tag))
        return True

    def acks(self) -> list[bytes]:
        """Return the frames of the acks that wait: one for all that are acked in a row from the oldest on."""
        if self.is_closed:
            return []
        acked, unsettled = self._acked, self._unsettled
        row = []
        for tag in unsettled:
            if tag not in acked:
                break
            row.append(tag)
        found = []
        if row:
            found.append(frames.ack_frame(self.number, row[-1], multiple=len(row) > 1))
            acked.difference_update(row)
        found += [frames.ack_frame(self.number, tag, multiple=False) for tag in acked]
        for tag in (*row, *acked):
            del unsettled[tag]
        acked.clear()
        return found

    # What comes.

    def receive(self, kind: int, data: bytes, at: int, end: int) -> None:
        """Take a frame."""
        if kind == frames.METHOD:
            self._receive_method(data, at, end)
        elif kind == frames.HEADER:
            self._header = data[at:end]
            self._missing = content.body_size(self._header)
            self._pieces = []
            if self._missing == 0:
                self._complete(b"")
        elif kind == frames.BODY:
            piece = data[at:end]
            self._missing -= len(piece)
            if self._missing > 0:
                self._pieces.append(piece)
            else:
                self._complete(b"".join((*self._pieces, piece)) if self._pieces else piece)

    def _complete(self, body: bytes) -> None:
        self._pieces = []
        if self.is_closed:
            return
        if self._code == frames.BASIC_GET_OK:
            self._answer((self._method, self._header, body))
        else:
            self.on_content(self._code, self._method, self._header, body)

    def _receive_method(self, data: bytes, at: int, end: int) -> None:
        (code,) = frames.CODE.unpack_from(data, at)
        if code in frames.WITH_CONTENT:
            self._code, self._method = code, data[at:end]
        elif code in {frames.BASIC_ACK, frames.BASIC_NACK}:
            self.on_confirm(*frames.read_confirm(data, at), code == frames.BASIC_ACK)
        elif code == frames.CHANNEL_CLOSE:
            self.socket.send(frames.close_ok_frame(self.number))
            self.socket.remove(self.number)
            self._finish(ChannelClosed(*frames.read_close(data[at:end])))
        elif code == frames.BASIC_CANCEL:
            self.on_cancel()
        else:
            if code == frames.CHANNEL_CLOSE_OK:
                self.socket.remove(self.number)
            self._answer(frame.unmarshal(data[at - frames.FRAME_SIZE : end + 1])[2])

    def _answer(self, answer: Any) -> None:
        if self._answers:
            waiting = self._answers.popleft()
            if not waiting.done():  # who asked may wait no more
                waiting.set_result(answer)

    # Its end.

    def end(self, reason: str) -> None:
        """Learn that the connection has ended."""
        self._finish(ChannelClosed(0, reason))

    def _finish(self, reason: ChannelClosed, *, keeps_answers: bool = False) -> None:
        if not self.is_closed:
            self.ended.set_result(reason)
            for size in (size for tag, size in self._unsettled.items() if tag not in self._acked):
                self.socket.release(size)
            self.on_end()
        if not keeps_answers:
            while self._answers:
                self._answer(reason)


def _again(closed: ChannelClosed) -> ChannelClosed:
    """Return the end to be raised once more, without the traceback of before."""
    return ChannelClosed(closed.code, str(closed))
