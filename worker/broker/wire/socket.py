"""One socket with two users: the AMQP client, and our own channels."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from aiormq import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from worker.broker.wire import frames

#: Bytes of bodies that were received and not settled, above which nothing more is read, and below which it is again.
MOST_IN_FLIGHT: Final = 64 * 1024 * 1024
RESUME_BELOW: Final = MOST_IN_FLIGHT // 2
#: Bytes that wait to be written, above which no publish is added.
WRITE_HIGH_WATER: Final = 1024 * 1024
#: Bytes that the client may leave unread: it pauses the reading of all above that, so it never should.
_CLIENT_BUFFER: Final = 64 * 1024 * 1024
#: Seconds between heartbeats that the client is shown while only our own frames come, or none is read.
SHOWN_HEARTBEAT_S: Final = 1.0


class Receiver(Protocol):
    """One of our own channels, as the socket sees it."""

    def receive(self, kind: int, data: bytes, at: int, end: int) -> None:
        """Take a frame: `data[at:end]` is its payload."""

    def acks(self) -> list[bytes]:
        """Return the frames of the acks that wait."""

    def end(self, reason: str) -> None:
        """Learn that the connection has ended."""


class Socket(asyncio.StreamReaderProtocol):
    """Cuts frames, hands those of our own channels to them, feeds all others to the client.

    What is sent in one turn of the loop goes out in one write, with the acks of that turn.
    """

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._loop_time: Callable[[], float] = asyncio.get_running_loop().time
        self._reader = reader
        self._socket: asyncio.Transport | None = None
        self._channels: dict[int, Receiver] = {}
        self._rest = b""
        self._out: list[bytes] = []
        self._acking: dict[Receiver, None] = {}
        self._is_due = False
        self._shown_at = 0.0
        self._is_writable = True
        self._in_flight = 0
        #: Whether the broker stopped taking publishes: a memory or disk alarm.
        self.is_blocked = False
        #: Set while a publish may be written, and once the connection has ended.
        self.may_publish = asyncio.Event()
        self.may_publish.set()
        #: Why the connection has ended; None while it is open.
        self.ended: str | None = None
        self.is_paused = False

    # Its channels.

    def add(self, number: int, channel: Receiver) -> None:
        """Take over a channel number from the client."""
        self._channels[number] = channel

    def remove(self, number: int) -> None:
        """Forget a channel: its number may be used again."""
        self._channels.pop(number, None)

    def free_number(self, channel_max: int) -> int | None:
        """Return the highest channel number that is not used here."""
        return next((number for number in range(channel_max, 0, -1) if number not in self._channels), None)

    # Writing.

    def send(self, data: bytes) -> None:
        """Write frames at the end of this turn of the loop."""
        self._out.append(data)
        self._flush_soon()

    def ack_soon(self, channel: Receiver) -> None:
        """Write the acks of a channel at the end of this turn."""
        self._acking[channel] = None
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits now."""
        self._is_due = False
        out, self._out = self._out, []
        if self._acking:
            for channel in self._acking:
                out += channel.acks()
            self._acking.clear()
        if out and self._socket is not None and self.ended is None:
            self._socket.write(out[0] if len(out) == 1 else b"".join(out))

    def pause_writing(self) -> None:
        """Hold back publishes: the peer reads too slowly."""
        super().pause_writing()
        self._is_writable = False
        self._may_publish()

    def resume_writing(self) -> None:
        """Publish again."""
        super().resume_writing()
        self._is_writable = True
        self._may_publish()

    def _may_publish(self) -> None:
        if (self._is_writable and not self.is_blocked) or self.ended is not None:
            self.may_publish.set()
        else:
            self.may_publish.clear()

    # Reading.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._socket = transport

    def data_received(self, data: bytes) -> None:
        """Cut frames, and hand each to its channel, or to the client."""
        if self._rest:
            data = self._rest + data
        channels, at, size = self._channels, 0, len(data)
        theirs: list[bytes] = []
        has_ours = False
        while size - at > frames.FRAME_SIZE:
            kind, number, length = frames.FRAME.unpack_from(data, at)
            if kind not in frames.KINDS:
                break  # not AMQP: the client says what is wrong
            start = at + frames.FRAME_SIZE
            end = start + length
            if end >= size:
                break
            if data[end] != frames.END:
                break
            channel = channels.get(number)
            if channel is not None:
                has_ours = True
                channel.receive(kind, data, start, end)
            else:
                if number == 0 and kind == frames.METHOD:
                    self._look_at(data[start:end])
                theirs.append(data[at : end + 1])
            at = end + 1
        self._rest = data[at:]
        if self._rest and not self._is_whole_so_far():
            theirs.append(self._rest)
            self._rest = b""
        if theirs:
            super().data_received(b"".join(theirs))
        elif has_ours:
            self._show_heartbeat()

    def _is_whole_so_far(self) -> bool:
        """Whether the rest can become a frame."""
        rest = self._rest
        if rest[0] not in frames.KINDS:
            return False
        if len(rest) <= frames.FRAME_SIZE:
            return True
        end: int = frames.FRAME_SIZE + frames.FRAME.unpack_from(rest)[2]
        return end >= len(rest) or rest[end] == frames.END

    def _look_at(self, method: bytes) -> None:
        """Note what concerns our channels, too, of what is said to the client."""
        code = frames.CODE.unpack_from(method)[0] if len(method) >= frames.CODE_SIZE else 0
        if code in {frames.CONNECTION_BLOCKED, frames.CONNECTION_UNBLOCKED}:
            self.is_blocked = code == frames.CONNECTION_BLOCKED
            self._may_publish()
        elif code == frames.CONNECTION_CLOSE:
            self.end(frames.read_close(method)[1] or "the broker closed the connection")

    def _show_heartbeat(self) -> None:
        """Keep the client, which counts the frames that it sees, from taking the peer for dead."""
        now = self._loop_time()
        if now - self._shown_at >= SHOWN_HEARTBEAT_S:
            self._shown_at = now
            super().data_received(frames.HEARTBEAT_FRAME)

    def eof_received(self) -> bool | None:
        """Show the client the end, with the piece of a frame before it."""
        if self._rest:
            super().data_received(self._rest)
            self._rest = b""
        return super().eof_received()

    # The bytes in flight.

    def hold(self, size: int) -> None:
        """Count a body that was received; stop reading if that is too much."""
        self._in_flight += size
        if self._in_flight > MOST_IN_FLIGHT and not self.is_paused and self._socket is not None:
            self.is_paused = True
            self._socket.pause_reading()
            self._beat_while_paused()

    def release(self, size: int) -> None:
        """Count a body that was settled."""
        self._in_flight -= size
        if self.is_paused and self._in_flight < RESUME_BELOW:
            self.resume()

    def resume(self) -> None:
        """Read again."""
        if self.is_paused and self._socket is not None:
            self.is_paused = False
            self._socket.resume_reading()

    def _beat_while_paused(self) -> None:
        if self.is_paused and self.ended is None:
            self._show_heartbeat()
            asyncio.get_running_loop().call_later(SHOWN_HEARTBEAT_S, self._beat_while_paused)

    # Its end.

    def end(self, reason: str) -> None:
        """End our channels: nothing more is sent."""
        if self.ended is not None:
            return
        self.ended = reason
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end(reason)
        self._may_publish()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is left."""
        self.end(str(exc) if exc is not None else "the connection was lost")
        super().connection_lost(exc)


class SocketFactory(TransportFactory):
    """Opens the socket of one connection of the client, and keeps our end of it."""

    def __init__(self) -> None:
        self.socket: Socket | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect.

        Raises:
            AMQPConnectionError: as the client's own factories.
        """
        tls_of = kwargs.pop("ssl_context_provider")
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_CLIENT_BUFFER)
        try:
            transport, socket = await loop.create_connection(
                lambda: Socket(reader),
                url.host or "",
                url.port or 0,
                ssl=await tls_of.get_context() if url.scheme == "amqps" else None,
                **kwargs,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        self.socket = socket
        return reader, asyncio.StreamWriter(transport, socket, reader, loop)
