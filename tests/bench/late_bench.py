"""What a row of `late` is measured with: a worker of its own on the private broker, and a caller that waits."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.rabbitmq import PrivateRabbitMQ

SUPPORT: Final = Path(__file__).parents[1] / "support"


@dataclass(frozen=True)
class Measured:
    """What was measured, in words, and whether it is as promised."""

    said: str
    is_ok: bool


@dataclass
class Bench:
    """Where one row is measured; what it starts ends with it."""

    broker: PrivateRabbitMQ
    folder: Path
    ends: AsyncExitStack
    name: str

    async def start(self, *, is_ready: bool = True, **settings: str) -> "Client":
        """Start a worker on a virtual host of its own."""
        url = await self.broker.add_vhost(self.name)
        worker = WorkerProcess(
            {
                "CONNECTORS_RABBITMQ_URL": url,
                "CONNECTORS_ENABLED": "dummy",
                "PYTHONPATH": f"{SUPPORT / 'plugin'}:{SUPPORT / 'misbehaving'}",
                **{
                    name if name.isupper() else f"CONNECTORS_{name.upper()}": value
                    for name, value in settings.items()
                },
            },
            self.folder / self.name,
        )
        self.ends.callback(worker.close)
        worker.start()
        if is_ready:
            await worker.ready(120)
        else:
            await worker.until_logged("queue consumer started", 120, count=3)
        external = await asyncio.to_thread(ExternalClient, url)
        self.ends.callback(external.close)
        return Client(url, worker, external)


@dataclass
class Client:
    """A caller that measures when it is answered."""

    url: str
    worker: WorkerProcess
    external: ExternalClient

    def send(self, *jobs: dict[str, Any], **how: Any) -> list[str]:
        """Publish jobs."""
        return [self.external.send(each, **how) for each in jobs]

    async def took_s(self, *jobs: dict[str, Any], timeout_s: float = 120) -> float:
        """Publish jobs, and return the seconds until all are answered."""
        return await asyncio.to_thread(self._took_s, list(jobs), timeout_s)

    def _took_s(self, jobs: list[dict[str, Any]], timeout_s: float) -> float:
        began = time.monotonic()
        sent = self.send(*jobs)
        missing = set(sent)
        while missing:
            assert time.monotonic() - began < timeout_s, f"{len(missing)} replies are missing"
            self.external._connection.process_data_events(time_limit=0.02)
            missing -= self.external.replies.keys()
        return time.monotonic() - began

    def failures(self) -> int:
        """Return how many replies tell of a failure."""
        return sum(replies[0]["status"] == "failed" for replies in self.external.replies.values())


def soon(seconds: float) -> str:
    """Return a deadline."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def sleep(seconds: float, tenant: str, **more: Any) -> dict[str, Any]:
    """Return a job that takes its time."""
    return job("dummy", "sleep", {"seconds": seconds}, tenant=tenant, **more)
