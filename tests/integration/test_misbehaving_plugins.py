"""A third party's connector harms its own queue alone, whatever it does."""

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PLUGIN, StartWorker
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

MISBEHAVING = PLUGIN.with_name("misbehaving")
#: More than the threads that one connector's synchronous actions have.
BLOCKED = 40


@pytest.fixture
async def worker(broker_url: str, start_worker: StartWorker) -> WorkerProcess:
    return await start_worker(
        broker_url,
        enabled="dummy,effects,misbehaving,raises_at_import,exits_at_import",
        PYTHONPATH=f"{PLUGIN}:{MISBEHAVING}",
    )


def soon() -> str:
    """A deadline that leaves one try its time, and no second one."""
    return (datetime.now(UTC) + timedelta(seconds=8)).isoformat()


def isolated_processes(parent: int) -> list[int]:
    """Return the processes of connectors that a worker has started."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in pids if b"isolation.child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_other_connectors_are_answered(worker: WorkerProcess, broker_url: str) -> None:
    def send_all() -> dict[str, Any]:
        with ExternalClient(broker_url) as client:
            replies = {"leave_from_thread": client.call(job("misbehaving", "leave_from_thread"))}
            for _ in range(BLOCKED):
                client.send(job("misbehaving", "block"), reply_to="")
            actions = "leave interrupt unencodable lie flood cycle leak ignore_cancellation"
            sent = {
                action: client.send(job("misbehaving", action, deadline=soon())) for action in actions.split()
            }
            sent["echo"] = client.send(job("dummy", "echo", {"message": "hi"}))
            sent["sync"] = client.send(job("dummy", "block", {"seconds": 0.01}))
            answers = client.wait(list(sent.values()), 40)
            return {**replies, **{action: answers[id_][0] for action, id_ in sent.items()}}

    replies = await asyncio.to_thread(send_all)

    codes = {action: (reply["error"] or {}).get("code") for action, reply in replies.items()}
    assert {
        "leave_from_thread": "CONNECTOR_ERROR",
        "leave": "CONNECTOR_ERROR",
        "interrupt": "CONNECTOR_ERROR",
        "unencodable": "CONNECTOR_ERROR",
        "lie": "CONNECTOR_ERROR",
        "cycle": "CONNECTOR_ERROR",
        "flood": "RESULT_TOO_LARGE",
        "leak": None,
        "ignore_cancellation": "DEADLINE_EXCEEDED",
        "echo": None,
        "sync": None,  # another connector's threads are its own
    } == codes
    assert worker.is_running


async def test_a_call_that_ignores_every_cancellation_keeps_no_worker_from_its_end(
    worker: WorkerProcess, broker_url: str
) -> None:
    def call() -> dict[str, Any]:
        with ExternalClient(broker_url) as client:
            return client.call(job("misbehaving", "never_end", deadline=soon()))

    answer = await asyncio.to_thread(call)
    await worker.until_logged("action ignores its cancellation")
    worker.signal(signal.SIGTERM)

    assert "DEADLINE_EXCEEDED" == answer["error"]["code"]
    assert 0 == await worker.wait(30)


async def test_a_killed_worker_leaves_no_process_of_a_connector(
    worker: WorkerProcess, broker_url: str
) -> None:
    def send() -> None:
        with ExternalClient(broker_url) as client:
            client.call(job("misbehaving", "leave_from_thread"))

    await asyncio.to_thread(send)
    children = isolated_processes(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)

    assert children
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            await asyncio.sleep(0.05)


async def test_those_that_do_not_load_are_named_and_the_others_run(
    worker: WorkerProcess, broker_url: str
) -> None:
    faults = " ".join(line["reason"] for line in worker.logged("connector not loaded"))

    assert "raises_at_import" in faults
    assert "ZeroDivisionError: no luck at import" in faults
    assert "'exits_at_import' of misbehaving-connectors 3.2 fails to import: SystemExit" in faults
    with ExternalClient(broker_url) as client:
        answer = client.call(job("raises_at_import", "anything"))
    assert "CONNECTOR_NOT_FOUND" == answer["error"]["code"]


async def test_the_metrics_show_the_running_version(worker: WorkerProcess) -> None:
    text = (await worker.get("metrics")).text

    assert (
        'connectors_connector_info{connector="misbehaving",distribution="misbehaving-connectors",version="3.2"} 1.0'
        in text
    )
    assert (
        'connectors_connector_info{connector="effects",distribution="effects-connector",version="1.0"}'
        in text
    )
