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


def main() -> None:
    """Measure both, and print what was found beside what was promised."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--flood", type=int, default=10_000)
    options.add_argument("--bulk", type=int, default=50_000)
    given = options.parse_args()
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


def _flood(url: str, count: int) -> str:
    quiet = _p95_ms(_call_times(url, lambda done: done >= CALLS))
    print(f"{count} jobs of {JOB_S} s, alone …", file=sys.stderr)
    alone_s = _flood_s(url, count)
    print("the same beside another tenant's calls …", file=sys.stderr)
    ended, times = threading.Event(), list[float]()
    calls = threading.Thread(target=lambda: times.extend(_call_times(url, lambda _: ended.is_set(), PAUSE_S)))
    calls.start()
    beside_s = _flood_s(url, count)
    ended.set()
    calls.join()
    loud = _p95_ms(times)
    return (
        f"{count} jobs of one tenant beside another's calls (load {os.getloadavg()[0]:.1f})\n"
        f"    calls: quiet p95 {quiet:.1f} ms, beside {loud:.1f} ms, ratio {loud / quiet:.2f} (promised 1.5); "
        f"p50 {statistics.median(times):.1f}, worst {max(times):.0f} ms, {len(times)} calls\n"
        f"    flood: alone {count / alone_s:.1f} jobs/s, beside {count / beside_s:.1f} jobs/s, "
        f"ratio {alone_s / beside_s:.2f} (promised 0.9)"
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
    main()
