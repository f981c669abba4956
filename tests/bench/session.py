"""One run of the bench: a private broker, a virtual host for each contestant, workers started and ended."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.bench import processes
from tests.bench.caller import Caller
from tests.bench.contestants import ECHO, SLOTS, Contestant, Work
from worker.dev.rabbitmq import PrivateRabbitMQ

#: Seconds between the last reply and the end of a worker: until its acks have arrived.
SETTLE_S: Final = 0.5


@dataclass
class Running:
    """Workers that run: their processes, children included."""

    roots: list[int]

    @property
    def tree(self) -> list[psutil.Process]:
        """The processes as they are now."""
        return processes.tree(self.roots)


@dataclass
class Session:
    """What a measure works with."""

    folder: Path
    broker: PrivateRabbitMQ
    contestants: Sequence[Contestant]
    #: All numbers of jobs are divided by this.
    divisor: int = 1
    urls: dict[str, str] = field(default_factory=dict)
    #: Jobs per second that each contestant drained last, for the load of other measures.
    drained: dict[str, float] = field(default_factory=dict)

    def open(self) -> None:
        """Start the broker, and give each contestant a virtual host of its own."""
        asyncio.run(self.broker.start())
        for contestant in self.contestants:
            self.admit(contestant, asyncio.run(self.broker.add_vhost(contestant.name)))

    def admit(self, contestant: Contestant, url: str) -> None:
        """Run a contestant once: it declares its queues and compiles its modules."""
        self.urls[contestant.name] = url
        with self.caller(contestant) as caller, self.running(contestant, ECHO):
            caller.wait_for_queue()
            caller.call(ECHO)

    def close(self) -> None:
        """Stop the broker."""
        asyncio.run(self.broker.stop())

    def jobs(self, count: int) -> int:
        """Return a number of jobs for this run, at least 20."""
        return max(20, count // self.divisor)

    def caller(self, contestant: Contestant) -> Caller:
        """Connect to a contestant's virtual host."""
        return Caller(contestant, self.urls[contestant.name])

    def broker_cpu_s(self) -> float:
        """Return the seconds of CPU that the broker has used so far."""
        return processes.cpu_s([psutil.Process(self.broker.pid)])

    @contextmanager
    def running(
        self, contestant: Contestant, work: Work, *, count: int = 1, slots: int = SLOTS
    ) -> Iterator[Running]:
        """Run a contestant's workers, and end them."""
        url = self.urls[contestant.name]
        started = contestant.start(url, self.folder, work, processes=count, slots=slots)
        try:
            yield Running([each.pid for each in started])
            time.sleep(SETTLE_S)
        finally:
            processes.end(started)

    def keep_logs(self) -> None:
        """Copy the contestants' logs to where they outlive the run."""
        for contestant in self.contestants:
            log = self.folder / f"{contestant.name}.log"
            if log.exists():
                shutil.copy(log, Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-{contestant.name}.log")
