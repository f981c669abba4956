"""Who waits for whom: one tenant's flood beside another's calls, bulk work beside callers on the line.

`python -m tests.bench.fairness`, with `--flood 10000 --bulk 50000` as the default sizes. The flood is run alone and
beside the calls: neither should slow the other down.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.rabbitmq import PrivateRabbitMQ

#: Calls one after the other, for one percentile.
CALLS = 100
#: Seconds between two calls beside a flood, as a caller on the line makes them.
PAUSE_S = 0.1
#: Seconds that each of the flooding tenant's jobs takes.
JOB_S = 0.5


def main(arguments: list[str]) -> None:
    """Measure both, and print what was found beside what was promised."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--flood", type=int, default=10_000)
    options.add_argument("--bulk", type=int, default=50_000)
    given = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(Path(folder), given.flood, given.bulk))


async def _measure(folder: Path, flood: int, bulk: int) -> None:
    async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
        for measured, count in ((_flood, flood), (_bulk, bulk)):
            if not count:
                continue
            url = await broker.add_vhost(measured.__name__)
            worker = WorkerProcess(
                {"CONNECTORS_RABBITMQ_URL": url, "CONNECTORS_ENABLED": "dummy"}, folder / measured.__name__
            )
            worker.start()
            try:
                await worker.ready(60)
                print(await asyncio.to_thread(measured, url, count), flush=True)
            finally:
                worker.close()


@dataclass(frozen=True)
class Flood:
    """Calls beside a flood, and the flood beside calls."""

    jobs: int
    quiet_p95_ms: float
    calls_ms: list[float]
    alone_s: float
    beside_s: float

    @property
    def p95_ratio(self) -> float:
        """How many times the quiet p95 that of the calls beside the flood is."""
        return _p95_ms(self.calls_ms) / self.quiet_p95_ms

    @property
    def throughput_ratio(self) -> float:
        """The flood's throughput beside calls, of that alone."""
        return self.alone_s / self.beside_s


def flood(url: str, count: int) -> Flood:
    """Run a flood alone, and then beside another tenant's calls."""
    quiet = _p95_ms(_call_times(url, lambda done: done >= CALLS, PAUSE_S))
    print(f"{count} jobs of {JOB_S} s, alone …", file=sys.stderr)
    alone_s = _flood_s(url, count)
    print("the same beside another tenant's calls …", file=sys.stderr)
    ended, times = threading.Event(), list[float]()
    calls = threading.Thread(target=lambda: times.extend(_call_times(url, lambda _: ended.is_set(), PAUSE_S)))
    calls.start()
    beside_s = _flood_s(url, count)
    ended.set()
    calls.join()
    return Flood(count, quiet, times, alone_s, beside_s)


def _flood(url: str, count: int) -> str:
    found = flood(url, count)
    times = found.calls_ms
    return (
        f"{count} jobs of one tenant beside another's calls (load {os.getloadavg()[0]:.1f})\n"
        f"    calls: quiet p95 {found.quiet_p95_ms:.1f} ms, beside {_p95_ms(times):.1f} ms, "
        f"ratio {found.p95_ratio:.2f} (promised 1.5); "
        f"p50 {statistics.median(times):.1f}, worst {max(times):.0f} ms, {len(times)} calls\n"
        f"    flood: alone {count / found.alone_s:.1f} jobs/s, beside {count / found.beside_s:.1f} jobs/s, "
        f"ratio {found.throughput_ratio:.2f} (promised 0.9)"
    )


def _flood_s(url: str, count: int) -> float:
    """Publish the flood, and return the seconds until its last job is answered."""
    with ExternalClient(url) as client:
        began = time.monotonic()
        sent = [client.send(job("dummy", "sleep", {"seconds": JOB_S}, tenant="many")) for _ in range(count)]
        client.wait(sent, 600)
        return time.monotonic() - began


def _bulk(url: str, count: int) -> str:
    quiet = _p95_ms(_call_times(url, lambda done: done >= CALLS))
    print(f"{count} bulk jobs …", file=sys.stderr)
    body = job("dummy", "sleep", {"seconds": 0.1}, tenant="many")
    with ExternalClient(url, reply_queue=None) as client:
        for number in range(count):
            client.send({**body, "id": f"bulk-{number}"}, key="dummy.sleep.bulk")
    loud = _p95_ms(_call_times(url, lambda done: done >= CALLS))
    return (
        f"{count} bulk jobs waiting: a call, promised p95 < twice its quiet value\n"
        f"    quiet p95 {quiet:.1f} ms, then {loud:.1f} ms, ratio {loud / quiet:.2f}"
    )


def _call_times(url: str, is_over: Any, pause_s: float = 0.0) -> list[float]:
    """Call and wait, again and again; return the milliseconds of each call."""
    took: list[float] = []
    with ExternalClient(url) as client:
        while not is_over(len(took)):
            asked = time.perf_counter()
            client.call(job("dummy", "ping", tenant="quick"), timeout_s=120)
            took.append((time.perf_counter() - asked) * 1000)
            client.process(pause_s)
    return took


def _p95_ms(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[18]


if __name__ == "__main__":
    main(sys.argv[1:])
