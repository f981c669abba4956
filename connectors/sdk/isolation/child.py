"""The process of one connector: `python -m connectors.sdk.isolation.child FD`, started by the worker alone.

It has no settings, no environment and no credentials but those that come through the socket, each with its job.
A thread reads the socket, so that the worker is answered, and the process ends with it, though the loop is blocked.
"""

import asyncio
import contextlib
import ctypes
import importlib
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from functools import partial, reduce
from typing import Any, Final

from pydantic_core import to_json

from connectors.sdk.connector import Action, Connector
from connectors.sdk.context import Context, JobLog
from connectors.sdk.errors import ConnectorError, Sent
from connectors.sdk.http.client import HttpPool
from connectors.sdk.http.job_effects import JobEffects
from connectors.sdk.http.refresh_tokens import Rotation
from connectors.sdk.isolation.frames import (
    LENGTH_BYTES,
    BadFrame,
    Frame,
    decode,
    encode,
    error_as_json,
    error_of,
    length_of,
)
from connectors.sdk.isolation.plan import Plan
from connectors.sdk.runtime.action_runner import as_connector_error
from connectors.sdk.runtime.invocation import checked_result
from connectors.sdk.runtime.threads import Threads
from connectors.sdk.steps import Steps
from schemas.job import Job

#: Seconds after which a loop that has not turned is reported with its stack.
BLOCKED_AFTER_S: Final = 1.0
#: Frames of a blocked loop that are reported, the innermost ones.
_FRAMES: Final = 25
_PR_SET_PDEATHSIG: Final = 1


class Wire:
    """The child's end of the socket: any thread may send, one thread reads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

    def send(self, *frame: Any) -> None:
        """Send one frame.

        Raises:
            BadFrame: it is too large.
        """
        data = encode(*frame)
        with self._lock:
            self._sock.sendall(data)

    def receive(self) -> Frame:
        """Wait for the next frame.

        Raises:
            EOFError: the worker has closed its end, or is gone.
        """
        return decode(self._read(length_of(self._read(LENGTH_BYTES))))

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self._sock.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


class _Logs(logging.Handler):
    """Sends what the connector and its libraries log to the worker, which masks and writes it."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a line that cannot be sent is lost, and harms nothing
            fields = getattr(record, "fields", None)
            fields = dict(fields) if isinstance(fields, Mapping) else {}
            if record.exc_info and record.exc_info[0] is not None:
                # Never its text: a third party's error may hold a secret.
                fields["error"] = record.exc_info[0].__name__
            fields = {name: _plain(value) for name, value in fields.items()}
            self._wire.send("log", record.levelno, record.name, record.getMessage(), fields)


