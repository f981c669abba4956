import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import pytest
from loguru import logger
from pydantic import BaseModel, SecretStr

from worker.logs.masking import Redactor
from worker.logs.setup import LogFormat, Logs, configure_logging


class Log:
    """What was logged, while logging is configured."""

    def __init__(self, logs: Logs, stream: io.StringIO) -> None:
        self.logs = logs
        self._stream = stream

    @property
    def text(self) -> str:
        assert self.logs.flush(5)
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@contextmanager
def logging_to_memory(
    level: str = "INFO", log_format: LogFormat = "json", redactor: Redactor | None = None
) -> Iterator[Log]:
    stream = io.StringIO()
    logs = configure_logging(level, log_format, redactor=redactor, stream=stream)
    try:
        yield Log(logs, stream)
    finally:
        logs.stop()


def run_script(script: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], **options)


def test_a_line_is_one_json_object_with_time_level_and_event_first() -> None:
    with logging_to_memory() as log:
        logger.bind(job_id="j-1", tenant="acme").info("job retried", attempt=2, delay_s=8.5)

        (line,) = log.lines

    assert list(line) == ["ts", "level", "event", "job_id", "tenant", "attempt", "delay_s"]
    assert list(line.values())[1:] == ["INFO", "job retried", "j-1", "acme", 2, 8.5]
    assert line["ts"].endswith("Z")
    assert (
        abs(datetime.fromisoformat(line["ts"]).timestamp() - time.time())
        < timedelta(minutes=1).total_seconds()
    )


def test_levels_below_the_set_one_are_left_out() -> None:
    with logging_to_memory("WARNING") as log:
        logger.info("quiet")
        logger.warning("loud")

        assert ["loud"] == [line["event"] for line in log.lines]


def test_a_wrong_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("LOUD", "json", stream=io.StringIO())


@pytest.mark.parametrize("value", ["{0.__class__}", "{job_id}", "{", "%s", "${jndi:ldap://x}", "{{7*7}}"])
def test_values_are_never_taken_for_templates(value: str) -> None:
    with logging_to_memory() as log:
        logger.bind(job_id=value).info("job finished", outcome=value)
        logging.getLogger("lib").warning(value)

        ours, theirs = log.lines

    assert value == ours["job_id"] == ours["outcome"] == theirs["event"]


@pytest.mark.parametrize(
    "hostile",
    [
        'x\n{"ts":"2026-01-01T00:00:00.000Z","level":"INFO","event":"forged"}',
        "\r\nforged",
        "\x1b[2J\x1b[31mred",
        "user\u202egnp.exe",
        "a\u2028b\u0085c",
        "zero\u200bwidth",
        "nul\x00",
        "\ud800 lone",
        "\u009b31m",
    ],
)
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_value_passes_for_a_line_or_steers_a_terminal(hostile: str, log_format: LogFormat) -> None:
    with logging_to_memory(log_format=log_format) as log:
        logger.info("job finished", job_id=hostile)
        logging.getLogger("lib").warning(hostile)

        text = log.text

    assert len(text.splitlines()) == 2
    assert all(letter == "\n" or letter.isprintable() for letter in text)


def test_text_is_for_people() -> None:
    with logging_to_memory(log_format="text") as log:
        logger.info(
            "job retried", attempt=2, queue="connectors.jobs.http", reason='it said "no"', say="Şu an"
        )

        text = log.text

    assert text.split("Z ", 1)[1] == (
        'INFO     job retried attempt=2 queue=connectors.jobs.http reason="it said \\"no\\"" say="Şu an"\n'
    )


class Colour(StrEnum):
    RED = "red"


