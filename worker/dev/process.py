"""A child process that never outlives its launcher.

Two things see to that, since neither is enough alone. On Linux the kernel kills the child when the
launcher's main thread ends (PR_SET_PDEATHSIG). Everywhere a *guard* of one line of shell waits at a
pipe that only the launcher holds open: at its end, however the launcher died, the guard kills the
child's process group. The children are in a session of their own, so that Ctrl-C reaches the launcher
alone and it can stop them in order.

Nothing here belongs to an event loop: a child started in one loop may be stopped in another.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from worker.dev.errors import CommandFailed, StartFailed

#: Seconds between two looks at a child. A broker takes seconds, OpenBao a fifth of one.
POLL_S = 0.02
#: Seconds that a killed process is given to be gone: only one in the middle of a disk write needs any.
KILL_TIMEOUT_S = 10.0
#: Lines of the log that an error ends in: an Erlang crash report fits.
LOG_TAIL_LINES = 15

# Reads lists of processes outside the group, one line each, and keeps the last; at the end of input kills.
_GUARD = 'while read -r line; do others=$line; done; kill -KILL -- "-$1" $others'

_PR_SET_PDEATHSIG = 1
# Looked up here: between fork and exec nothing may be imported or loaded.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a child runs as, where that is another than the launcher's."""

    uid: int
    gid: int


