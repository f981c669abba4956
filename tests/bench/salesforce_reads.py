"""Contacts read from a Salesforce that takes 50 ms: calls a second, and processor time a call."""

import asyncio
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from connectors.sandbox.salesforce.server import SalesforceSandbox
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.salesforce import Bench

#: Jobs at a time, as two full queues would run them.
CONCURRENCY = 200
CALLS = 2000
SERVER_DELAY_S = 0.05


@dataclass(frozen=True)
class Reads:
    """What was measured."""

    calls_per_s: float
    cpu_ms_per_call: float
    p50_ms: float
    p99_ms: float


def measure_reads(calls: int = CALLS) -> Reads:
    """Read from a sandbox in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    try:
        return asyncio.run(_read(ours.recv(), calls))
    finally:
        server.terminate()
        server.join(10)


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        org = SalesforceSandbox(delay_s=SERVER_DELAY_S)
        await org.start()
        org.seed()
        pipe.send(org.credential("client_credentials"))
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _read(document: dict[str, Any], calls: int) -> Reads:
    pool = HttpPool(HttpPolicy(max_connections_per_host=CONCURRENCY))
    bench = Bench(SalesforceSandbox(), pool)  # the org that answers is in the other process
    bench.document = document
    durations: list[float] = []

    async def work(count: int) -> None:
        for _ in range(count):
            began = time.perf_counter()
            answer = await bench.run("get_contact_details", {"email": "ada@lovelace.example"})
            assert answer["found"]
            durations.append((time.perf_counter() - began) * 1000)

    await work(1)  # the login
    durations.clear()
    began, cpu_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work(calls // CONCURRENCY) for _ in range(CONCURRENCY)))
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    await pool.close()
    durations.sort()
    count = len(durations)
    return Reads(
        count / took_s,
        cpu_s / count * 1000,
        durations[count // 2],
        durations[min(count * 99 // 100, count - 1)],
    )


def main(_arguments: list[str]) -> None:
    """Measure, and print."""
    found = measure_reads()
    print(
        f"\nSalesforce: {CONCURRENCY} concurrent reads, {CALLS} in all, of a server that takes 50 ms, one org."
    )
    print(f"{'calls/s':24}{found.calls_per_s:10.0f}")
    print(f"{'CPU ms per call':24}{found.cpu_ms_per_call:10.2f}")
    print(f"{'p50 / p99 ms':24}{found.p50_ms:10.0f}{found.p99_ms:10.0f}")


if __name__ == "__main__":
    main([])
