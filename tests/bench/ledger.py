"""The ledger: keys that are claimed, begun and completed in a second, and how long that takes at half the rate.

`python -m tests.bench.ledger [--rows 1000000] [--ms 10 50 100 200] [--jobs 10000]`: on SQLite and on a private
PostgreSQL, beside so many rows of other keys; on that PostgreSQL so many milliseconds away (each way); and a
queue of KEYED jobs through a whole worker on each.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from connectors.sdk.runtime.ledger import Claimed, Identity
from tests.support.distance import distant
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ
from worker.ledger.store import SqlLedger

#: Jobs at once while the most is measured, and for how long.
JOBS = 400
SECONDS = 5.0
#: Keys per second while latencies are measured: half of what is aimed at.
PACED = 2500.0
PRINT = "f" * 64
ROW = (
    "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, state, fence, lease_until,"
    " in_flight, lands_at, attempts, result, expires_at)"
)


@dataclass(frozen=True)
class Measured:
    """What one ledger did."""

    name: str
    keys_per_s: float
    #: Milliseconds of the three steps at `PACED`, or half of the most.
    p50_ms: float
    p99_ms: float


async def three_steps(ledger: SqlLedger, key: str) -> None:
    """Claim a key, begin its call, store its result."""
    identity = Identity("acme", "dummy", "echo", key)
    claimed = await ledger.claim(identity, PRINT)
    assert isinstance(claimed, Claimed)
    assert await ledger.begin(identity, claimed.fence, lands_within_s=30.0)
    assert await ledger.complete(identity, claimed.fence, {"received_message": "hello"})


async def most(ledger: SqlLedger, prefix: str, jobs: int, seconds: float) -> float:
    """Return keys per second with many jobs at once."""
    began = time.monotonic()
    done = 0

    async def each(number: int) -> None:
        nonlocal done
        while time.monotonic() - began < seconds:
            await three_steps(ledger, f"{prefix}-{number}-{done}-{time.monotonic_ns()}")
            done += 1

    await asyncio.gather(*(each(number) for number in range(jobs)))
    return done / (time.monotonic() - began)


async def paced(ledger: SqlLedger, prefix: str, keys_per_s: float, seconds: float) -> list[float]:
    """Return the seconds that each key took while keys come at a fixed rate, whether or not the last are done."""
    took: list[float] = []

    async def each(number: int) -> None:
        began = time.monotonic()
        await three_steps(ledger, f"{prefix}-{number}")
        took.append(time.monotonic() - began)

    began, number = time.monotonic(), 0
    async with asyncio.TaskGroup() as jobs:
        while (passed := time.monotonic() - began) < seconds:
            while number < passed * keys_per_s:
                jobs.create_task(each(number))
                number += 1
            await asyncio.sleep(0.001)
    return took


async def measure(name: str, url: str, jobs: int = JOBS, one_way_s: float = 0.0) -> Measured:
    """Measure one ledger."""
    ledger = SqlLedger(url)
    await ledger.start()
    try:
        prefix = f"{name}-{time.time_ns()}"
        seconds = SECONDS + 40 * one_way_s
        await most(ledger, f"{prefix}-warm", jobs, seconds / 2)
        keys_per_s = await most(ledger, f"{prefix}-most", jobs, seconds)
        took = sorted(await paced(ledger, f"{prefix}-paced", min(keys_per_s / 2, PACED), seconds))
    finally:
        await ledger.close()
    p99 = took[int(len(took) * 0.99)]
    return Measured(name, keys_per_s, statistics.median(took) * 1e3, p99 * 1e3)


async def fill_sqlite(file: Path, rows: int) -> None:
    """Put rows of other keys into a new ledger."""
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.start()
    await ledger.close()
    import sqlite3

    def fill() -> None:
        connection = sqlite3.connect(file)
        with connection:
            connection.execute(
                f"{ROW} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
                " SELECT 'acme', 'dummy', 'echo', hex(randomblob(16)), ?, 'done', 1, 0.0, FALSE, 0.0, 1, '\"kept\"',"
                " 9e9 + i FROM n",
                (rows, PRINT),
            )
        connection.close()

    if rows:
        await asyncio.to_thread(fill)


async def fill_postgresql(url: str, rows: int) -> None:
    """Put rows of other keys into a new ledger."""
    ledger = SqlLedger(url)
    await ledger.start()
    await ledger.close()
    connection = await asyncpg.connect(url, ssl=False)
    if rows:
        await connection.execute(
            f"{ROW} SELECT 'acme', 'dummy', 'echo', md5(i::text), '{PRINT}', 'done', 1, 0, FALSE, 0, 1, '\"kept\"',"
            f" 9e9 + i FROM generate_series(1, {rows}) AS i"
        )
    await connection.execute("VACUUM ANALYZE connectors_ledger")
    await connection.close()


@asynccontextmanager
async def postgresql(rows: int) -> AsyncIterator[str]:
    """Run a PostgreSQL with a filled ledger."""
    with tempfile.TemporaryDirectory() as folder:
        async with PrivatePostgres(Path(folder) / "postgres") as server:
            url = await server.create_database("bench")
            await fill_postgresql(url, rows)
            yield url


def show(measured: Measured) -> None:
    """Print a line of the table."""
    print(
        f"{measured.name:<24} {measured.keys_per_s:>8.0f} keys/s"
        f"   at half load p50 {measured.p50_ms:>7.1f} ms  p99 {measured.p99_ms:>7.1f} ms"
        f"   load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


async def drained(url: str, jobs: int) -> float:
    """Return the KEYED jobs per second of a worker that empties a full queue; each is answered."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
            settings = {
                "CONNECTORS_RABBITMQ_URL": broker.url,
                "CONNECTORS_DATABASE_URL": url,
                "CONNECTORS_ENABLED": "effects",
                "CONNECTORS_CONCURRENCY": "100",
                "CONNECTORS_TENANT_CONCURRENCY": "100",
                "PYTHONPATH": str(Path(__file__).parents[1] / "support" / "plugin"),
            }
            first = WorkerProcess(settings, folder / "first")  # declares the queues
            first.start()
            try:
                await first.ready(120)
            finally:
                first.close()
            worker = WorkerProcess({**settings, "CONNECTORS_LOG_LEVEL": "WARNING"}, folder / "worker")
            with ExternalClient(broker.url, reply_queue="bench.replies") as client:
                for _ in range(jobs):
                    client.send(job("effects", "remember", {"note": "hello"}))
                worker.start()
                try:
                    return await asyncio.to_thread(_rate, client, jobs)
                finally:
                    worker.close()


