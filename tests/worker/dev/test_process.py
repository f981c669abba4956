"""A child process: started, paused, stopped, and never left behind."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from worker.dev.errors import CommandFailed, StartFailed
from worker.dev.process import ChildProcess, base_environment, run

pytestmark = pytest.mark.integration

#: A program with a child in its own group and one in a session of its own, as PostgreSQL's backends are.
FAMILY = """
import os, subprocess, sys, time
inside = subprocess.Popen(["sleep", "1000"])
outside = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("family", os.getpid(), inside.pid, outside.pid, flush=True)
time.sleep(1000)
"""

#: A launcher of it: `main` starts it in the thread that the kernel's signal is bound to, `passing` in another,
#: where only the guard is left. `paused` pauses it before the launcher is killed.
LAUNCHER = """
import sys, threading, time
from pathlib import Path
from worker.dev.process import ChildProcess, base_environment
thread, state, log, family = sys.argv[1:]
child = ChildProcess("family", [sys.executable, "-c", family], env=base_environment(), cwd=Path("."), log=Path(log))
if thread == "main":
    child.start()
else:
    starter = threading.Thread(target=child.start)
    starter.start()
    starter.join()
while "family" not in Path(log).read_text():
    time.sleep(0.01)
if state == "paused":
    child.pause()
print("started", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    made: list[ChildProcess] = []

    def make(*command: str) -> ChildProcess:
        child = ChildProcess(
            "thing", command, env=base_environment(), cwd=tmp_path, log=tmp_path / "thing.log"
        )
        made.append(child)
        return child

    yield make
    for child in made:
        asyncio.run(child.kill())


@pytest.mark.parametrize("thread", ["main", "passing"])
@pytest.mark.parametrize("state", ["running", "paused"])
async def test_kill_9_of_the_launcher_leaves_no_process(tmp_path: Path, thread: str, state: str) -> None:
    # Those in other sessions end by themselves when their leader does, unless they are stopped.
    family = FAMILY if state == "paused" else FAMILY.replace(", start_new_session=True", "")
    log = tmp_path / "family.log"
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, thread, state, str(log), family], stdout=subprocess.PIPE, text=True
    )
    with launcher:
        assert launcher.stdout is not None
        assert "started\n" == launcher.stdout.readline()
        family_pids = [int(pid) for pid in log.read_text().split()[1:]]
        guards = [child.pid for child in psutil.Process(launcher.pid).children()]

        launcher.kill()

    await _until(lambda: not any(_lives(pid) for pid in {*family_pids, *guards}))


async def test_kill_takes_those_in_other_sessions_too(make: Callable[..., ChildProcess]) -> None:
    child = make(sys.executable, "-c", FAMILY)
    child.start()
    family = await _family(child)

    await child.kill()

    assert [] == [pid for pid in family if _lives(pid)]
    assert not child.is_running


async def test_a_paused_family_is_stopped(make: Callable[..., ChildProcess]) -> None:
    child = make(sys.executable, "-c", FAMILY)
    child.start()
    family = await _family(child)
    child.pause()
    await _until(lambda: {psutil.STATUS_STOPPED} == _states(family))

    await child.stop()

    assert [] == [pid for pid in family if _lives(pid)]


async def test_a_resumed_family_runs_on(make: Callable[..., ChildProcess]) -> None:
    child = make(sys.executable, "-c", FAMILY)
    child.start()
    family = await _family(child)
    child.pause()
    await _until(lambda: {psutil.STATUS_STOPPED} == _states(family))

    child.resume()

    await _until(lambda: psutil.STATUS_STOPPED not in _states(family))


async def test_what_ignores_sigterm_is_killed_after_the_grace(make: Callable[..., ChildProcess]) -> None:
    child = make("/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.01; done")
    child.start()
    await _until(lambda: "deaf" in child.log.read_text())
    pid = child.pid

    await child.stop(grace_s=0.1)

    assert not _lives(pid)


