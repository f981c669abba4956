"""A TCP proxy that fails on demand: what a network does to a connection, without touching the network."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

#: Bytes taken at once; few, so that a cut lands where it is asked for.
CHUNK = 4096


@dataclass(eq=False)
class Proxy:
    """One port before another. A verb holds for what is open as well as for what comes."""

    target: int
    tls: ssl.SSLContext | None = None
    port: int = 0
    #: Connections that came so far.
    accepted: int = 0
    #: Seconds before each chunk is passed on.
    latency_s: float = 0.0
    #: After how many bytes to the client each new connection is reset; none any more, and it passes.
    cuts: Iterator[int] = field(default_factory=lambda: iter(()))
    _refusing: bool = False
    _to_server: asyncio.Event = field(default_factory=asyncio.Event)
    _to_client: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _busy: set[asyncio.Task[None]] = field(default_factory=set)

    def pass_all(self) -> None:
        """Be a wire."""
        self._refusing = False
        self.latency_s = 0.0
        self._to_server.set()
        self._to_client.set()

    def refuse(self) -> None:
        """Close each new connection at once; open ones stay."""
        self._refusing = True

    def blackhole(self) -> None:
        """Accept, and pass nothing either way."""
        self._to_server.clear()
        self._to_client.clear()

    def half_open(self) -> None:
        """Lose what the client sends; what the server sends still arrives."""
        self._to_server.clear()

    def mute(self) -> None:
        """Lose what the server sends; what the client sends still arrives."""
        self._to_client.clear()

    def forget(self) -> None:
        """Lose what is open, and say so to nobody, as a balancer does with idle ones; what comes passes."""
        self.blackhole()
        self._to_server, self._to_client = asyncio.Event(), asyncio.Event()
        self.pass_all()

    def reset(self) -> None:
        """Reset every open connection."""
        for writer in list(self._writers):
            _reset(writer)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
        self.accepted += 1
        self._writers.add(writer)
        other = None
        try:
            if self._refusing:
                return
            server_reader, other = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(other)
            cut = next(self.cuts, None)
            await asyncio.gather(
                self._pump(reader, other, self._to_server, None),
                self._pump(server_reader, writer, self._to_client, cut),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        open_: asyncio.Event,
        cut: int | None,
    ) -> None:
        while chunk := await reader.read(CHUNK if cut is None else min(CHUNK, cut)):
            await open_.wait()
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            writer.write(chunk)
            await writer.drain()
            if cut is not None and (cut := cut - len(chunk)) <= 0:
                _reset(writer)
                raise ConnectionResetError
        writer.close()
        raise ConnectionResetError  # one end hung up: so does the other

    async def close(self) -> None:
        """Let everything go."""
        for task in list(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)


@asynccontextmanager
async def proxy(target: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """Listen on a free loopback port; with `tls`, end TLS here."""
    served = Proxy(target, tls)
    served.pass_all()
    server = await asyncio.start_server(served.accept, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        await served.close()
        await server.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    plain = writer.get_extra_info("socket")
    with suppress(OSError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
