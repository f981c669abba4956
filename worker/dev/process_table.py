"""The processes of this machine, their parents and groups: from /proc on Linux, from `ps` elsewhere."""

import contextlib
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PROC = Path("/proc")
_ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Entry:
    """One process. An id is reused; id and start time together are not."""

    pid: int
    started: str
    parent: int
    group: int
    state: str

    @property
    def is_alive(self) -> bool:
        """Whether it is alive, not a zombie."""
        return self.state != _ZOMBIE

    def is_same(self, other: "Entry") -> bool:
        """Return whether both are snapshots of one process. Its parent and its group may change."""
        return (self.pid, self.started) == (other.pid, other.started)


def read_processes() -> list[Entry]:
    """Return the process table of this moment."""
    return list(_from_proc() if (_PROC / "self/stat").exists() else _from_ps())


def descendants_outside_group(root: int) -> list[Entry]:
    """Return the descendants of a process that left its process group.

    PostgreSQL's backends and Erlang's port programs do: they make a session of their own.
    """
    children: dict[int, list[Entry]] = {}
    for entry in read_processes():
        children.setdefault(entry.parent, []).append(entry)
    found = list(children.get(root, ()))
    for entry in found:  # grows while it is walked
        found.extend(children.get(entry.pid, ()))
    return [entry for entry in found if entry.group != root]


def still_alive(known: Iterable[Entry]) -> list[Entry]:
    """Return those of the known processes that live."""
    now = {entry.pid: entry for entry in read_processes() if entry.is_alive}
    return [entry for entry in known if entry.pid in now and entry.is_same(now[entry.pid])]


def group_is_alive(group: int) -> bool:
    """Return whether a process group has a living member."""
    return any(entry.group == group and entry.is_alive for entry in read_processes())


def _from_proc() -> Iterable[Entry]:
    for directory in os.listdir(_PROC):  # noqa: PTH208  # a thousand Path objects for nothing
        if not directory.isdecimal():
            continue
        with contextlib.suppress(OSError), _open_stat(directory) as stat:  # it may end while we look
            # The name in parentheses may hold anything; what follows it is fixed: proc(5).
            fields = stat.read().rpartition(")")[2].split()
            yield Entry(int(directory), fields[19], int(fields[1]), int(fields[2]), fields[0])


def _open_stat(pid: str) -> IO[str]:
    return (_PROC / pid / "stat").open(encoding="utf-8", errors="replace")


def _from_ps() -> Iterable[Entry]:
    columns = ("-o", "pid=", "-o", "ppid=", "-o", "pgid=", "-o", "state=", "-o", "lstart=")
    listing = subprocess.run(["ps", "-A", *columns], capture_output=True, text=True, timeout=10, check=True)
    for line in listing.stdout.splitlines():
        pid, parent, group, state, started = line.split(maxsplit=4)
        yield Entry(int(pid), started, int(parent), int(group), state[0])
