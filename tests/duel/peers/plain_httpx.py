"""httpx with retries, in a process that answers on a socket, as a web service would.

httpx retries only connects by itself and refers to a general retry tool for the rest
(https://www.python-httpx.org/advanced/transports/): three attempts with growing pauses are the usual setting.
"""

import asyncio
import os
import sys
from itertools import count

import httpx

from tests.duel.callers import Said, hold_lines
from tests.duel.peers.booking import book
from tests.duel.plan import Plan

ATTEMPTS = 3
FIRST_PAUSE_S = 0.5


async def worker(port: int) -> None:
    """Answer each line, a reference, with what became of it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reference = (await reader.readline()).decode().strip()
        writer.write(f"{await _book(reference)}\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=200):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def _book(reference: str) -> Said:
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            await book(reference)
            return Said.BOOKED
        except httpx.HTTPError:
            continue
    return Said.FAILED


async def callers(plan: Plan, ports: list[int]) -> None:
    """Call the processes in turns; one that refuses is passed over, as a load balancer does."""
    turns = count()

    async def call(reference: str) -> Said:
        reader, writer = await connect()
        try:
            writer.write(f"{reference}\n".encode())
            line = await reader.readline()
        except ConnectionError as cut:
            raise EOFError from cut
        finally:
            writer.close()
        if not line:
            raise EOFError
        return Said(line.decode().strip())

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", ports[next(turns) % len(ports)])
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)

    await hold_lines(plan, call)


if __name__ == "__main__":
    role, *given = sys.argv[1:]
    if role == "worker":
        asyncio.run(worker(int(given[0])))
    else:
        asyncio.run(callers(Plan.from_json(os.environ["DUEL_PLAN"]), [int(each) for each in given]))
