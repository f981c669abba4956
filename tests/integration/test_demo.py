"""`make demo`: it shows what it claims."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


async def test_the_demo_shows_one_event_although_its_worker_is_killed(
    tmp_path: Path,
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200"}

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "worker", "demo"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    for fact in (
        "killed with -9",
        "succeeded after 2 attempts",
        "calendar  1 event: Check-up, Ada Lovelace",
        "1 succeeded, 9 CONFLICT",
        "Ada Lovelace, ada@lovelace.example",
        "org       1 lead: Hopper",
        "'updated_fields': ['Status']",
        "no dead letters are left",
    ):
        assert fact in done.stdout, done.stdout
    assert "Traceback" not in done.stderr
