"""A worker whose secrets lie in the encrypted table, and what an operator does to it."""

import asyncio
import base64
import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run, StartWorker
from tests.integration.conftest import CANARY
from tests.support.http_servers import Served
from tests.support.rpc import ExternalClient, job
from worker.credentials.sealing import new_key

pytestmark = pytest.mark.integration


class Store:
    """The keyring and the database of one test."""

    def __init__(self, folder: Path) -> None:
        self.keyring = folder / "keyring"
        self.settings = {
            "credentials": "database",
            "keyring_file": str(self.keyring),
            "database_url": f"sqlite:///{folder / 'shared.db'}",
            "egress_allow": "localhost",
        }
        self.database = folder / "shared.db"

    def write_keys(self, *ids: str) -> None:
        """Put new keys before those that are there."""
        before = self.keyring.read_text() if self.keyring.exists() else ""
        new = "".join(f"{each} {base64.b64encode(new_key()).decode()}\n" for each in ids)
        self.keyring.write_text(new + before)
        self.keyring.chmod(0o600)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.write_keys("k1")
    return store


def _call(url: str, tenant: str = "default") -> dict[str, Any]:
    with ExternalClient(url) as client:
        return client.call(job("http", "request", {"method": "GET", "path": "/x"}, tenant=tenant))


async def _run(
    connectors: Run, store: Store, *args: str, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(lambda: connectors(*args, stdin=stdin, **store.settings))


async def test_a_job_runs_with_a_secret_that_was_put_into_the_table(
    broker_url: str, start_worker: StartWorker, connectors: Run, store: Store, shop: Served
) -> None:
    document = json.dumps({"base_url": shop.url, "auth": "bearer", "token": CANARY})
    run = partial(_run, connectors, store)
    put = await run("credentials", "put", "http", "-", stdin=document)
    worker = await start_worker(broker_url, enabled="dummy,http", **store.settings)

    good = await asyncio.to_thread(_call, broker_url)
    absent = await asyncio.to_thread(_call, broker_url, "nobody")
    listed = await run("credentials", "list", "--json")
    deleted = await run("credentials", "delete", "http")

    assert (0, "stored default/http/default (version 1)") == (put.returncode, put.stdout.strip())
    assert {"known": True} == good["data"]["body"]
    assert "CREDENTIAL_NOT_FOUND" == absent["error"]["code"]
    assert [{"tenant": "default", "connector": "http", "credential": "default"}] == json.loads(listed.stdout)
    assert (0, 0o600) == (deleted.returncode, store.database.stat().st_mode & 0o777)
    said = [worker.log_path.read_text(), put.stdout, put.stderr, listed.stdout, str(good), str(absent)]
    assert CANARY not in "".join(said)
    assert CANARY.encode() not in store.database.read_bytes()


async def test_keys_are_rotated_while_a_worker_runs_and_the_old_one_may_go(
    broker_url: str, start_worker: StartWorker, connectors: Run, store: Store, shop: Served
) -> None:
    document = json.dumps({"base_url": shop.url, "auth": "bearer", "token": CANARY})
    run = partial(_run, connectors, store)
    await run("credentials", "put", "http", "-", stdin=document)
    worker = await start_worker(broker_url, enabled="dummy,http", **store.settings)
    store.write_keys("k2")

    rotated = await run("credentials", "rotate-key")
    before = await asyncio.to_thread(_call, broker_url)
    store.keyring.write_text(store.keyring.read_text().splitlines()[0] + "\n")
    worker.kill()
    await start_worker(broker_url, enabled="dummy,http", **store.settings)
    after = await asyncio.to_thread(_call, broker_url)

    assert 0 == rotated.returncode, rotated.stderr
    assert "1 keys are now under 'k2'" in rotated.stdout
    assert "'k1'" in rotated.stdout.splitlines()[-1]
    assert {"known": True} == before["data"]["body"] == after["data"]["body"]


async def test_a_keyring_that_does_not_fit_ends_the_start_with_78(
    broker_url: str, start_worker: StartWorker, connectors: Run, store: Store
) -> None:
    document = json.dumps({"base_url": "https://a.example"})
    await _run(connectors, store, "credentials", "put", "http", "-", stdin=document)
    store.keyring.unlink()
    store.write_keys("k1")

    worker = await start_worker(broker_url, ready=False, **store.settings)

    assert 78 == await worker.wait()
    assert "'k1'" in worker.log_tail(1)
