"""The thread that writes log lines, so that a slow, full or closed stream never holds up a job."""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from worker.logs.line import Line

# Lines rendered and written at a time: a millisecond of the interpreter, and then others may run.
_BATCH_LINES = 64
#: Seconds the writer pauses after a write, so that lines gather and need not wake it one by one.
_GATHER_S = 0.01


class LogWriter:
    """Take lines from any thread and write them to a stream in order.

    1. `put` queues a line, or counts it as dropped if `max_lines` wait already
    2. the writer's thread takes a batch, renders it and writes it with one call
    3. lines that the stream refuses (closed pipe, full disk) count as dropped; the next batch is tried again
    4. once the stream takes lines again, the first one reports how many were lost

    Its creator calls `stop`, which writes the waiting lines within the time it is given.

    Args:
        stream: written through its file descriptor if it has one. The stream's own buffer has a lock,
            and a thread stuck in it takes the interpreter down at exit.
        render: returns a line's text, without line break; runs in the writer's thread.
        on_dropped: called with each number of lost lines, from any thread.
    """

    def __init__(
        self,
        stream: TextIO,
        render: Callable[[Line], str],
        *,
        max_lines: int,
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        self.dropped_lines = 0
        self._render = render
        self._max_lines = max_lines
        self._on_dropped = on_dropped
        self._stream = stream
        self._fd = _own_descriptor(stream)
        self._line_is_broken = False
        self._waiting: deque[Line | threading.Event] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._give_up_at = float("inf")
        self._count_lock = threading.Lock()
        self._unreported = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        """Queue the line; never waits."""
        if len(self._waiting) >= self._max_lines:
            self._drop(1)
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def report_drops(self, on_dropped: Callable[[int], None]) -> None:
        """Call this with each number of lost lines, from any thread; at once with those lost before."""
        with self._count_lock:
            self._on_dropped, before = on_dropped, self.dropped_lines
        if before:
            on_dropped(before)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the lines put before are written or lost; False if that took too long."""
        if not self._thread.is_alive():
            return not self._waiting
        written = threading.Event()
        self._waiting.append(written)
        self._wake.set()
        return written.wait(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Write the waiting lines, for this long at most, then end the thread. A second call does nothing."""
        if self._stopping.is_set():
            return
        self._give_up_at = time.monotonic() + timeout_s
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        # A thread that hangs in a write keeps its descriptor: closing it would free the number.
        if self._fd is not None and not self._thread.is_alive():
            os.close(self._fd)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            while self._waiting:
                full = self._write_batch()
                if not full:
                    self._stopping.wait(_GATHER_S)
            if self._stopping.is_set():
                return
            self._wake.clear()
            if self._waiting:  # put between the last check and the clear
                self._wake.set()

    def _write_batch(self) -> bool:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_LINES))]
        lines = [line for line in batch if isinstance(line, Line)]
        with self._count_lock:
            unreported, self._unreported = self._unreported, 0
        texts = [self._text(line) for line in lines]
        if unreported:
            texts.insert(0, self._text(_drop_report(unreported)))
        if texts and not self._write("\n".join(texts) + "\n"):
            self._drop(len(lines), unreported)
        for mark in batch:
            if isinstance(mark, threading.Event):
                mark.set()
        return len(batch) == _BATCH_LINES

    def _text(self, line: Line) -> str:
        try:
            return self._render(line)
        except Exception as error:  # the writer outlives any line
            failure = Line(line.at, "ERROR", "log line could not be written", {"error": type(error).__name__})
            return self._render(failure)

    def _write(self, text: str) -> bool:
        try:
            if self._fd is None:
                self._stream.write(text)
                self._stream.flush()
            else:
                self._write_bytes(self._fd, text.encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):  # ValueError: a closed file object
            return False
        return True

    def _write_bytes(self, fd: int, data: bytes) -> None:
        remaining = memoryview(b"\n" + data if self._line_is_broken else data)
        while remaining:
            try:
                written = os.write(fd, remaining)
            except BlockingIOError:  # another process made our end of the pipe non-blocking
                self._await_room(fd)
                continue
            self._line_is_broken = bytes(remaining[written - 1 : written]) != b"\n"
            remaining = remaining[written:]

    def _await_room(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        while not poller.poll(100):
            if time.monotonic() > self._give_up_at:
                raise TimeoutError

    def _drop(self, lines: int, reported_before: int = 0) -> None:
        with self._count_lock:
            self.dropped_lines += lines
            self._unreported += lines + reported_before
            on_dropped = self._on_dropped
        if lines and on_dropped is not None:
            on_dropped(lines)


def _own_descriptor(stream: TextIO) -> int | None:
    # A duplicate: were the stream closed, its number would soon be a socket's.
    try:
        stream.flush()
        return os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _drop_report(dropped: int) -> Line:
    return Line(datetime.now(UTC), "WARNING", "log lines dropped", {"dropped": dropped})
