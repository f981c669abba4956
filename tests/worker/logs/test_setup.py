"""What is sent to the log: loguru, standard logging, warnings, uncaught exceptions."""

import asyncio
import io
import logging
import sys
import threading
import warnings

import pytest
from loguru import logger

from tests.support.log_lines import logging_to_memory
from worker.logs.masking import Redactor
from worker.logs.setup import LogFormat, configure_logging, log_info


def test_levels_below_the_set_one_are_left_out() -> None:
    with logging_to_memory("WARNING") as log:
        logger.info("quiet")
        logger.warning("loud")

        assert ["loud"] == [line["event"] for line in log.lines]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_direct_line_is_the_one_that_loguru_makes(log_format: LogFormat) -> None:
    redactor = Redactor()
    redactor.register("hunter2hunter2")
    fields = {"job_id": "of hunter2hunter2", "api_key": "abc", "attempts": 1, "took": 0.5, "x": "y" * 9000}
    with logging_to_memory(log_format=log_format, redactor=redactor) as log:
        log.logs.info("job finished", **fields)
        log_info("job finished", **fields)

        direct, through_loguru = (line.split("job finished")[1] for line in log.text.splitlines())

    assert direct == through_loguru
    assert "hunter2" not in direct
    assert "abc" not in direct


def test_the_direct_line_heeds_the_level() -> None:
    with logging_to_memory("WARNING") as log:
        log.logs.info("quiet")

        assert [] == log.lines


def test_a_field_of_the_direct_line_changed_afterwards_is_logged_as_it_was() -> None:
    items = [1]
    with logging_to_memory() as log:
        log.logs.info("event", items=items)
        items.append(2)

        assert [1] == log.lines[0]["items"]


def test_a_wrong_level_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure_logging("LOUD", "json", stream=io.StringIO())


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
    ["httpx", "httpcore.http11", "pamqp.frame", "aio_pika.queue", "asyncio", "zeep.transports"],
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