class Loud:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (float("nan"), "nan"),
        ({"a": float("inf")}, {"a": "inf"}),
        (Colour.RED, "red"),
        (b"a body", "<6 bytes>"),
        (("a", {"b": 1}), ["a", {"b": 1}]),
        (SecretStr("hunter2hunter2"), "**********"),
        (Loud(), "<Loud>"),
        (timedelta(seconds=5), "0:00:05"),
        ("x" * 5000, "x" * 4096 + "…"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_logged(value: object, kept: object) -> None:
    with logging_to_memory() as log:
        logger.info("event", value=value)

        assert kept == log.lines[0]["value"]


def test_endless_values_are_cut() -> None:
    loop: list[object] = []
    loop.append(loop)
    with logging_to_memory() as log:
        logger.info("event", loop=loop, many=list(range(10_000)))
        logging.getLogger("lib").warning("y" * 1_000_000)

        assert len(log.text) < 10_000


def test_a_field_cannot_take_the_place_of_the_event() -> None:
    with logging_to_memory() as log:
        logger.info("job finished", event="forged", ts="1970", level="DEBUG")

        (line,) = log.lines

    assert (line["event"], line["level"]) == ("job finished", "INFO")
    assert (line["event_"], line["ts_"], line["level_"]) == ("forged", "1970", "DEBUG")


def test_a_field_changed_after_the_call_is_logged_as_it_was() -> None:
    detail = {"tries": 1}
    with logging_to_memory() as log:
        logger.info("event", detail=detail)
        detail["tries"] = 2

        assert {"tries": 1} == log.lines[0]["detail"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_are_masked_wherever_they_stand(log_format: LogFormat) -> None:
    canary = "canary-0123456789"
    redactor = Redactor()
    redactor.register(canary)
    with logging_to_memory(log_format=log_format, redactor=redactor) as log:
        logger.info("event", reason=f"refused: {canary}", nested={"list": [canary], canary: 1})
        logger.info(f"event {canary}")
        logging.getLogger("lib").warning("GET /x?q=%s", canary)
        try:
            raise ValueError(f"cannot parse {canary}")
        except ValueError:
            logger.exception("failed")

        text = log.text

    assert "***" in text
    assert canary not in text


def test_fields_named_for_secrets_are_masked_unseen() -> None:
    with logging_to_memory() as log:
        logger.info("event", password="abc", nested={"client_secret": "x", "user": "u"}, api_key=["k"])

        (line,) = log.lines

    assert (line["password"], line["api_key"]) == ("***", "***")
    assert {"client_secret": "***", "user": "u"} == line["nested"]


def test_a_secret_at_the_cut_leaves_no_half() -> None:
    canary = "canary-0123456789-canary"
    redactor = Redactor()
    redactor.register(canary)
    with logging_to_memory(redactor=redactor) as log:
        for place in (1014, 4086, 8182):
            logger.info("event", reason="x" * place + canary)
            logging.getLogger("lib").warning("x" * place + canary)

        assert "canary" not in log.text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_exception_is_logged_without_locals(log_format: LogFormat) -> None:
    def fail(parameter: str) -> None:
        raise LookupError("nothing there")

    with logging_to_memory(log_format=log_format) as log:
        try:
            fail("a-local-value-of-a-tenant".upper())
        except LookupError:
            logger.exception("action failed", job_id="j-1")

        text = log.text

    assert "LookupError: nothing there" in text
    assert "raise LookupError" in text
    assert "A-LOCAL-VALUE" not in text


def test_an_exception_is_logged_with_type_and_stack() -> None:
    with logging_to_memory() as log:
        try:
            raise LookupError("nothing\nthere")
        except LookupError:
            logger.exception("action failed")

        (line,) = log.lines

    assert line["exception"] == "LookupError: nothing\nthere"
    assert "test_setup.py" in line["stack"]


def test_a_stack_in_text_is_indented_so_that_it_forges_no_line() -> None:
    with logging_to_memory(log_format="text") as log:
        try:
            raise LookupError("x\n2026-11-01T10:00:00.000Z INFO     forged")
        except LookupError:
            logger.exception("action failed")

        first, *rest = log.text.splitlines()

    assert "action failed" in first
    assert all(line.startswith("    ") for line in rest)


def test_what_pydantic_was_given_is_not_logged() -> None:
    class Params(BaseModel):
        age: int

    with logging_to_memory() as log:
        try:
            Params.model_validate({"age": "+905551112233"})
        except ValueError:
            logger.exception("action failed")

        assert "90555" not in log.text


def test_standard_logging_and_warnings_are_taken_in() -> None:
    with logging_to_memory() as log:
        logging.getLogger("some.library").warning("lost %d of %s", 3, "{4}")
        logging.getLogger("some.library").log(25, "odd level")
        logging.getLogger("some.library").warning("wrong %d format", "text")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old thing", DeprecationWarning, stacklevel=1)

        first, odd, wrong, warned = log.lines

    assert (first["level"], first["event"], first["logger"]) == ("WARNING", "lost 3 of {4}", "some.library")
    assert odd["event"] == "odd level"
    assert wrong["event"] == "wrong %d format"
    assert "old thing" in warned["event"]
    assert warned["logger"] == "py.warnings"


def test_an_exception_of_a_library_keeps_its_stack() -> None:
    with logging_to_memory() as log:
        try:
            raise LookupError("nothing there")
        except LookupError:
            logging.getLogger("lib").exception("failed")

        (line,) = log.lines

    assert line["exception"] == "LookupError: nothing there"


@pytest.mark.parametrize(
    "name",
    ["httpx", "httpcore.http11", "pamqp.frame", "aio_pika.queue", "asyncio", "aiosqlite", "zeep.transports"],
)
def test_libraries_that_log_urls_and_bodies_stay_quiet_even_at_debug(name: str) -> None:
    with logging_to_memory("DEBUG") as log:
        logging.getLogger(name).info("HTTP Request: GET https://example.com/?key=abc")
        logging.getLogger(name).debug("body")
        logging.getLogger(name).warning("trouble")

        assert ["trouble"] == [line["event"] for line in log.lines]


def test_an_uncaught_exception_in_a_thread_is_logged() -> None:
    def fail() -> None:
        raise LookupError("token=abcdef")

    with logging_to_memory() as log:
        thread = threading.Thread(target=fail, name="pool-1")
        thread.start()
        thread.join()

        (line,) = log.lines

    assert (line["level"], line["thread"]) == ("CRITICAL", "pool-1")
    assert line["exception"] == "LookupError: token=***"


async def test_a_failed_callback_on_the_loop_is_logged() -> None:
    with logging_to_memory() as log:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        (line,) = log.lines

    assert "ZeroDivisionError" in line["exception"]


def test_stopping_puts_everything_back() -> None:
    root = logging.getLogger()
    before = (
        root.level,
        root.handlers[:],
        sys.excepthook,
        threading.excepthook,
        logging.getLogger("httpx").level,
    )

    with logging_to_memory():
        pass

    after = (
        root.level,
        root.handlers[:],
        sys.excepthook,
        threading.excepthook,
        logging.getLogger("httpx").level,
    )
    assert before == after
    assert not [thread for thread in threading.enumerate() if thread.name == "log-writer"]


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
