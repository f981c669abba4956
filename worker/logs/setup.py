"""Logging: one line per change of state, written by a thread of its own, with secrets masked.

    logs = configure_logging("INFO", "json", redactor=redactor)
    log = logger.bind(job_id=job.id, tenant=job.tenant)  # `from loguru import logger`
    log.info("job retried", attempt=2, delay_s=8)
    # {"ts":"2026-11-01T10:00:00.123Z","level":"INFO","event":"job retried","job_id":…,"attempt":2,…}

The event is a fixed name, and what varies is a field: loguru takes the event for a format string, a value
never. A caller pays for the record and the queue; masking, JSON and the write happen in the writer.
"""

import atexit
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from loguru import logger

from worker.logs.line import MAX_KEPT, Line, frozen_field, json_text, plain_text
from worker.logs.masking import Redactor
from worker.logs.writer import LogWriter

if TYPE_CHECKING:
    from loguru import Record

LogFormat = Literal["json", "text"]

# They log URLs with keys in them, or message bodies, below WARNING.
_CHATTY = (
    "aio_pika",
    "aiormq",
    "pamqp",
    "aiohttp",
    "httpx",
    "httpcore",
    "urllib3",
    "requests",
    "hvac",
    "google",
    "google_auth_httplib2",
    "googleapiclient",
    "simple_salesforce",
    "zeep",  # SOAP envelopes, passwords in them
    "asyncpg",
    "asyncio",
)


class LogInfo(Protocol):
    """Logs one event of the level INFO; `Logs.info` is the fast one."""

    def __call__(self, event: str, **fields: object) -> None:
        """Log the event with its fields."""
        ...


def log_info(event: str, **fields: object) -> None:
    """Log one event through loguru, for a process whose logs are not known."""
    logger.bind(**fields).info(event)


def configure_logging(
    level: str,
    log_format: LogFormat,
    *,
    redactor: Redactor | None = None,
    stream: TextIO | None = None,
    max_lines: int = 10_000,
    on_dropped: Callable[[int], None] | None = None,
) -> "Logs":
    """Send loguru, standard-library logging, warnings and uncaught exceptions to one stream.

    Args:
        level: the name of loguru's lowest level to write, as `INFO`.
        redactor: masks secrets; a new one, without registered secrets, masks by name and shape alone.
        stream: standard output if None.
        max_lines: lines that may wait for a slow stream; beyond, lines are dropped and counted.
        on_dropped: called with each number of lost lines, from any thread.

    Raises:
        ValueError: no such level.
    """
    return Logs(
        level.upper(),
        log_format,
        redactor=redactor or Redactor(),
        stream=stream if stream is not None else sys.stdout,
        max_lines=max_lines,
        on_dropped=on_dropped,
    )


class Logs:
    """The logging of one process, from `configure_logging` until `stop`."""

    def __init__(
        self,
        level: str,
        log_format: LogFormat,
        *,
        redactor: Redactor,
        stream: TextIO,
        max_lines: int,
        on_dropped: Callable[[int], None] | None,
    ) -> None:
        threshold = logger.level(level).no
        self._takes_info = threshold <= logger.level("INFO").no
        to_text = json_text if log_format == "json" else plain_text(colour=_is_terminal(stream))
        self._writer = LogWriter(
            stream, lambda line: to_text(line, redactor), max_lines=max_lines, on_dropped=on_dropped
        )
        logger.remove()
        self._sink_id = logger.add(
            _ignore, level=threshold, filter=self._take, format="", backtrace=False, diagnose=False
        )
        self._standard = _StandardLogging(threshold)
        self._uncaught = _UncaughtExceptions()
        atexit.register(self.stop)

    @property
    def dropped_lines(self) -> int:
        """How many lines were lost so far."""
        return self._writer.dropped_lines

    def report_drops(self, on_dropped: Callable[[int], None]) -> None:
        """Call this with each number of lost lines, from any thread; at once with those lost before."""
        self._writer.report_drops(on_dropped)

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Wait until the lines logged before are written; False if the stream took too long."""
        return self._writer.flush(timeout_s)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Write the waiting lines, for this long at most, and undo what `configure_logging` set."""
        atexit.unregister(self.stop)
        self._uncaught.restore()
        self._standard.restore()
        try:
            logger.remove(self._sink_id)
        except ValueError:
            pass  # other code has removed every sink
        self._writer.stop(timeout_s)

    def info(self, event: str, **fields: object) -> None:
        """Log one event without loguru, whose record costs 25 µs: for the line that every job writes."""
        if self._takes_info:
            frozen = {name: frozen_field(value) for name, value in fields.items()}
            self._writer.put(Line(datetime.now(UTC), "INFO", event, frozen))

    def _take(self, record: "Record") -> bool:
        # The filter takes the record, and no sink ever sees it: loguru's work between the two (copy, format,
        # lock) costs 11 µs a line, and its lock refuses a line logged from a signal handler or a finaliser
        # that interrupts another.
        fields = record["extra"]
        for name, value in fields.items():
            fields[name] = frozen_field(value)
        error = record["exception"]
        stack = None
        if error is not None and error.type is not None and error.value is not None:
            stack = _stack(error.type, error.value, error.traceback)
        event = record["message"][:MAX_KEPT]
        self._writer.put(Line(record["time"], record["level"].name, event, fields, stack))
        return False


