"""What hangs, blocks or dies in a connector's process is ended there, answered truthfully, and replaced."""

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import pytest

from connectors.sdk.isolation.plan import Plan
from connectors.sdk.isolation.processes import MOST_PROCESSES
from schemas.error import Code
from tests.connectors.sdk.isolation.conftest import Bench


async def until_begun(mark: Path) -> None:
    """Wait until a call has left its mark."""
    async with asyncio.timeout(10):
        while not mark.exists():
            await asyncio.sleep(0.01)


def is_alive(pid: str | int) -> bool:
    """Return whether a process runs; a zombie has been killed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_hung_write_is_unknown_in_time_and_its_process_killed(bench: Bench, tmp_path: Path) -> None:
    pid = (await bench.run("look")).data["pid"]
    began = time.monotonic()
    outcome = await bench.run("hang_write", mark=str(tmp_path / "mark"))
    took_s = time.monotonic() - began

    assert outcome.error is not None
    assert Code.OUTCOME_UNKNOWN == outcome.error.code
    assert took_s < 4
    assert not is_alive(pid)
    assert "begun" == (tmp_path / "mark").read_text()
    assert 3 == (await bench.run("add", a=1, b=2)).data


async def test_a_hung_read_is_answered_and_the_next_call_runs(bench: Bench) -> None:
    outcome = await bench.run("hang_read")

    assert outcome.error is not None
    assert Code.TIMEOUT == outcome.error.code
    assert 3 == (await bench.run("add", a=1, b=2)).data


async def test_a_call_that_ignores_cancellation_is_killed(bench: Bench) -> None:
    outcome = await bench.run("ignore")
    assert outcome.ack_after is not None
    await outcome.ack_after

    assert not bench.executor.hung.by_action
    assert 3 == (await bench.run("add", a=1, b=2)).data


async def test_calls_beside_one_that_hangs_a_thread_go_on(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    innocent = asyncio.create_task(bench.run("wait_write", mark=str(mark), seconds=4))
    await until_begun(mark)
    await bench.run("hang_read")

    assert "done" == (await innocent).data


async def test_a_blocked_loop_is_named_with_its_stack(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.run("look")
    outcome = await bench.run("block")
    assert outcome.ack_after is not None
    with caplog.at_level(logging.ERROR):
        await outcome.ack_after

    assert outcome.error is not None
    assert Code.TIMEOUT == outcome.error.code
    line = next(each for each in caplog.records if "blocked" in each.message)
    assert "isolated.block of job" in line.fields["task"]  # type: ignore[attr-defined]
    assert "time.sleep(30)" in line.fields["stack"]  # type: ignore[attr-defined]


async def test_innocent_calls_in_a_blocked_process_are_answered_by_their_effect(
    bench: Bench, tmp_path: Path
) -> None:
    innocent = [
        asyncio.create_task(bench.run(f"wait_{effect}", _tenant=effect, mark=str(tmp_path / effect)))
        for effect in ("write", "read")
    ]
    for effect in ("write", "read"):
        await until_begun(tmp_path / effect)
    began = time.monotonic()
    await bench.run("block")
    write, read = await asyncio.gather(*innocent)

    assert write.error is not None and read.error is not None
    assert (Code.OUTCOME_UNKNOWN, Code.UNAVAILABLE) == (write.error.code, read.error.code)
    assert read.error.code.facts.retryable
    assert time.monotonic() - began < 8


async def test_calls_after_a_block_was_noticed_go_to_another_process(bench: Bench, tmp_path: Path) -> None:
    blocked = asyncio.create_task(bench.run("block_long", mark=str(tmp_path / "mark")))
    await until_begun(tmp_path / "mark")
    (process,) = bench.processes._of["isolated"].processes
    async with asyncio.timeout(5):
        while process.is_usable:
            await asyncio.sleep(0.01)

    assert 3 == (await bench.run("add", a=1, b=2)).data
    assert not blocked.done()
    blocked.cancel()


async def test_a_crash_leaves_a_write_unknown(bench: Bench) -> None:
    outcome = await bench.run("crash")

    assert outcome.error is not None
    assert Code.OUTCOME_UNKNOWN == outcome.error.code
    assert "SIGSEGV" in outcome.error.message
    assert 3 == (await bench.run("add", a=1, b=2)).data
    assert ["isolated"] == bench.ends


async def test_a_call_that_had_not_started_is_not_started(bench: Bench) -> None:
    await bench.run("look")
    (pid,) = bench.processes.pids("isolated")
    os.kill(pid, signal.SIGSTOP)
    running = asyncio.create_task(bench.run("wait_write", mark="/nowhere"))
    while not bench.executor.running:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    outcome = await running

    assert outcome.error is not None
    assert (Code.UNAVAILABLE, False) == (outcome.error.code, outcome.is_uncertain)


async def test_a_call_whose_process_starts_too_slowly_is_not_started(bench: Bench) -> None:
    connector = bench.processes._of["isolated"]
    connector.starting = asyncio.create_task(asyncio.sleep(600))
    outcome = await bench.run("hang_write", mark="/nowhere")

    assert outcome.error is not None
    assert (Code.TIMEOUT, False) == (outcome.error.code, outcome.is_uncertain)
    assert not connector.starting.done()


async def test_a_stopped_process_is_replaced(bench: Bench) -> None:
    await bench.run("look")
    (pid,) = bench.processes.pids("isolated")
    os.kill(pid, signal.SIGSTOP)
    outcome = await bench.run("hang_read")
    assert outcome.ack_after is not None
    await outcome.ack_after

    assert 3 == (await bench.run("add", a=1, b=2)).data
    assert not is_alive(pid)


async def test_an_invalid_frame_from_the_process_ends_it_alone(bench: Bench) -> None:
    await bench.run("look")
    outcome = await bench.run("scream")

    assert outcome.error is not None
    assert Code.UNAVAILABLE == outcome.error.code
    assert 3 == (await bench.run("add", a=1, b=2)).data


async def test_threads_that_hang_are_cured_by_killing(bench: Bench) -> None:
    outcomes = await asyncio.gather(*(bench.run("hang_read") for _ in range(32)))
    for outcome in outcomes:
        assert outcome.error is not None
        assert Code.TIMEOUT == outcome.error.code
        if outcome.ack_after is not None:
            await outcome.ack_after

    assert 3 == (await bench.run("add", a=1, b=2)).data
    assert bench.executor.hung.fault is None
    assert len(bench.processes.pids("isolated")) <= MOST_PROCESSES


async def test_no_process_is_left_when_the_worker_closes(bench: Bench, tmp_path: Path) -> None:
    running = asyncio.create_task(bench.run("wait_read", mark=str(tmp_path / "mark")))
    await until_begun(tmp_path / "mark")
    pids = bench.processes.pids("isolated")
    await bench.processes.close()
    await running

    assert pids
    assert not [pid for pid in pids if is_alive(pid)]


async def test_a_connector_that_does_not_load_is_unavailable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = bench.processes._of["isolated"]
    monkeypatch.setattr(
        connector,
        "plan",
        Plan(**{**connector.plan.as_json(), "reference": "no.such:module"}),
    )
    first, second = await bench.run("add", a=1, b=2), await bench.run("add", a=1, b=2)

    assert first.error is not None and second.error is not None
    assert "cannot load no.such:module: ModuleNotFoundError" in first.error.message
    assert (Code.UNAVAILABLE, False) == (first.error.code, first.is_uncertain)
    assert second.error.retry_after_s is not None


async def test_the_kernel_ends_the_process_with_its_worker(bench: Bench) -> None:
    assert signal.SIGKILL == (await bench.run("dies_with_its_worker")).data
