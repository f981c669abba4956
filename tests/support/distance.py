"""A TCP proxy that is far away: each byte arrives late, and as many as before may be on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK = 1 << 16


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(CHUNK):
        loop.call_later(one_way_s, _write, writer, chunk)
    loop.call_later(one_way_s, writer.close)


def _write(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    if not writer.is_closing():
        writer.write(chunk)


@asynccontextmanager
async def distant(port: int, one_way_s: float) -> AsyncIterator[int]:
    """Listen on a free loopback port that leads to another one; a round trip takes twice `one_way_s`."""
    pumps: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, server))
        for each in (_pump(reader, server, one_way_s), _pump(server_reader, writer, one_way_s)):
            task = asyncio.create_task(each)
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for pump in list(pumps):
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()