def _rate(client: ExternalClient, jobs: int) -> float:
    first = jobs // 10  # the start is not measured
    client.until(lambda: len(client.replies) >= first, 120, lambda: "the first replies")
    began, done = time.monotonic(), len(client.replies)
    client.until(lambda: len(client.replies) >= jobs, 300, lambda: "all replies")
    assert all(replies[0]["status"] == "succeeded" for replies in client.replies.values())
    return (jobs - done) / (time.monotonic() - began)


async def show_drained(name: str, url: str, jobs: int) -> None:
    """Print a line of the table."""
    if jobs:
        rate = await drained(url, jobs)
        print(
            f"{name:<24} {rate:>8.0f} KEYED jobs/s through a worker   load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


async def run(rows: int, milliseconds: list[float], databases: list[str], jobs: int) -> None:
    """Measure every ledger."""
    if "sqlite" in databases:
        with tempfile.TemporaryDirectory() as folder:
            await fill_sqlite(Path(folder) / "ledger.db", rows)
            show(await measure("sqlite", f"sqlite:///{folder}/ledger.db"))
            await show_drained("sqlite", f"sqlite:///{folder}/ledger.db", jobs)
    if "postgresql" in databases:
        async with postgresql(rows) as url:
            show(await measure("postgresql", url))
            await show_drained("postgresql", url, jobs)
            port = int(url.rpartition(":")[2].partition("/")[0])
            for each in milliseconds:
                async with distant(port, each / 1e3) as far:
                    # As many jobs as a worker has slots for at most.
                    show(
                        await measure(
                            f"postgresql {each:g} ms away", url.replace(f":{port}/", f":{far}/"), 2000
                        )
                    )


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ledger")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ms", type=float, nargs="*", default=[10.0, 50.0, 100.0, 200.0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--databases", nargs="*", default=["sqlite", "postgresql"])
    given = parser.parse_args(arguments)
    asyncio.run(run(given.rows, given.ms, given.databases, given.jobs))


if __name__ == "__main__":
    main(sys.argv[1:])
