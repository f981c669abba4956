"""The writer's thread: a stuck, closed or full stream blocks no caller, and drops are counted."""

import io
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import pytest
from loguru import logger

from worker.logs.setup import configure_logging


def run_script(script: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], **options)


def test_a_stuck_stream_blocks_no_caller_and_drops_are_reported() -> None:
    read_fd, write_fd = os.pipe()
    dropped: list[int] = []
    stream = os.fdopen(write_fd, "w")
    logs = configure_logging("INFO", "json", stream=stream, max_lines=200, on_dropped=dropped.append)
    read: list[bytes] = []

    def read_all() -> None:
        while chunk := os.read(read_fd, 65536):
            read.append(chunk)

    try:
        longest_s = 0.0
        for number in range(5000):
            begin = time.perf_counter()
            logger.info("event", number=number, filling="x" * 100)
            longest_s = max(longest_s, time.perf_counter() - begin)
        lost = sum(dropped)
        reader = threading.Thread(target=read_all)
        reader.start()
        assert logs.flush(10)
        logger.info("flowing again")
    finally:
        logs.stop()
        stream.close()
    reader.join(10)
    os.close(read_fd)

    lines = [json.loads(line) for line in b"".join(read).splitlines()]
    assert longest_s < 0.5
    assert lost > 3000
    assert logs.dropped_lines == sum(dropped)
    assert sum(line["dropped"] for line in lines if line["event"] == "log lines dropped") == sum(dropped)
    assert sum(line["event"] == "event" for line in lines) + sum(dropped) == 5000
    assert lines[-1]["event"] == "flowing again"


def test_a_closed_pipe_does_not_stop_the_process() -> None:
    process = run_script(
        """
        import os, sys
        from loguru import logger
        from worker.logs.setup import configure_logging

        lost = []
        logs = configure_logging("INFO", "json", on_dropped=lost.append)
        logger.info("first")
        logs.flush()
        sys.stdin.readline()
        for number in range(1000):
            logger.info("event", number=number)
        logs.flush()
        sys.stderr.write(f"alive {sum(lost)}")
        """,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stderr is not None
    assert b"first" in process.stdout.readline()
    process.stdout.close()

    process.stdin.write(b"\n")
    process.stdin.close()
    said = process.stderr.read()
    process.stderr.close()

    assert said == b"alive 1000"
    assert process.wait(20) == 0


@pytest.mark.integration  # two seconds by its nature
def test_a_process_whose_log_is_stuck_ends_all_the_same() -> None:
    process = run_script(
        """
        from loguru import logger
        from worker.logs.setup import configure_logging

        configure_logging("INFO", "json")
        for number in range(3000):
            logger.info("event", number=number, filling="x" * 200)
        """,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    begin = time.monotonic()
    code = process.wait(30)  # nobody reads its output meanwhile
    took_s = time.monotonic() - begin

    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (code, said) == (0, b"")
    assert took_s < 15


def test_what_waits_is_written_at_exit() -> None:
    process = run_script(
        """
        from loguru import logger
        from worker.logs.setup import configure_logging

        configure_logging("INFO", "json")
        for number in range(500):
            logger.info("event", number=number)
        raise LookupError("password=hunter2 at the end")
        """,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )

    out, err = process.communicate(timeout=20)

    lines = [json.loads(line) for line in out.splitlines()]
    assert [*range(500)] == [line["number"] for line in lines[:-1]]
    assert lines[-1]["event"] == "uncaught exception"
    assert lines[-1]["exception"] == "LookupError: password=*** at the end"
    assert err == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk_counts_as_dropped() -> None:
    dropped: list[int] = []
    with open("/dev/full", "w") as full:
        logs = configure_logging("INFO", "json", stream=full, on_dropped=dropped.append)
        for _ in range(10):
            logger.info("event")
        logs.stop()

    assert sum(dropped) == 10


def test_drops_before_anybody_counted_are_reported_too() -> None:
    before: list[int] = []
    after: list[int] = []
    stream = io.StringIO()
    stream.close()
    logs = configure_logging("INFO", "json", stream=stream, on_dropped=before.append)
    logger.info("event")
    logs.flush(5)

    logs.report_drops(after.append)
    logger.info("event")
    logs.stop()

    assert (before, after) == ([1], [1, 1])


def test_a_stream_made_non_blocking_loses_nothing() -> None:
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    stream = os.fdopen(write_fd, "w")
    logs = configure_logging("INFO", "json", stream=stream)
    for number in range(3000):
        logger.info("event", number=number, filling="x" * 100)
    chunks: list[bytes] = []

    def read_all() -> None:
        while chunk := os.read(read_fd, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=read_all)
    reader.start()
    logs.stop(10)
    stream.close()
    reader.join(10)
    os.close(read_fd)

    lines = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert [*range(3000)] == [line["number"] for line in lines]