class ChildProcess:
    """One program: started, paused, killed, stopped, and started again with the same command.

    Whoever calls `start` calls `stop` or `kill`. Output goes to `log`, appended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        account: Account | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._env = dict(env)
        self._cwd = cwd
        self._account = account
        self._child: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id, also that of its group.

        Raises:  RuntimeError: it was never started, or was stopped.
        """
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives. A paused one does."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start the program and its guard; return at once.

        Raises:  StartFailed: the program is not there, or may not be run.
        """
        if self._child is not None:
            raise RuntimeError(f"{self.name} was started already")
        # The kernel's signal is bound to the thread that forks: in a passing thread it would come too early.
        tie_to_launcher = _prctl is not None and threading.current_thread() is threading.main_thread()
        account = self._account
        with self.log.open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    self._command,
                    env=self._env,
                    cwd=self._cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=() if account else None,
                    # Only the one call into libc, its address known: safe between fork and exec.
                    preexec_fn=_die_with_launcher if tie_to_launcher else None,  # noqa: PLW1509
                )
            except OSError as error:
                raise StartFailed(f"{self.name} cannot be started: {error}") from error
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, f"guard of {self.name}", str(self._child.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            self._kill_all()
            self._child.wait(KILL_TIMEOUT_S)
            self._child = None
            raise

    async def wait_until(
        self, ready: Callable[[], Awaitable[bool]], *, timeout_s: float, what: str = "ready"
    ) -> None:
        """Ask `ready` again and again until it says yes.

        Raises:  StartFailed: the process ended before, or the time was up; with the tail of the log.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            if not self.is_running:
                ended = f"ended with code {self._child.returncode}" if self._child else "is not running"
                raise StartFailed(f"{self.name} {ended} before it was {what}; {self._log_tail()}")
            if await ready():
                return
            if time.monotonic() > deadline_s:
                raise StartFailed(f"{self.name} was not {what} in {timeout_s:g} s; {self._log_tail()}")
            await asyncio.sleep(POLL_S)

    async def stop(self, *, grace_s: float = 10.0, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, kill what is left after `grace_s` seconds, and return when nothing is.

        Stopping what does not run is fine.
        """
        if self._child is None:
            return
        if self.is_running:
            self.resume()  # a stopped process would sleep through the signal
            self._child.send_signal(with_signal)
            await self._ended(grace_s)
        await self.kill()

    async def kill(self) -> None:
        """Kill it and all that it started, and return when they are gone."""
        child = self._child
        if child is None:
            return
        self._kill_all()
        if not await self._ended(KILL_TIMEOUT_S):
            raise CommandFailed(
                f"{self.name} (process {child.pid}) is still there {KILL_TIMEOUT_S:g} s after SIGKILL"
            )
        self._dismiss_guard()
        self._child = None

    def pause(self) -> None:
        """Stop it and all that it started in their tracks, as a hung machine would."""
        # The leader first, so that it starts no more of them while they are being stopped.
        _signal(self.pid, signal.SIGSTOP)
        outside = self._descendants_outside_group()
        self._tell_guard(outside)
        self._signal_group(signal.SIGSTOP)
        for pid in outside:
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        for pid in self._descendants_outside_group():
            _signal(pid, signal.SIGCONT)
        self._signal_group(signal.SIGCONT)
        self._tell_guard(())

    def _kill_all(self) -> None:
        outside = self._descendants_outside_group()
        self._signal_group(signal.SIGKILL)
        for pid in outside:
            _signal(pid, signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        # Also right when the leader is gone: its id is not given away while the group has members.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _descendants_outside_group(self) -> Sequence[int]:
        """Find those that made a session of their own: PostgreSQL's backends, Erlang's port programs."""
        return [pid for pid in _descendants(self.pid) if _group(pid) not in (None, self.pid)]

    async def _ended(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while self.is_running or (self._child is not None and _group_lives(self._child.pid)):
            if time.monotonic() > deadline_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _tell_guard(self, pids: Iterable[int]) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._guard.stdin.fileno(), f"{' '.join(map(str, pids))}\n".encode())

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        # Killed before its pipe is closed: it would take the end of the pipe for our death.
        guard.kill()
        guard.wait(KILL_TIMEOUT_S)
        if guard.stdin is not None:
            guard.stdin.close()

    def _log_tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join([f"its log {self.log} ends:", *lines[-LOG_TAIL_LINES:]])


async def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    stdin: str = "",
    account: Account | None = None,
) -> str:
    """Run a command to its end and return its standard output.

    Raises:  CommandFailed: an exit code other than 0, with the last lines it wrote, or no end in `timeout_s`.
    """
    name = Path(command[0]).name
    try:
        child = await asyncio.create_subprocess_exec(
            *map(str, command),
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
        )
    except OSError as error:
        raise CommandFailed(f"{name} cannot be run: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await child.communicate(stdin.encode())
    except TimeoutError as error:
        raise CommandFailed(f"{name} did not end in {timeout_s:g} s") from error
    finally:
        if child.returncode is None:
            # Its own children hold the pipes too: with the group gone, communicate and the transport end.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.communicate()
    if child.returncode != 0:
        said = (errors or output).decode("utf-8", "replace").strip().splitlines()
        raise CommandFailed(
            "\n".join([f"{name} ended with code {child.returncode}", *said[-LOG_TAIL_LINES:]])
        )
    return output.decode("utf-8", "replace")


def base_environment(path_first: Iterable[Path] = ()) -> dict[str, str]:
    """Make the environment of a child: a search path and nothing of ours.

    Not inherited: a RABBITMQ_*, ERL_*, VAULT_* or PG* variable of the developer's would change what the
    child does, and a secret in ours is none of its business.
    """
    system = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    inherited = os.environ.get("PATH", "").split(os.pathsep)
    path = [*map(str, path_first), *inherited, *system]
    env = {"PATH": os.pathsep.join(dict.fromkeys(filter(None, path))), "LC_ALL": "C.UTF-8"}
    if "TMPDIR" in os.environ:
        env["TMPDIR"] = os.environ["TMPDIR"]
    return env


def _die_with_launcher() -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _group_lives(group: int) -> bool:
    """Look for living members of a process group; zombies do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says this of a group of zombies
        return False
    if not Path("/proc/self/stat").exists():
        return True
    return any(entry.group == group and entry.state != "Z" for entry in _process_table())


@dataclass(frozen=True, slots=True)
class _Entry:
    pid: int
    state: str
    parent: int
    group: int


def _descendants(root: int) -> list[int]:
    """List the processes below one, parents before their children."""
    children: dict[int, list[int]] = {}
    for entry in _process_table():
        children.setdefault(entry.parent, []).append(entry.pid)
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def _process_table() -> list[_Entry]:
    """Read the process table: from /proc on Linux, from `ps` elsewhere."""
    if not Path("/proc/self/stat").exists():
        rows = _ps()
    else:
        rows = []
        for directory in os.listdir("/proc"):  # noqa: PTH208  (a thousand Path objects for nothing)
            if directory.isdecimal():
                with contextlib.suppress(OSError), _stat(directory) as stat:
                    # The name in parentheses may hold anything; what follows it is fixed.
                    rows.append([directory, *stat.read().rpartition(")")[2].split()[:3]])
    return [_Entry(int(pid), state[:1], int(parent), int(group)) for pid, state, parent, group in rows]


def _stat(pid: str) -> IO[str]:
    return Path("/proc", pid, "stat").open(encoding="utf-8", errors="replace")


def _ps() -> list[list[str]]:
    columns = ("-o", "pid=", "-o", "state=", "-o", "ppid=", "-o", "pgid=")
    listing = subprocess.run(["ps", "-A", *columns], capture_output=True, text=True, timeout=10, check=True)
    return [line.split() for line in listing.stdout.splitlines()]
