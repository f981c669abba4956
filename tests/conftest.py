"""What the tests stand on: a real broker and vault of the suite's own, a worker as a process."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from tests.support.given_broker import GivenRabbitMQ
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ

#: Where the worker finds the tests' own connector, by its entry point.
PLUGIN = Path(__file__).parent / "support" / "plugin"

StartWorker = Callable[..., Awaitable[WorkerProcess]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """The broker that the whole run shares; each test has a virtual host of its own."""
    if given := os.environ.get("CONNECTORS_TEST_RABBITMQ_URL"):
        yield cast(PrivateRabbitMQ, GivenRabbitMQ(given))
        return
    broker = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.stop())


@pytest.fixture
async def broker_url(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[str]:
    """A virtual host for this test alone."""
    name = f"test-{uuid4().hex[:12]}"
    yield await rabbitmq.add_vhost(name)
    await rabbitmq.delete_vhost(name)


@pytest.fixture
async def own_rabbitmq(tmp_path: Path) -> AsyncIterator[PrivateRabbitMQ]:
    """A broker for a test that kills it."""
    broker = PrivateRabbitMQ(tmp_path / "rabbitmq")
    await broker.start()
    yield broker
    await broker.stop()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgres]:
    """The database server that the whole run shares; each test has a database of its own."""
    server = PrivatePostgres(tmp_path_factory.mktemp("postgres"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def openbao(tmp_path: Path) -> AsyncIterator[PrivateOpenBao]:
    """A vault for this test alone; it is up in a fifth of a second."""
    vault = PrivateOpenBao(tmp_path / "openbao")
    await vault.start()
    yield vault
    await vault.stop()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers with the settings given; those still alive at the end are killed."""
    workers: list[WorkerProcess] = []

    async def start(url: str, *, ready: bool = True, failing: bool = False, **settings: str) -> WorkerProcess:
        environment = {
            "CONNECTORS_RABBITMQ_URL": url,
            "CONNECTORS_ENABLED": "dummy",
            "PYTHONPATH": str(PLUGIN),
            # Our settings come in lower case and bare; other variables as they are.
            **{
                f"CONNECTORS_{name.upper()}" if name.islower() else name: value
                for name, value in settings.items()
            },
        }
        environment.setdefault("CONNECTORS_DATABASE_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
        worker = WorkerProcess(environment, tmp_path / f"worker-{len(workers)}", failing=failing)
        workers.append(worker)
        worker.start()
        if ready:
            await worker.ready()
        return worker

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def connectors(broker_url: str, tmp_path: Path) -> Run:
    """Run `connectors …` on this test's broker."""

    def run(*args: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "CONNECTORS_RABBITMQ_URL": broker_url,
            "CONNECTORS_DATABASE_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
            "CONNECTORS_DATA_DIR": str(tmp_path),
            "CONNECTORS_EGRESS_ALLOW": "localhost",  # the providers of tests
            "PYTHONPATH": str(PLUGIN),
            **{f"CONNECTORS_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-m", "worker", *args]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, input=stdin, capture_output=True, text=True, check=False
        )

    return run