async def test_stop_gives_time_to_end_in_order(make: Callable[..., ChildProcess]) -> None:
    child = make("/bin/sh", "-c", "trap 'echo in order; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    child.start()
    await _until(lambda: "up" in child.log.read_text())

    await child.stop(grace_s=5)

    assert "up\nin order\n" == child.log.read_text()


def test_a_child_started_in_one_loop_is_stopped_in_another(make: Callable[..., ChildProcess]) -> None:
    child = make("sleep", "1000")

    async def start() -> int:
        child.start()
        return child.pid

    pid = asyncio.run(start())
    asyncio.run(child.stop())

    assert not _lives(pid)


async def test_the_same_child_starts_again(make: Callable[..., ChildProcess]) -> None:
    child = make("sleep", "1000")
    child.start()
    first = child.pid
    await child.kill()

    child.start()

    assert child.is_running
    assert first != child.pid


async def test_stopping_what_does_not_run_is_fine(make: Callable[..., ChildProcess]) -> None:
    child = make("sleep", "1000")

    await child.stop()
    await child.kill()

    assert not child.is_running


def test_a_program_that_is_not_there_is_named(make: Callable[..., ChildProcess]) -> None:
    with pytest.raises(StartFailed, match=r"thing cannot be started: .*no-such-program"):
        make("/no-such-program").start()


async def test_an_early_end_is_reported_with_the_end_of_the_log(make: Callable[..., ChildProcess]) -> None:
    child = make("/bin/sh", "-c", "echo the disk is full; exit 3")
    child.start()

    with pytest.raises(
        StartFailed, match=r"(?s)thing ended with code 3 before it was ready.*the disk is full"
    ):
        await child.wait_until(_never, timeout_s=10)


async def test_a_late_program_is_reported_with_the_end_of_its_log(
    make: Callable[..., ChildProcess],
) -> None:
    child = make("/bin/sh", "-c", "echo loading; exec sleep 1000")
    child.start()
    await _until(lambda: "loading" in child.log.read_text())

    with pytest.raises(StartFailed, match=r"(?s)thing was not ready in 0.05 s.*loading"):
        await child.wait_until(_never, timeout_s=0.05)


async def test_a_command_gives_its_output(tmp_path: Path) -> None:
    assert "in\n" == await run(["cat"], env=base_environment(), stdin="in\n", timeout_s=10)


async def test_a_failed_command_is_reported_with_its_last_lines() -> None:
    with pytest.raises(CommandFailed, match=r"sh ended with code 4\nno such node"):
        await run(["sh", "-c", "echo no such node >&2; exit 4"], env=base_environment(), timeout_s=10)


async def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"

    with pytest.raises(CommandFailed, match=r"sh did not end in 0.5 s"):
        await run(["sh", "-c", script], env=base_environment(), timeout_s=0.5)

    pid = int((tmp_path / "pid").read_text())
    await _until(lambda: not _lives(pid))


async def test_a_cancelled_command_is_killed(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    task = asyncio.create_task(run(["sh", "-c", script], env=base_environment(), timeout_s=60))
    await _until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    pid = int((tmp_path / "pid").read_text())

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not _lives(pid)


def test_nothing_of_the_developers_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RABBITMQ_NODENAME", "ERL_FLAGS", "VAULT_TOKEN", "PGHOST", "CONNECTORS_VAULT_SECRET_ID"):
        monkeypatch.setenv(name, "x")

    assert {"PATH", "LC_ALL"} <= base_environment().keys() <= {"PATH", "LC_ALL", "TMPDIR"}


async def _never() -> bool:
    return False


async def _family(child: ChildProcess) -> list[int]:
    await _until(lambda: child.log.read_text().endswith("\n"))
    return [int(pid) for pid in child.log.read_text().split()[1:]]


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def _states(pids: Sequence[int]) -> set[str]:
    return {psutil.Process(pid).status() for pid in pids}


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
