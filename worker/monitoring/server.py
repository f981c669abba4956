"""The monitoring server: metrics, health, readiness and the status page over HTTP."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from socket import socket
from typing import Final, TypeVar

from loguru import logger

from worker.logs.masking import mask_shapes
from worker.metrics import CONTENT_TYPE, Metrics
from worker.monitoring import page
from worker.monitoring.listener import DEFAULT_POLICY, Listener, ListenerPolicy, Response, bind, plain
from worker.monitoring.status import CheckResult, Checks, Status, StatusSource
from worker.monitoring.watchdog import BEAT_S, BLOCKED_AFTER_S, Watchdog

T = TypeVar("T")

#: Seconds to wait for the worker's loop to read a state.
LOOP_RESPONSE_S: Final = 1.0
#: Seconds to wait for the monitoring thread to start and to end.
THREAD_S: Final = 5.0
#: Characters of a check's reason that are shown.
MAX_REASON: Final = 300

_LOOP_CHECK: Final = "event_loop"
_NO_RESPONSE: Final = f"the event loop has not responded for {LOOP_RESPONSE_S:.0f} s"


class MonitoringServer:
    """Serves /metrics, /healthz, /readyz and the status page, and watches the worker's loop.

    It runs on an event loop and thread of its own: a blocked worker can still report that it is blocked, and
    reading metrics takes no time from jobs. The worker's state (`checks`, `status`) is read on the worker's
    loop, so neither needs a lock.

    1. `start` opens the port, starts the watchdog on the worker's loop, and the thread
    2. the thread answers requests, and checks every quarter second that the worker's loop turns
    3. `stop` ends both; the service calls it last, so that a drain can be observed

    Args:
        checks: the readiness checks by name, run for each request.
        not_loaded: connectors that failed to load, with the reason; shown in /readyz, which stays ready.
        insecure: what the settings leave open, each with the setting that closes it; shown in /readyz.
        hung_calls: returns how many calls of each action hang; shown in /readyz. Called on the worker's loop.
        blocked_after_s: seconds without a turn of the loop after which the worker is unhealthy.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        checks: Checks,
        status: StatusSource,
        *,
        not_loaded: Mapping[str, str] | None = None,
        insecure: Sequence[str] = (),
        hung_calls: Callable[[], Mapping[str, int]] = dict,
        blocked_after_s: float = BLOCKED_AFTER_S,
        listener_policy: ListenerPolicy = DEFAULT_POLICY,
    ) -> None:
        self._not_loaded = {name: _shown(reason) for name, reason in (not_loaded or {}).items()}
        self._insecure = list(insecure)
        self._hung_calls = hung_calls
        self._listener_policy = listener_policy
        self._host = host
        self._port = port
        self._metrics = metrics
        self._checks = checks
        self._status = status
        self._watchdog = Watchdog(metrics, blocked_after_s=blocked_after_s)
        self._worker_loop: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ended: Future[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    async def start(self) -> None:
        """Open the port and start to answer requests.

        Raises:
            PortTaken, CannotListen: the port cannot be opened.
        """
        self._worker_loop = asyncio.get_running_loop()
        bound = await bind(self._host, self._port)
        self._port = bound.getsockname()[1]
        self._watchdog.start()
        serving: Future[None] = Future()
        self._ended = Future()
        self._thread = threading.Thread(
            target=self._run, args=(bound, serving, self._ended), name="monitoring", daemon=True
        )
        self._thread.start()
        await asyncio.wait_for(asyncio.wrap_future(serving), THREAD_S)

    async def stop(self) -> None:
        """Close the port. A second call, or one before `start`, does nothing."""
        if self._ended is None or self._thread is None or self._loop is None or self._stopping is None:
            return
        self._watchdog.stop()
        ended, self._ended = self._ended, None
        try:
            self._loop.call_soon_threadsafe(self._stopping.set)
            await asyncio.wait_for(asyncio.wrap_future(ended), THREAD_S)
            self._thread.join()  # it has nothing left to do
        except RuntimeError:
            pass  # its thread has died, and said so
        except TimeoutError:
            logger.warning(
                "monitoring server does not stop", seconds=THREAD_S
            )  # the process ends all the same

    def _run(self, bound: socket, serving: "Future[None]", ended: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(bound, serving))
        except Exception as error:
            logger.opt(exception=error).error("monitoring server failed")
            if not serving.done():
                serving.set_exception(error)
        finally:
            bound.close()
            ended.set_result(None)

    async def _serve(self, bound: socket, serving: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        listener = Listener(self._respond, self._listener_policy)
        await listener.serve(bound)
        serving.set_result(None)
        while not self._stopping.is_set():
            self._watchdog.check()
            try:
                await asyncio.wait_for(self._stopping.wait(), BEAT_S)
            except TimeoutError:
                pass  # time for the next check
        await listener.close()

    async def _respond(self, path: str) -> Response:
        match path:
            case "/metrics":
                return Response(HTTPStatus.OK, CONTENT_TYPE, self._metrics.render())
            case "/healthz":
                return self._health()
            case "/readyz":
                return await self._readiness()
            case "/":
                return await self._page()
            case _:
                return plain(
                    HTTPStatus.NOT_FOUND, "not found; the paths are /, /metrics, /healthz and /readyz"
                )

    def _health(self) -> Response:
        blocked_s = self._watchdog.blocked_s()
        if blocked_s is None:
            return plain(HTTPStatus.OK, "ok")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, _blocked(blocked_s, self._watchdog.blocked_in()))

    async def _readiness(self) -> Response:
        results = await self._check_all()
        ready = all(result.ok for result in results)
        hung: Mapping[str, int] = {}
        if results[0].ok:
            with suppress(TimeoutError):
                hung = await self._on_worker_loop(self._hung_calls)
        shown = [{"name": check.name, "ok": check.ok, "detail": check.reason} for check in results]
        answer = {
            "ready": ready,
            "checks": shown,
            "not_loaded": self._not_loaded,
            "insecure": self._insecure,
            "hung_calls": hung,
        }
        return Response(
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
            "application/json",
            json.dumps(answer).encode() + b"\n",
        )

    async def _page(self) -> Response:
        results = await self._check_all()
        status: Status | None = None
        if results[0].ok:  # the event loop's check, which explains a missing status
            try:
                status = await self._on_worker_loop(self._status.snapshot)
            except TimeoutError:
                results[0] = CheckResult(_LOOP_CHECK, _NO_RESPONSE)
        body = page.render(status, results, self._metrics.totals())
        return Response(HTTPStatus.OK, "text/html; charset=utf-8", body.encode(), page.HEADERS)

    async def _check_all(self) -> list[CheckResult]:
        blocked_s = self._watchdog.blocked_s()
        if blocked_s is not None:
            return [CheckResult(_LOOP_CHECK, _blocked(blocked_s, self._watchdog.blocked_in()))]
        try:
            results = await self._on_worker_loop(partial(_run_checks, self._checks))
        except TimeoutError:
            return [CheckResult(_LOOP_CHECK, _NO_RESPONSE)]
        return [CheckResult(_LOOP_CHECK, None), *results]

    async def _on_worker_loop(self, read: Callable[[], T]) -> T:
        """Return what `read` returns on the worker's loop.

        Raises:
            TimeoutError: the loop did not run it in time, or has ended.
        """
        answered: Future[T] = Future()

        def answer() -> None:
            if not answered.set_running_or_notify_cancel():
                return  # too late
            try:
                answered.set_result(read())
            except Exception as error:  # raised again where it is awaited
                answered.set_exception(error)

        assert self._worker_loop is not None, "start() sets it before the first request"
        try:
            self._worker_loop.call_soon_threadsafe(answer)
        except RuntimeError as error:  # the loop is closed
            raise TimeoutError from error
        return await asyncio.wait_for(asyncio.wrap_future(answered), LOOP_RESPONSE_S)


def _run_checks(checks: Checks) -> list[CheckResult]:
    return [CheckResult(name, _reason(check)) for name, check in checks.items()]


def _reason(check: Callable[[], str | None]) -> str | None:
    try:
        reason = check()
    except Exception as error:  # a check that fails is a check that failed
        return f"the check itself failed: {type(error).__name__}"
    return None if reason is None else _shown(reason)


def _shown(reason: str) -> str:
    return mask_shapes(reason)[:MAX_REASON]


def _blocked(blocked_s: float, task: str) -> str:
    return f"the event loop has not turned for {blocked_s:.1f} s; it hangs in {task}"
