"""A socket without a network: frames in by hand, writes kept."""

import asyncio
from typing import Any

from pamqp import base, frame

from worker.broker.wire.channel import Channel
from worker.broker.wire.socket import Socket

NUMBER = 9


class FakeTransport(asyncio.Transport):
    """Keeps what is written, and whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reads = True

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return False


class FakeWire:
    """One channel of ours on such a socket."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.socket = Socket(self.reader)
        self.transport = FakeTransport()
        self.socket.connection_made(self.transport)
        self.channel = Channel(self.socket, NUMBER, 4096)
        self.socket.add(NUMBER, self.channel)

    def come(self, *methods: Any, channel: int = NUMBER) -> None:
        """Let frames come from the broker, in one piece."""
        self.socket.data_received(b"".join(frame.marshal(method, channel) for method in methods))

    def is_read(self) -> bool:
        """Whether what comes is read."""
        return self.transport.reads

    async def written(self) -> list[Any]:
        """Return what was written in this turn of the loop, as the client reads it."""
        await asyncio.sleep(0)
        data, found = b"".join(self.transport.writes), []
        self.transport.writes.clear()
        while data:
            consumed, _, each = frame.unmarshal(data)
            found.append(each)
            data = data[consumed:]
        return found

    async def answered(self, asking: Any, *answers: base.Frame) -> Any:
        """Ask something, and have the broker answer."""
        task = asyncio.ensure_future(asking)
        for answer in answers:
            await asyncio.sleep(0)
            self.come(answer)
        return await task
