"""Who waits for whom: one tenant's flood beside another's calls, bulk work beside callers on the line.

`python -m tests.bench.fairness`, with `--flood 10000 --bulk 50000` as the default sizes.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.rabbitmq import PrivateRabbitMQ

#: Calls one after the other, for one percentile.
CALLS = 100
#: Seconds that each of the flooding tenant's jobs takes.
SLOW_S = 5.0


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
        for title, count, measured in (
            (
                f"{flood} slow jobs of one tenant waiting: another tenant's call, promised p95 < 5 s",
                flood,
                _flood,
            ),
            (f"{bulk} bulk jobs waiting: a call, promised p95 < twice its quiet value", bulk, _bulk),
        ):
            url = await broker.add_vhost(measured.__name__)
            worker = WorkerProcess(
                {"CONNECTORS_RABBITMQ_URL": url, "CONNECTORS_ENABLED": "dummy"}, folder / measured.__name__
            )
            worker.start()
            try:
                await worker.ready(60)
                print(f"{title} …", file=sys.stderr)
                quiet = await asyncio.to_thread(_p95_ms, url)
                loud = await asyncio.to_thread(measured, url, count)
            finally:
                worker.close()
            print(f"{title}\n    quiet p95 {quiet:.1f} ms, then {loud:.1f} ms, ratio {loud / quiet:.1f}")


def _flood(url: str, count: int) -> float:
    _publish(url, count, "dummy.sleep", job("dummy", "sleep", {"seconds": SLOW_S}, tenant="slow"))
    return _p95_ms(url)


def _bulk(url: str, count: int) -> float:
    _publish(url, count, "dummy.sleep.bulk", job("dummy", "sleep", {"seconds": 0.1}, tenant="slow"))
    return _p95_ms(url)


def _publish(url: str, count: int, key: str, body: dict[str, Any]) -> None:
    """Publish jobs that want no reply."""
    with ExternalClient(url, reply_queue=None) as client:
        for number in range(count):
            client.send({**body, "id": f"{key}-{number}"}, key=key)


def _p95_ms(url: str) -> float:
    """Call and wait, again and again."""
    took = []
    with ExternalClient(url) as client:
        for _ in range(CALLS):
            asked = time.perf_counter()
            client.call(job("dummy", "ping", tenant="quick"), timeout_s=120)
            took.append((time.perf_counter() - asked) * 1000)
    return statistics.quantiles(took, n=20)[18]


if __name__ == "__main__":
    main()
