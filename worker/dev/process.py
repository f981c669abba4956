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
from pathlib import Path

from worker.dev.errors import CommandFailed, StartFailed
from worker.dev.process_table import Entry, descendants_outside_group, group_is_alive, still_alive

#: Seconds between two checks of a child. A broker takes seconds, OpenBao a fifth of one.
POLL_S = 0.02
#: Seconds that a killed process is given to be gone: only one in the middle of a disk write needs any.
KILL_TIMEOUT_S = 10.0
#: Lines of the log that an error ends in: an Erlang crash report fits.
LOG_TAIL_LINES = 15

# Reads lists of processes outside the group, one line each, and keeps the last; at the end of input it kills them.
_GUARD = 'while read -r line; do others=$line; done; kill -s KILL -- "-$1" $others'

_PR_SET_PDEATHSIG = 1
# Looked up here, because between fork and exec nothing may be imported or loaded.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class ChildProcess:
    """One program: started, paused, killed, stopped, and started again with the same command.

    Its user calls `stop` or `kill` after `start`. Output goes to `log`, appended.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._env = dict(env)
        self._cwd = cwd
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
        return self._child is not None and _exit_code(self._child) is None

    def start(self) -> None:
        """Start the program and its guard; return at once.

        Raises:  StartFailed: the program is not there, or may not be run.
        """
        if self._child is not None:
            raise RuntimeError(f"{self.name} was started already")
        # The kernel's signal is bound to the thread that forks: in a passing thread it would come too early.
        tie_to_launcher = _prctl is not None and threading.current_thread() is threading.main_thread()
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
            child, self._child = self._child, None
            _kill_all(child.pid, ())
            child.wait(KILL_TIMEOUT_S)
            raise

    async def wait_until(
        self, ready: Callable[[], Awaitable[bool]], *, timeout_s: float, what: str = "ready"
    ) -> None:
        """Call `ready` repeatedly until it returns True.

        Raises:  StartFailed: the process ended before, or the time was up; with the tail of the log.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            if not self.is_running:
                ended = f"ended with code {_exit_code(self._child)}" if self._child else "is not running"
                raise StartFailed(f"{self.name} {ended} before it was {what}; {self._log_tail()}")
            if await ready():
                return
            if time.monotonic() > deadline_s:
                raise StartFailed(f"{self.name} was not {what} in {timeout_s:g} s; {self._log_tail()}")
            await asyncio.sleep(POLL_S)

    async def stop(self, *, grace_s: float = 10.0, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Terminate it, kill it after `grace_s` seconds, and return when nothing that it started is left.

        Stopping what does not run is fine.
        """
        child = self._child
        if child is None:
            return
        # Looked up before: once the leader is gone, nothing links them to it.
        outside = descendants_outside_group(child.pid)
        if self.is_running:
            self.resume()  # a stopped process would sleep through the signal
            os.kill(child.pid, with_signal)
            await _until(lambda: _exit_code(child) is not None, grace_s)
        await self._kill(child, outside)

    async def kill(self) -> None:
        """Kill it and every process that it started, and return when they are gone."""
        if self._child is not None:
            await self._kill(self._child, descendants_outside_group(self._child.pid))

    def pause(self) -> None:
        """Pause it and every process that it started, as a hung machine would."""
        # The leader first, so that it starts no more of them while they are being stopped.
        _signal(self.pid, signal.SIGSTOP)
        outside = descendants_outside_group(self.pid)
        # They outlive a killed leader while they are stopped.
        self._tell_guard(outside)
        _signal_group(self.pid, signal.SIGSTOP)
        for entry in outside:
            _signal(entry.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused process."""
        for entry in descendants_outside_group(self.pid):
            _signal(entry.pid, signal.SIGCONT)
        _signal_group(self.pid, signal.SIGCONT)
        self._tell_guard(())

    async def _kill(self, child: subprocess.Popen[bytes], outside: Sequence[Entry]) -> None:
        _kill_all(child.pid, outside)

        def all_gone() -> bool:
            return (
                _exit_code(child) is not None and not group_is_alive(child.pid) and not still_alive(outside)
            )

        if not await _until(all_gone, KILL_TIMEOUT_S):
            raise CommandFailed(
                f"{self.name} (process {child.pid}) is still there {KILL_TIMEOUT_S:g} s after SIGKILL"
            )
        self._dismiss_guard()
        child.wait()  # it has ended: this only reaps it
        self._child = None

    def _tell_guard(self, outside: Iterable[Entry]) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            line = " ".join(str(entry.pid) for entry in outside)
            with contextlib.suppress(BrokenPipeError):
                os.write(self._guard.stdin.fileno(), f"{line}\n".encode())

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        # Killed before its pipe is closed, because it takes the end of the pipe for our death.
        guard.kill()
        guard.wait(KILL_TIMEOUT_S)
        if guard.stdin is not None:
            guard.stdin.close()

    def _log_tail(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
            lines = log.read().decode("utf-8", "replace").splitlines()
        return "\n".join([f"its log {self.log} ends:", *lines[-LOG_TAIL_LINES:]])


async def _until(holds: Callable[[], bool], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    stdin: str = "",
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
    """Return the environment of a child: a search path and nothing of ours.

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


def _exit_code(child: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code, negative for a signal, or None while the process lives.

    The process is not reaped: its id, which is that of its group, is not given to another before we are done.
    """
    if sys.platform != "linux" or child.returncode is not None:
        return child.poll()
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group: int, number: signal.Signals) -> None:
    # PermissionError: what macOS says of a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_all(group: int, outside: Iterable[Entry]) -> None:
    _signal_group(group, signal.SIGKILL)
    for entry in still_alive(outside):
        _signal(entry.pid, signal.SIGKILL)