class _StandardLogging(logging.Handler):
    """Hands the standard library's log records and warnings on to loguru."""

    def __init__(self, threshold: int) -> None:
        super().__init__()
        root = logging.getLogger()
        self._root_before = (root.level, root.handlers[:])
        self._levels_before = {name: logging.getLogger(name).level for name in _CHATTY}
        root.handlers[:] = [self]
        root.setLevel(threshold)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(max(logging.getLogger(name).level, logging.WARNING, threshold))
        logging.captureWarnings(True)

    def restore(self) -> None:
        """Restore the standard library's logging."""
        logging.captureWarnings(False)
        root = logging.getLogger()
        root.setLevel(self._root_before[0])
        root.handlers[:] = self._root_before[1]
        for name, level in self._levels_before.items():
            logging.getLogger(name).setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno
        try:
            event = record.getMessage()
        except Exception:  # a library's wrong format string is no reason to lose the line
            event = str(record.msg)
        error = record.exc_info if record.exc_info and record.exc_info[0] else None
        # Nothing is passed by keyword: loguru would take the library's text for a format string.
        logger.bind(**_fields_of(record)).opt(exception=error).log(level, event)


class _UncaughtExceptions:
    """Logs uncaught exceptions of any thread, which would go to standard error unmasked."""

    def __init__(self) -> None:
        self._before = (sys.excepthook, threading.excepthook, sys.unraisablehook)
        sys.excepthook = self._in_main
        threading.excepthook = self._in_thread
        sys.unraisablehook = self._unraisable

    def restore(self) -> None:
        """Restore the hooks."""
        sys.excepthook, threading.excepthook, sys.unraisablehook = self._before

    def _in_main(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._before[0](kind, error, trace)
        else:
            logger.opt(exception=(kind, error, trace)).critical("uncaught exception")

    def _in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            error = (args.exc_type, args.exc_value, args.exc_traceback)
            name = args.thread.name if args.thread else None
            logger.opt(exception=error).critical("uncaught exception in a thread", thread=name)

    def _unraisable(self, args: "sys.UnraisableHookArgs") -> None:
        if args.exc_value is not None:
            error = (args.exc_type, args.exc_value, args.exc_traceback)
            logger.opt(exception=error).error("unraisable exception")


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what a connector or the core logged beside the event; other libraries have no such fields."""
    fields = getattr(record, "fields", None)
    if record.name.partition(".")[0] == "connectors" and isinstance(fields, dict):
        return fields
    return {"logger": record.name}


def _stack(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> traceback.TracebackException:
    # Taken here and not in the writer: a queued traceback would keep every frame's locals alive, job
    # bodies among them. Source lines are read in the writer, values of locals never.
    return traceback.TracebackException(kind, error, trace, limit=-40, lookup_lines=False, compact=True)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def _ignore(message: str) -> None:
    """Do nothing: the filter has taken the record already."""