class Child:
    """Runs what the worker asks for, each call in a task of its own."""

    def __init__(self, wire: Wire, plan: Plan, connector: Connector[Any]) -> None:
        self._wire = wire
        self._connector = connector
        self._threads = Threads(plan.threads)
        self._loop = asyncio.get_running_loop()
        self._main = threading.get_ident()
        self._calls: dict[int, asyncio.Task[None]] = {}
        #: When each call's writes must have left, at the latest.
        self._leave_until: dict[int, float] = {}
        self._asks: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count()
        self._turned_at = time.monotonic()
        self._log = logging.getLogger("connectors")
        self._http = HttpPool(
            plan.policy(),
            on_call=lambda reach, outcome, seconds: wire.send("http", reach, outcome, seconds),
            on_quota=lambda account, used, total: wire.send("quota", list(account), used, total),
            on_secret=lambda secret: wire.send("secret", secret),
            keep=self._keep,
        )

    def listen(self) -> None:
        """Read frames until the worker is gone; then this process ends, whatever it is doing. Its own thread's."""
        try:
            while True:
                frame = self._wire.receive()
                if frame[0] == "ping":
                    self._report_block()
                self._loop.call_soon_threadsafe(self._take, frame)
        except BaseException:
            os._exit(0)

    def _report_block(self) -> None:
        blocked_s = time.monotonic() - self._turned_at
        if blocked_s < BLOCKED_AFTER_S:
            return
        frame = sys._current_frames().get(self._main)
        stack = [] if frame is None else traceback.format_stack(frame)[-_FRAMES:]
        task = asyncio.current_task(self._loop)
        name = "no task" if task is None else task.get_name()
        self._wire.send("blocked", blocked_s, name, "".join(stack))

    async def beat(self) -> None:
        """Show the reading thread that the loop turns."""
        while True:
            self._turned_at = time.monotonic()
            await asyncio.sleep(0.25)

    def _take(self, frame: Frame) -> None:
        match frame:
            case ["call", int(number), dict(fields)]:
                job = Job.model_validate_json(to_json(fields["job"]))
                name = f"{job.connector}.{job.action} of job {job.id}"
                self._calls[number] = asyncio.create_task(self._call(number, fields, job), name=name)
            case ["cancel", int(number)]:
                if (task := self._calls.get(number)) is not None:
                    task.cancel()
            case ["leave_until", int(number), float(instant)]:
                if number in self._calls:
                    self._leave_until[number] = instant
            case ["answer", int(number), failure]:
                if (asked := self._asks.get(number)) is not None and not asked.done():
                    if failure is None:
                        asked.set_result(None)
                    else:
                        asked.set_exception(error_of(failure))
            case ["ping"]:
                self._wire.send("pong")

    async def _call(self, number: int, fields: Mapping[str, Any], job: Job) -> None:
        effects, end = JobEffects(), dict[str, Any]()
        self._leave_until[number] = fields["leave_until"]
        effects.may_leave = lambda: time.monotonic() < self._leave_until.get(number, 0.0)
        try:
            action = self._connector.actions[job.action]
            context = self._context(number, fields, job, action, effects)
            with as_connector_error(f"{job.connector}.{job.action}", job.id, lambda: context.log):
                end["data"] = await self._run(number, fields, job, action, context)
        except asyncio.CancelledError:
            end["cancelled"] = True
        except ConnectorError as error:
            end["error"] = error_as_json(error)
        except BaseException as bug:
            end["error"] = error_as_json(_fault(f"{job.connector}.{job.action} raised {type(bug).__name__}"))
        finally:
            del self._calls[number], self._leave_until[number]
        left = {name: getattr(effects, name) for name in ("has_sent", "has_asked", "may_have_effect")}
        try:
            self._wire.send("end", number, end, left)
        except Exception:  # BadFrame, or what is no JSON in an error's data
            fault = _fault(f"{job.connector}.{job.action} ended with what cannot be sent")
            self._wire.send("end", number, {"error": error_as_json(fault)}, left)

    async def _run(
        self,
        number: int,
        fields: Mapping[str, Any],
        job: Job,
        action: Action[..., Any],
        context: Context[Any],
    ) -> Any:
        part = fields["part"]
        params = None if part == "undo" and not job.params else action.signature.read(job.params)
        if part == "undo":
            self._wire.send("started", number)
            return await action.call_undo(context, params=params, result=fields["result"])
        assert params is not None
        if part == "reconcile":
            self._wire.send("started", number)
            found = await action.call_reconcile(params, context)
            return None if found is None else [action.dump(found)]
        if action.is_async:
            self._wire.send("started", number)
            return checked_result(action, await action.call(params, context))

        def call() -> Any:
            self._wire.send("started", number)
            return action.call(params, context)

        thread = self._threads.start(job.connector, call)
        try:
            value = await thread.result()
        except asyncio.CancelledError:
            thread.give_up()
            if thread.never_started:
                raise
            value = await thread.result()  # it cannot be stopped: the worker kills this process if it must
        return checked_result(action, value)

    def _context(
        self, number: int, fields: Mapping[str, Any], job: Job, action: Action[..., Any], effects: JobEffects
    ) -> Context[Any]:
        steps = Steps(dict(fields["steps"]), record=partial(self._ask, number, "step"))
        steps.on_recorded = effects.record_step
        log_fields = {
            "job_id": job.id,
            "tenant": job.tenant,
            "connector": job.connector,
            "action": job.action,
            "attempt": fields["attempt"],
        }
        return Context(
            job_id=job.id,
            tenant=job.tenant,
            connector=job.connector,
            action=job.action,
            idempotency_key=job.key,
            credential=self._connector.read_credential(fields["secret"]),
            http=self._http.client(
                tenant=job.tenant,
                connector=job.connector,
                credential=job.credential,
                deadline=fields["http_deadline"],
                effects=effects,
            ),
            attempt=fields["attempt"],
            is_repeat=fields["is_repeat"],
            deadline=None if fields["deadline"] is None else datetime.fromisoformat(fields["deadline"]),
            locale=job.locale,
            log=JobLog(self._log, log_fields, partial(action.signature.personal, job.params)),
            _report=lambda message: self._wire.send("note", number, message),
            _lease=partial(self._lease, number),
            _steps=steps,
        )

    @contextlib.asynccontextmanager
    async def _lease(self, number: int, name: str) -> AsyncIterator[None]:
        lease = next(self._numbers)
        await self._ask(number, "lease", [name, lease])
        try:
            yield
        finally:
            self._wire.send("release", number, lease)

    async def _keep(self, rotation: Rotation) -> None:
        await self._ask(
            None,
            "keep",
            {
                "account": list(rotation.account),
                "field": rotation.field,
                "older": [token.get_secret_value() for token in rotation.older],
                "newest": rotation.newest.get_secret_value(),
            },
        )

    async def _ask(self, number: int | None, what: str, value: Any) -> None:
        """Ask the worker for what needs its ledger or vault, and wait for its answer."""
        asked = next(self._numbers)
        answer = self._asks[asked] = asyncio.get_running_loop().create_future()
        try:
            self._wire.send("ask", number, asked, what, value)
            await answer
        except BadFrame as large:
            raise ConnectorError(f"ctx.{what} cannot be recorded: {large}") from None
        finally:
            del self._asks[asked]


def _fault(message: str) -> ConnectorError:
    return ConnectorError(message, sent=Sent.UNCERTAIN)


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else repr(value)


def _die_with(parent: int) -> None:
    """End when the worker does, though it was killed and this process does not read."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _load(plan: Plan) -> Connector[Any]:
    module, _, path = plan.reference.partition(":")
    connector = reduce(getattr, filter(None, path.split(".")), importlib.import_module(module))
    if not isinstance(connector, Connector):
        raise TypeError(f"{plan.reference} is no Connector")
    connector.settings.update(plan.settings)
    return connector


async def _serve(wire: Wire, plan: Plan, connector: Connector[Any]) -> None:
    child = Child(wire, plan, connector)
    threading.Thread(target=child.listen, name="wire", daemon=True).start()
    wire.send("ready")
    await child.beat()


def main() -> None:
    """Serve calls until the worker closes the socket."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    wire = Wire(sock)
    plan = Plan.of(wire.receive())
    _die_with(plan.worker_pid)
    logging.basicConfig(level=plan.log_level, handlers=[_Logs(wire)], force=True)
    for name in ("aiohttp", "httpx", "asyncio", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log URLs with keys in them below
    try:
        connector = _load(plan)
    except BaseException as error:  # SystemExit is a failure like another
        wire.send("failed", type(error).__name__)
        return
    try:
        asyncio.run(_serve(wire, plan, connector))
    except OSError:
        pass  # the worker is gone
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
