"""The worker beside a hand-written aio-pika worker, in turns on one broker: ratios, since machines are noisy.

`python -m tests.bench` measures that, then reads of a calendar and of Salesforce; `… worker`, `… calendar`
or `… salesforce` one of them.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench import calendar_reads, salesforce_reads
from tests.support.rpc import ExternalClient, job
from worker.dev.rabbitmq import PrivateRabbitMQ

JOBS = 5000
ROUNDS = 3
IDLE_CALLS = 300
QUEUE = "connectors.jobs.dummy"


@dataclass(frozen=True)
class Measured:
    """One worker's round."""

    jobs_per_s: float
    cpu_s_per_1000: float
    rss_mb: float
    p50_ms: float
    p99_ms: float


def command(name: str, url: str) -> list[str]:
    """Say how a worker is started."""
    if name == "plain":
        return [sys.executable, str(Path(__file__).with_name("plain_worker.py")), url, QUEUE]
    return [sys.executable, "-m", "worker", "worker"]


@contextmanager
def running(name: str, url: str, folder: Path) -> Iterator[psutil.Process]:
    """Run a worker, its log to a file."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "CONNECTORS_RABBITMQ_URL": url,
        "CONNECTORS_ENABLED": "dummy",
        "CONNECTORS_TENANT_CONCURRENCY": "100",
        "CONNECTORS_METRICS_PORT": "0",
        "CONNECTORS_DATA_DIR": str(folder),
    }
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command(name, url), env=environment, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


def measure(name: str, url: str, folder: Path) -> Measured:
    """Let a worker empty a full queue, then ask it one job at a time."""
    with ExternalClient(url, reply_queue="bench.replies") as client:
        client.channel.confirm_delivery()
        sent = [client.send(job("dummy", "echo", {"message": "hello"})) for _ in range(JOBS)]
        with running(name, url, folder) as process:
            client.until(lambda: len(client.replies) > 200, 60, lambda: "the first replies")
            cpu_before, done_before, began = _cpu_s(process), len(client.replies), time.monotonic()
            client.wait(sent, 300)
            took_s, cpu_s = time.monotonic() - began, _cpu_s(process) - cpu_before
            count = JOBS - done_before
            rss_mb = process.memory_info().rss / 1e6
            latencies = []
            for _ in range(IDLE_CALLS):
                asked = time.perf_counter()
                client.call(job("dummy", "echo", {"message": "hello"}))
                latencies.append((time.perf_counter() - asked) * 1000)
    quantiles = statistics.quantiles(latencies, n=100)
    return Measured(count / took_s, cpu_s / count * 1000, rss_mb, quantiles[49], quantiles[98])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def main() -> None:
    """Measure in turns, and print the medians and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
            with running("ours", broker.url, folder):  # declares the queues
                while "queue consumer started" not in (folder / "ours.log").read_text():
                    await asyncio.sleep(0.1)
            found: dict[str, list[Measured]] = {"ours": [], "plain": []}
            for number in range(ROUNDS):
                for name_of, rounds in found.items():
                    print(f"round {number + 1} of {ROUNDS}: {name_of} …", file=sys.stderr)
                    rounds.append(measure(name_of, broker.url, folder))
    print(
        f"{JOBS} echo jobs waiting on a quorum queue, prefetch 100, persistent, reply confirmed before ack;"
    )
    print(f"then {IDLE_CALLS} one at a time. Medians of {ROUNDS} rounds in turns.\n")
    print(f"{'':24}{'ours':>10}{'plain':>10}{'ratio':>8}")
    for field, title in (
        ("jobs_per_s", "jobs/s"),
        ("cpu_s_per_1000", "CPU s per 1,000 jobs"),
        ("rss_mb", "memory MB"),
        ("p50_ms", "idle p50 ms"),
        ("p99_ms", "idle p99 ms"),
    ):
        ours, plain = (statistics.median(getattr(each, field) for each in found[who]) for who in found)
        print(f"{title:24}{ours:10.2f}{plain:10.2f}{ours / plain:8.2f}")
    print("\n`plain` is forty lines of aio-pika: no checks, retries, dead letters, metrics or logs.")


if __name__ == "__main__":
    parts = sys.argv[1:] or ["worker", "calendar", "salesforce"]
    if "worker" in parts:
        asyncio.run(main())
    if "calendar" in parts:
        calendar_reads.main()
    if "salesforce" in parts:
        salesforce_reads.main()
