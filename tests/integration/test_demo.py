"""`make demo`: the story it tells is true."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration


async def test_the_demo_shows_one_event_and_one_answer_for_a_worker_killed_in_the_middle(
    tmp_path: Path,
) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "200"}

    told = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "worker", "demo"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert 0 == told.returncode, told.stdout + told.stderr
    for fact in (
        "killed with -9",
        "succeeded after 2 tries",
        "calendar  1 event: Check-up, Ada Lovelace",
        "1 succeeded, 9 CONFLICT",
        "Ada Lovelace, ada@lovelace.example",
        "org       1 lead: Hopper",
        "'updated_fields': ['Status']",
        "no dead letters are left",
    ):
        assert fact in told.stdout, told.stdout
    assert "Traceback" not in told.stderr
