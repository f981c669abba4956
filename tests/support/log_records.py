"""What was logged, as records."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loguru import logger


@contextmanager
def logged() -> Iterator[list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []

    def keep(message: Any) -> None:
        records.append({"event": message.record["message"], **message.record["extra"]})

    sink = logger.add(keep, format="{message}")
    try:
        yield records
    finally:
        logger.remove(sink)
