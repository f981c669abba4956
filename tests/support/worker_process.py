"""A worker as an operator runs it: a process of its own, watched from outside."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 30.0

#: The worker that dies at a named point.
FAILING = Path(__file__).with_name("failing_worker.py")


class WorkerProcess:
    """`python -m worker worker` with the settings given, and no others."""

    def __init__(
        self,
        environment: Mapping[str, str],
        directory: Path,
        *,
        failing: bool = False,
        python: str = sys.executable,
    ) -> None:
        self._command = [python, *([str(FAILING)] if failing else ["-m", "worker", "worker"])]
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory / "worker.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if _is_neutral(name)},
            "CONNECTORS_DATA_DIR": str(directory / "data"),
            "CONNECTORS_METRICS_PORT": "0",
            "CONNECTORS_EGRESS_ALLOW": "localhost",  # the providers of tests
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.metrics_url = ""

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until /readyz says so."""
        await self.until(lambda: self._found_metrics_url(), timeout_s, "its metrics URL in the log")
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get(f"{self.metrics_url}readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            deadline = time.monotonic() + timeout_s
            while not await is_ready():
                assert self.is_running, f"the worker ended:\n{self.log_tail()}"
                assert time.monotonic() < deadline, f"not ready in {timeout_s} s:\n{self.log_tail()}"
                await asyncio.sleep(0.05)

    async def get(self, path: str) -> httpx.Response:
        """Send a request to the monitoring port."""
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=5) as client:
            return await client.get(f"{self.metrics_url}{path.lstrip('/')}")

    async def until(self, holds: Any, timeout_s: float = 30.0, what: str = "it") -> None:
        """Wait for something to hold, looking often."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert self.is_running, f"the worker ended while waiting for {what}:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}:\n{self.log_tail()}"
            await asyncio.sleep(0.05)

    async def until_logged(self, event: str, timeout_s: float = 30.0, count: int = 1) -> None:
        """Wait for log lines with this event."""
        await self.until(lambda: len(self.logged(event)) >= count, timeout_s, f"the log line {event!r}")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines with this event."""
        return [line for line in self.log_lines() if line.get("event") == event]

    def log_lines(self) -> list[dict[str, Any]]:
        """What it logged so far."""
        lines = []
        for line in self.log_path.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in lines if isinstance(line, dict)]

    def log_tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        self.signal(signal.SIGKILL)
        self.wait_sync()

    async def wait(self, timeout_s: float = 40.0) -> int:
        """Wait for the end and give the exit code."""
        deadline = time.monotonic() + timeout_s
        assert self._process is not None
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still running after {timeout_s} s:\n{self.log_tail()}"
            await asyncio.sleep(0.02)
        return self._process.returncode

    def wait_sync(self) -> int:
        """Wait for the end, blocking."""
        assert self._process is not None
        return self._process.wait(timeout=40)

    def close(self) -> None:
        """Make an end of it, however it stands."""
        if self.is_running:
            self.signal(signal.SIGCONT)
            self.kill()

    def _found_metrics_url(self) -> bool:
        started = self.logged("worker starting")
        if started:
            self.metrics_url = started[-1]["metrics"]
        return bool(started)


def _is_neutral(name: str) -> bool:
    return not name.startswith(("CONNECTORS_", "RABBITMQ_", "VAULT_"))
