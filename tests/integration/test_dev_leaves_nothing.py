"""A launcher that is killed with -9 leaves no process, no port and no secret behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration


async def test_kill_9_of_connectors_dev_leaves_no_process_and_no_secrets(tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "TMPDIR": str(tmp_path),
    }
    with (tmp_path / "dev.log").open("wb") as log:
        launcher = subprocess.Popen(
            [sys.executable, "-m", "worker", "dev"], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while b"Ctrl-C" not in (tmp_path / "dev.log").read_bytes():
            assert launcher.poll() is None and time.monotonic() < deadline, (tmp_path / "dev.log").read_text()
            await asyncio.sleep(0.1)
        children = psutil.Process(launcher.pid).children(recursive=True)
        names = {child.name() for child in children}

        ask = {"range_start": "2030-03-11T09:00", "range_end": "2030-03-11T10:00", "duration_minutes": 60}
        called = subprocess.run(
            [sys.executable, "-m", "worker", "call", "google_calendar", "find_available_slots", "--json",
             "--params", json.dumps(ask)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        checked = [
            subprocess.run(
                [sys.executable, "-m", "worker", "credentials", "check", connector],
                env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
            )
            for connector in ("google_calendar", "salesforce")
        ]  # fmt: skip
    finally:
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, children, 15)
    deadline = time.monotonic() + 15
    while list(tmp_path.glob("connectors-*")):
        assert time.monotonic() < deadline, "the data directory stays"
        await asyncio.sleep(0.1)

    # On the sandboxes, with the credentials that `dev` has put into the vault.
    assert 1 == len(json.loads(called.stdout)["data"]["slots"]), called.stdout
    assert [0, 0] == [each.returncode for each in checked], [each.stderr for each in checked]
    assert all("the provider answers" in each.stdout for each in checked)
    assert {"beam.smp", "bao"} <= names
    assert [] == left
