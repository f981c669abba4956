"""The development stack: a broker, a vault, provider sandboxes and a worker, started and stopped together."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from connectors.registry import load
from connectors.sandbox import Sandbox, make_sandboxes
from worker.dev.openbao import PrivateOpenBao
from worker.dev.ports import LOOPBACK, free_ports
from worker.dev.process import ChildProcess, base_environment
from worker.dev.rabbitmq import PrivateRabbitMQ
from worker.dev.running import write_running
from worker.settings import PREFIX, Settings, load_settings

#: Seconds to wait until the worker is ready; it takes one or two.
READY_TIMEOUT_S = 60.0


class Stack:
    """A private RabbitMQ, OpenBao and provider sandboxes unless a URL is given, and a worker on them.

    The worker logs in to the vault with an AppRole that may read credentials and nothing else. Without
    a private vault there are no sandboxes, because their credentials could not be stored.

    Args:
        worker_module: the module that is run as the worker.
    """

    def __init__(self, settings: Settings, *, keep_data: bool = False, worker_module: str = "worker") -> None:
        self.settings = settings
        self.sandboxes: tuple[Sandbox, ...] = ()
        self._worker_command = [sys.executable, "-m", worker_module, "worker"]
        self.rabbitmq_url = ""
        self.vault: PrivateOpenBao | None = None
        self.worker: ChildProcess | None = None
        self.metrics_url = ""
        self.connectors = tuple(load().connectors)
        self._keep_data = keep_data
        self._exit = AsyncExitStack()
        self._directory = (
            settings.directory / "dev" if keep_data else Path(tempfile.mkdtemp(prefix="connectors-"))
        )
        self._guard = None if keep_data else _guard_of(self._directory)

    async def __aenter__(self) -> Self:
        """Start every part that has no URL.

        Raises:
            InfrastructureError: a part is missing or does not start; says what to do.
        """
        try:
            await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()
        if not self._keep_data:
            shutil.rmtree(self._directory, ignore_errors=True)
        if self._guard is not None:
            await asyncio.to_thread(self._guard.communicate, b"\n")

    @property
    def log(self) -> Path:
        """The worker's log file."""
        return self._directory / "worker.log"

    @property
    def _inside(self) -> list[str]:
        """What providers may be inside of: the sandboxes are on this machine."""
        return ["localhost", *self.settings.egress_allow]

    def settings_for_others(self, vault: PrivateOpenBao) -> dict[str, str]:
        """Return the settings for commands in another terminal, with an operator's token for the vault."""
        given = self.settings.database_url
        there = {
            "rabbitmq_url": self.rabbitmq_url,
            "vault_url": vault.url,
            "vault_auth": "token",
            "vault_token": vault.root_token,
            "database_url": given.get_secret_value()
            if given
            else f"sqlite:///{self._directory / 'ledger.db'}",
            "egress_allow": ",".join(self._inside),
        }
        for sandbox in self.sandboxes:
            there |= {name.lower(): value for name, value in sandbox.settings.items()}
        return there

    async def start_worker(self) -> None:
        """Start the worker and wait until it is ready."""
        assert self.worker is not None
        self.worker.start()
        async with httpx.AsyncClient(trust_env=False) as client:

            async def ready() -> bool:
                try:
                    return (await client.get(f"{self.metrics_url}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await self.worker.wait_until(ready, timeout_s=READY_TIMEOUT_S)

    async def start_sandboxes(self) -> None:
        """Start the sandboxes whose URL no setting gives, and put their credentials in the vault."""
        if self.vault is None:
            return
        self.sandboxes = tuple(
            sandbox
            for sandbox in make_sandboxes()
            if not any(self.settings.is_set(name.lower()) for name in sandbox.settings)
        )
        for sandbox in self.sandboxes:
            self._exit.push_async_callback(sandbox.stop)
            await sandbox.start()
            await self.vault.put_secret(
                f"connectors/default/{sandbox.connector}/default", sandbox.credential()
            )

    async def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.gather(self._start_rabbitmq(), self._start_vault())
        await self.start_sandboxes()
        port = free_ports(1)[0]
        self.metrics_url = f"http://{LOOPBACK}:{port}"
        self.worker = ChildProcess(
            "worker",
            self._worker_command,
            env=await self._environment(port),
            cwd=self._directory,
            log=self.log,
        )
        self._exit.push_async_callback(self.worker.stop)
        await self.start_worker()

    async def _start_rabbitmq(self) -> None:
        if "rabbitmq_url" in self.settings.model_fields_set:
            self.rabbitmq_url = self.settings.rabbitmq_url.get_secret_value()
            return
        rabbitmq = PrivateRabbitMQ(self._directory / "rabbitmq")
        self._exit.push_async_callback(rabbitmq.stop)
        await rabbitmq.start()
        if not self._keep_data:
            # Its data is deleted afterwards: an orderly stop would take seconds for nothing.
            self._exit.push_async_callback(rabbitmq.kill)
        self.rabbitmq_url = rabbitmq.url

    async def _start_vault(self) -> None:
        if self.settings.vault_url is None:
            self.vault = PrivateOpenBao(self._directory / "openbao")
            self._exit.push_async_callback(self.vault.stop)
            await self.vault.start()

    async def _environment(self, port: int) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        ours = {
            "RABBITMQ_URL": self.rabbitmq_url,
            "ENABLED": ",".join(self.connectors),
            "METRICS_PORT": str(port),
            "DATA_DIR": str(self._directory),
            "EGRESS_ALLOW": ",".join(self._inside),
        }
        for sandbox in self.sandboxes:
            ours |= sandbox.settings
        if self.vault is not None:
            role = await self.vault.enable_approle()
            secret_id = self._directory / "secret-id"
            secret_id.unlink(missing_ok=True)
            secret_id.touch(mode=0o600)
            secret_id.write_text(role.secret_id.get_secret_value())
            ours |= {
                "VAULT_URL": self.vault.url,
                "VAULT_AUTH": "approle",
                "VAULT_ROLE_ID": role.role_id,
                "VAULT_SECRET_ID_FILE": str(secret_id),
            }
        return {**base_environment(), **given, **{f"{PREFIX}{name}": value for name, value in ours.items()}}


async def run_dev(*, keep_data: bool) -> int:
    """Run the stack until Ctrl-C, and return the exit code."""
    settings = load_settings()
    print("Starting RabbitMQ, OpenBao, provider sandboxes and a worker …", flush=True)
    async with Stack(settings, keep_data=keep_data) as stack:
        running_file = None
        if stack.vault is not None:
            running_file = write_running(settings.directory, stack.settings_for_others(stack.vault))
        sandboxes = "".join(f"\n  sandbox     {each.connector}: {each.url}" for each in stack.sandboxes)
        try:
            print(
                f"""
  connectors  {", ".join(stack.connectors)}
  RabbitMQ    {stack.rabbitmq_url}
  OpenBao     {stack.vault.url if stack.vault else settings.vault_url}{sandboxes}
  status      {stack.metrics_url}/
  log         {stack.log}

In another terminal:  connectors call dummy echo --param message=hello
Ctrl-C stops everything.""",
                flush=True,
            )
            return await until_interrupted(stack)
        finally:
            if running_file is not None:
                running_file.unlink(missing_ok=True)


async def until_interrupted(stack: Stack) -> int:
    """Wait for Ctrl-C or for the worker's end; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        if stack.worker is not None and not stack.worker.is_running:
            print(
                f"the worker ended by itself; its log ends: {stack.log.read_text()[-2000:]}", file=sys.stderr
            )
            return 1
        try:
            async with asyncio.timeout(0.5):
                await stop.wait()
        except TimeoutError:
            continue
    print("\nStopping …", flush=True)
    return 0


def _guard_of(directory: Path) -> "subprocess.Popen[bytes]":
    """Start a guard that removes the directory if this process is killed: it holds secrets of broker and vault.

    The guard waits at a pipe that closes with this process; a line on it means that nothing is to be done.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _ || { sleep 1; rm -rf "$1"; }', "guard of the data", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
