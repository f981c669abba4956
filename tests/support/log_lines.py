"""The lines that the worker's logging writes, kept in memory."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
