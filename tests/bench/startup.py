"""What it takes to begin, and to wait: cold start, `connectors --help`, memory."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.bench import processes
from tests.bench.contestants import ECHO, OURS, Contestant, Work
from tests.bench.measure import Measure, Values
from tests.bench.session import Session

#: Slots and jobs of the measure of held jobs: with so many slots all are taken from the queue.
MANY_SLOTS: Final = 1000
HELD_JOBS: Final = 900
LONG: Final = Work("sleep", {"seconds": 600})


def cold(session: Session, contestant: Contestant, _case: None) -> Values:
    """Start a worker for one job that waits, and wait for its reply."""
    with session.caller(contestant) as caller:
        ids = caller.publish_waiting(ECHO, 1)
        began = time.perf_counter()
        with session.running(contestant, ECHO) as running:
            caller.until(lambda: caller.replies_waiting() == 1, "the first reply", 0.002)
            took_s = time.perf_counter() - began
            rss_mb = processes.rss_mb(running.tree)
        caller.collect(ids)
    return {"first job s": took_s, "idle RSS MB": rss_mb}


def command_line(_session: Session, _contestant: Contestant, _case: None) -> Values:
    """Run `connectors --help`."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("connectors")), "--help"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COLUMNS": "100"})
    return {"--help s": time.perf_counter() - began}


def held(session: Session, contestant: Contestant, _case: None) -> Values:
    """Compare a worker's memory before and after it took many jobs that take long."""
    jobs = session.jobs(HELD_JOBS)
    with session.caller(contestant) as caller:
        try:
            with session.running(contestant, LONG, slots=MANY_SLOTS) as running:
                caller.call(ECHO)
                before = processes.rss_mb(running.tree)
                caller.publish(LONG, jobs)
                caller.until(lambda: caller.depth(contestant.queue) == 0, "an empty queue")
                time.sleep(1)  # what was delivered is taken in
                after = processes.rss_mb(running.tree)
                for process in running.tree:
                    process.kill()  # it would finish its jobs first
        finally:
            caller.purge()
    return {"bytes per held job": (after - before) * 1e6 / jobs}


COLD: Final = Measure("cold", "a worker starts, and answers a job that waits", cold)
HELP: Final = Measure("help", "`connectors --help`", command_line, only=[OURS.name], rounds=5)
HELD: Final = Measure(
    "held",
    f"{HELD_JOBS} jobs of 600 s taken at once by {MANY_SLOTS} slots",
    held,
    only=["ours", "aio-pika", "FastStream", "taskiq"],
)
