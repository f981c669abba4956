"""Microseconds by stop of a job: what each part of the worker costs that a job passes through.

`python -m tests.bench.stops`. No broker and no network: deliveries go straight into the processor, replies into a
publisher that confirms at once. CPU time of the whole process, its log writer included; the least of some rounds.
"""

import argparse
import asyncio
import io
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

from connectors.registry import load
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.outcome import Attempt, Outcome
from connectors.sdk.runtime.result import result_of
from schemas.job import parse_job
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import JobQueue, Topology
from worker.credentials.source import NoVault
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.processor import JobProcessor
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import WaitingRoom
from worker.logs.setup import Logs, configure_logging
from worker.main import collect_garbage_less_often
from worker.metrics import Metrics

QUEUE: Final = JobQueue("connectors.jobs.dummy", "dummy")
SLOTS: Final = 100
BATCH: Final = 100
NOW: Final = datetime.now(UTC)


class ConfirmsAtOnce:
    """A confirmed publisher with no broker."""

    is_open = True

    async def publish(self, *_: Any, **__: Any) -> PublishOutcome:
        return PublishOutcome.DELIVERED


class Bench:
    """The parts that a job passes through, wired as the worker wires them."""

    def __init__(self, logs: Logs) -> None:
        registry = load(("dummy",))
        self.metrics = Metrics(version="0")
        self.metrics.add_connector("dummy", registry.connectors["dummy"].actions)
        self.metrics.add_queue(QUEUE.name, SLOTS)
        self.executor = Executor(
            registry, NoVault(self.metrics.credential_fetched), HttpPool(HttpPolicy()), MemoryLedger()
        )
        confirmed: Any = ConfirmsAtOnce()
        self.publisher = JobPublisher(confirmed, confirmed, Topology("connectors"), user="worker")
        limiter = ConcurrencyLimiter(SLOTS, on_change=lambda used, free: self.metrics.slots("", used, free))
        self.room = WaitingRoom(limiter)
        self.processor = JobProcessor(
            self.executor,
            self.publisher,
            registry,
            self.metrics,
            rooms={QUEUE: self.room},
            trusted_users=["worker"],
            max_attempts=3,
            max_body_bytes=1024 * 1024,
            log_info=logs.info,
        )
        self.numbers = iter(range(1, 1_000_000_000))
        self.delivery = self._delivery()
        self.headers = JobHeaders.read(self.delivery, trusted=["worker"], now=NOW)
        self.job = parse_job(self.delivery.body)
        self.attempt = Attempt(Deadline(None, limiter.clock))
        self.outcome = Outcome(data={"received_message": "hello"}, attempts=1)
        self.result = result_of(self.job, self.outcome, started_at=NOW, finished_at=NOW)

    def stops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Return what runs one stop once, by what the table calls it."""
        return {
            "headers read": self._read_headers,
            "job parsed": self._parse,
            "place and slot": self._take_slot,
            "action run: checks, task, timer, size": self._execute,
            "result built": self._build_result,
            "reply written": self._reply,
            "metrics counted": self._count,
        }

    async def whole(self) -> None:
        """Run a batch of jobs from delivery to ack."""
        for _ in range(BATCH):
            self.processor.receive(QUEUE, self._delivery())
        while self.processor.in_flight:
            await asyncio.sleep(0)

    def _delivery(self) -> Delivery:
        async def settle(*_: Any, **__: Any) -> None: ...

        connection = SimpleNamespace(write_queue=SimpleNamespace(full=lambda: False))
        channel: Any = SimpleNamespace(is_closed=False, connection=connection, basic_ack=settle)
        number = next(self.numbers)
        body = b'{"id":"bench-%d","connector":"dummy","action":"echo","params":{"message":"hello"}}' % number
        properties = Properties(reply_to="callers", correlation_id=f"c{number}", timestamp=NOW)
        return Delivery(body, "dummy.echo", properties, False, 0, number, channel)

    async def _read_headers(self) -> None:
        JobHeaders.read(self.delivery, trusted=["worker"], now=NOW)

    async def _parse(self) -> None:
        parse_job(self.delivery.body)

    async def _take_slot(self) -> None:
        place = self.room.enter("default", 100)
        await place.take(self.attempt.deadline)
        place.leave()

    async def _execute(self) -> None:
        await self.executor.execute(self.job, self.attempt)

    async def _build_result(self) -> None:
        result_of(self.job, self.outcome, started_at=NOW, finished_at=NOW)

    async def _reply(self) -> None:
        await self.publisher.reply(self.delivery, self.headers, self.result)

    async def _count(self) -> None:
        self.metrics.job_started(QUEUE.name)
        self.metrics.job_waited(QUEUE.name, 0.1)
        self.metrics.replied(PublishOutcome.DELIVERED)
        self.metrics.job_finished("dummy", "echo", "succeeded", 0.1)
        self.metrics.job_ended(QUEUE.name)


async def _microseconds(once: Callable[[], Awaitable[None]], times: int, rounds: int) -> float:
    """Return the least CPU time of one call."""
    least = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(times):
            await once()
        least = min(least, (time.process_time() - began) / times * 1e6)
    return least


@contextmanager
def _logging(level: str) -> Iterator[Logs]:
    """Log from a level on, to nowhere."""
    with open(os.devnull, "w") as nothing:
        logs = configure_logging(level, "json", stream=nothing)
        try:
            yield logs
        finally:
            logs.stop()


async def measure(jobs: int, rounds: int) -> dict[str, float]:
    """Return the microseconds of each stop, and of a whole job."""
    batches = max(1, jobs // BATCH)
    with _logging("WARNING") as logs:
        bench = Bench(logs)
        await bench.whole()
        found = {name: await _microseconds(stop, jobs, rounds) for name, stop in bench.stops().items()}
        silent = await _microseconds(bench.whole, batches, rounds) / BATCH
        await bench.executor.close()
    with _logging("INFO") as logs:
        bench = Bench(logs)

        async def logged() -> None:
            await bench.whole()
            logs.flush()

        whole = await _microseconds(logged, batches, rounds) / BATCH
        await bench.executor.close()
    rest = silent - sum(found.values())
    return {**found, "its task, decisions, the rest": rest, "log line": whole - silent, "whole job": whole}


def table(found: dict[str, float]) -> str:
    """Return the stops as lines of a table."""
    text = io.StringIO()
    print(f"{'stop':40}{'µs':>8}", file=text)
    for name, microseconds in found.items():
        print(f"{name:40}{microseconds:8.1f}", file=text)
    return text.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000, help="in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    given = parser.parse_args()
    collect_garbage_less_often()
    measured = asyncio.run(measure(given.jobs, given.rounds))
    print(json.dumps(measured) if given.json else table(measured), end="\n" if given.json else "")
