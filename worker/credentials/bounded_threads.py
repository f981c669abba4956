"""A few threads for blocking calls that may hang: bounded, and never waited for at exit."""

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class ThreadsBusy(Exception):
    """As many calls wait already as may."""


class BoundedThreads:
    """Run blocking calls beside the loop.

    Not a ThreadPoolExecutor: its queue has no bound, and the interpreter joins its threads at exit,
    so a call that hangs would hold up a worker that is asked to stop.
    Its creator closes it; threads start as they are needed.

    Args:
        count: calls that run at once.
        waiting: calls that wait for a thread; one whose caller gave up is never run.
    """

    def __init__(self, name: str, *, count: int, waiting: int) -> None:
        self._name = name
        self._count = count
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(waiting)
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    async def run(self, call: Callable[[], ResultT]) -> ResultT:
        """Run a call in a thread; cancelled, the call itself goes on, and its result is dropped.

        Raises:
            ThreadsBusy: as many wait as may, or it is closed.
        """
        if self._is_closed:
            raise ThreadsBusy
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        try:
            self._calls.put_nowait(partial(_run, call, future))
        except queue.Full:
            raise ThreadsBusy from None
        if len(self._threads) < self._count:
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return await future

    def close(self) -> None:
        """End the threads after the call they are in; calls that wait are dropped."""
        if self._is_closed:
            return
        self._is_closed = True
        while True:
            try:
                self._calls.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._calls.put_nowait(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # a secret in its result is not kept while the thread idles


def _run(call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
    if future.cancelled():
        return
    try:
        settle = partial(_settle, future, call(), None)
    except BaseException as error:  # whatever it is, it is the caller's
        settle = partial(_settle, future, None, error)
    try:
        future.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has closed: no one waits


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
