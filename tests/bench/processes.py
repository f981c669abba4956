"""What processes cost: CPU and memory of a worker with its children, and of the broker."""

import os
import subprocess
import sys
from collections.abc import Iterable

import psutil

#: A load average above this before a run spoils it.
QUIET_LOAD = 0.5


def tree(roots: Iterable[int]) -> list[psutil.Process]:
    """Return processes with all their children."""
    found: list[psutil.Process] = []
    for root in roots:
        process = psutil.Process(root)
        found += [process, *process.children(recursive=True)]
    return found


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds of CPU that processes have used so far."""
    return float(sum(times.user + times.system for times in (each.cpu_times() for each in processes)))


def rss_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the memory of processes in MB: resident, shared pages counted in each."""
    return float(sum(each.memory_info().rss for each in processes)) / 1e6


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask workers to end, and insist after 20 s."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def warn_if_loud(before: float) -> None:
    """Say on standard error that something else runs."""
    if before > QUIET_LOAD:
        print(
            f"warning: the load average is {before:.1f} before the run; numbers will be off", file=sys.stderr
        )
