"""What a worker that runs nothing but `dummy` has loaded once it has run a job: no library that it does not use."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job

pytestmark = pytest.mark.integration

#: Each costs memory and start time; a worker that needs one imports it when it is built.
UNUSED = (
    "aiohttp",
    "aiosqlite",
    "asyncpg",
    "click",
    "google",
    "googleapiclient",
    "greenlet",
    "httpx",
    "hvac",
    "phonenumbers",
    "requests",
    "rich",
    "simple_salesforce",
    "sqlalchemy",
    "typer",
    "urllib3",
    "zeep",
)


async def test_a_worker_of_dummy_alone_loads_no_client_of_others(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    listing = tmp_path / "modules"
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, pathlib, sys\n"
        f"atexit.register(lambda: pathlib.Path({str(listing)!r}).write_text('\\n'.join(sys.modules)))\n"
    )
    worker = await start_worker(broker_url, enabled="dummy", PYTHONPATH=str(tmp_path))

    def ping() -> str:
        with ExternalClient(broker_url) as client:
            return str(client.call(job("dummy", "ping"))["status"])

    assert "succeeded" == await asyncio.to_thread(ping)
    worker.signal(signal.SIGTERM)
    assert 0 == await worker.wait()
    loaded = {name.partition(".")[0] for name in listing.read_text().splitlines()}
    assert "worker" in loaded
    assert set() == loaded & set(UNUSED)
    assert sys.modules.keys() >= {"httpx"}, "the names above are those of modules"
