"""A full queue, and workers that empty it: jobs per second, CPU, memory."""

import time
from dataclasses import dataclass
from typing import Final

from tests.bench import processes
from tests.bench.contestants import BLOCKING_50_MS, ECHO, IO_50_MS, SLOTS, Contestant, Work
from tests.bench.measure import Measure, Values
from tests.bench.session import Session

#: Jobs of the beginning that are not measured: the worker starts.
FIRST_SHARE: Final = 20


@dataclass(frozen=True)
class Load:
    """What waits, and for how many worker processes."""

    work: Work = ECHO
    jobs: int = 5000
    processes: int = 1


def drain(session: Session, contestant: Contestant, load: Load) -> Values:
    """Empty a full queue. Replies are only counted meanwhile, and collected and checked when the worker is gone."""
    jobs = session.jobs(load.jobs)
    with session.caller(contestant) as caller:
        ids = caller.publish_waiting(load.work, jobs)
        with session.running(contestant, load.work, count=load.processes) as running:
            caller.until(lambda: caller.replies_waiting() >= jobs // FIRST_SHARE, "the first replies")
            tree = running.tree
            cpu_s, broker_cpu_s, began = processes.cpu_s(tree), session.broker_cpu_s(), time.monotonic()
            done = caller.replies_waiting()
            caller.until(lambda: caller.replies_waiting() >= jobs, "the last replies")
            took_s = max(time.monotonic() - began, 1e-3)
            cpu_s, broker_cpu_s = processes.cpu_s(tree) - cpu_s, session.broker_cpu_s() - broker_cpu_s
            rss_mb = processes.rss_mb(tree)
        caller.collect(ids)
    count = max(1, jobs - done)
    rate = count / took_s
    session.drained[contestant.name] = rate
    values = {
        "jobs/s": rate,
        "CPU µs/job": cpu_s / count * 1e6,
        "broker CPU µs/job": broker_cpu_s / count * 1e6,
        "RSS MB": rss_mb,
    }
    if load.work.waits:
        values["of ideal"] = rate * load.work.params["seconds"] / (SLOTS * load.processes)
    return values


def _bodies(size: int, jobs: int) -> Load:
    return Load(Work("echo", {"message": "x" * size}), jobs)


DRAIN: Final = Measure("drain", "5,000 echo jobs wait on a quorum queue; one worker", drain, {"": Load()})
IO: Final = Measure("io", f"4,000 jobs that await 50 ms, {SLOTS} at once", drain, {"": Load(IO_50_MS, 4000)})
BLOCKING: Final = Measure(
    "blocking", f"4,000 jobs that block 50 ms, {SLOTS} at once", drain, {"": Load(BLOCKING_50_MS, 4000)}
)
PROCESSES: Final = Measure(
    "processes",
    "10,000 echo jobs, and several worker processes",
    drain,
    {f"{count} processes": Load(jobs=10_000, processes=count) for count in (1, 2, 4)},
    rounds=1,
)
WAITING: Final = Measure(
    "waiting",
    "echo jobs that wait when the worker starts",
    drain,
    {f"{count:,} waiting": Load(jobs=count) for count in (1000, 10_000, 100_000)},
    rounds=1,
)
BODIES: Final = Measure(
    "bodies",
    "echo jobs with large bodies, and replies as large",
    drain,
    {
        "1 KiB": _bodies(1024, 4000),
        "32 KiB": _bodies(32 * 1024, 2000),
        "256 KiB": _bodies(256 * 1024, 400),
        "1 MiB": _bodies(1024 * 1024 - 512, 100),
    },
    rounds=1,
)
