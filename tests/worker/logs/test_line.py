"""One log line: JSON or text, bounded, masked, and never taken for another one."""

import logging
import time
from datetime import datetime, timedelta
from enum import StrEnum

import pytest
from loguru import logger
from pydantic import BaseModel, SecretStr

from tests.support.log_lines import logging_to_memory
from worker.logs.masking import Redactor
from worker.logs.setup import LogFormat


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
    assert "test_line.py" in line["stack"]


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
