"""The worker's end of one connector's process: calls go in, results and questions come out."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.sdk.errors import ConnectorError, Sent, Timeout, Unavailable
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
from connectors.sdk.isolation.plan import Plan, scrubbed
from connectors.sdk.isolation.reports import Callbacks, Reports
from connectors.sdk.runtime.invocation import Invocation
from connectors.sdk.runtime.outcome import Snooze

#: Seconds that a cancelled call gets to end; less than the runner waits for.
GRACE_S: Final = 1.0
#: Seconds until a process must have loaded its connector.
START_S: Final = 30.0
#: Seconds between two looks at a process that runs calls.
PING_S: Final = 0.5
#: Seconds after which a process that does not answer gets no new call, and is killed if a call of it hangs.
SILENT_S: Final = 1.5


@dataclass(slots=True, eq=False)
class _RemoteCall:
    """One call that is in the process now."""

    invocation: Invocation
    ended: "asyncio.Future[Any]"
    #: The function was called, or is about to be.
    has_started: bool = False
    is_given_up: bool = False
    leave_until: float = 0.0
    #: Leases that its action holds, by the number that the process gave them.
    leases: dict[int, asyncio.Event] = field(default_factory=dict)
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)


class IsolatedProcess:
    """One process: spawned, not forked; it dies with the worker.

    1. `start` spawns it and waits until it has loaded its connector
    2. `invoke` sends a call and waits for its end; any number at once
    3. a cancelled call that does not end within `GRACE_S` retires the process: it gets no new call, and is killed
       once all its other calls have ended, or at once if its loop does not turn
    4. when it dies, each call in it is answered: it started, or it certainly did not
    """

    def __init__(self, plan: Plan, callbacks: Callbacks) -> None:
        self.plan = plan
        self._reports = Reports(callbacks, lambda: {"connector": plan.connector, "pid": self.pid})
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._calls: dict[int, _RemoteCall] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked_at: float | None = None
        #: Why it gets no new call; None while it does.
        self.retired: str | None = None
        #: Set when it has ended.
        self.ended = asyncio.Event()

    @property
    def is_usable(self) -> bool:
        """Whether a new call may be sent to it."""
        is_ready = self._ready.done() and self._ready.exception() is None
        return is_ready and self.retired is None and not self.ended.is_set() and self._silent_s() < SILENT_S

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Spawn the process, and wait until it has loaded its connector.

        Raises:
            Unavailable: it cannot be started, or did not load in time; nothing was sent.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await self._spawn_child(theirs.fileno())
        except OSError as error:
            ours.close()
            raise Unavailable(
                f"no process can be started for {self.plan.connector}: {error.strerror}", sent=Sent.NO
            ) from None
        except BaseException:
            ours.close()
            raise
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._spawn(self._read(reader))
        self._send("plan", self.plan.as_json())
        try:
            async with asyncio.timeout(START_S):
                await asyncio.shield(self._ready)
        except TimeoutError:
            await self.close("it did not load in time")
            raise Unavailable(
                f"the process of {self.plan.connector} did not load in {START_S:g} s", sent=Sent.NO
            ) from None
        except BaseException:
            await self.close("it did not load")
            raise
        self._spawn(self._watch())

    async def _spawn_child(self, fd: int) -> asyncio.subprocess.Process:
        # Its output is nobody's: what it prints may hold a secret. What it logs comes through the socket.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "connectors.sdk.isolation.child",
            str(fd),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=scrubbed(os.environ),
            pass_fds=[fd],
            start_new_session=True,
        )

    async def invoke(self, invocation: Invocation) -> Any:
        """Run one function; see `IsolatedHost.invoke`."""
        number, job = next(self._numbers), invocation.call.job
        call = self._calls[number] = _RemoteCall(invocation, asyncio.get_running_loop().create_future())
        call.leave_until = invocation.leave_until()
        self._reports.add_account((job.tenant, job.connector, job.credential))
        try:
            self._send("call", number, _call_as_json(invocation, call.leave_until))
            return await self._end_of(number, call)
        except BadFrame as large:
            raise ConnectorError(f"the job cannot be dispatched: {large}", sent=Sent.NO) from None
        finally:
            for task in call.tasks:
                task.cancel()
            if call.ended.done():
                self._calls.pop(number, None)
            else:  # abandoned: it still runs there
                call.is_given_up = True
            call.ended.add_done_callback(_retrieve_exception)

    async def _end_of(self, number: int, call: _RemoteCall) -> Any:
        try:
            return await asyncio.shield(call.ended)
        except asyncio.CancelledError:
            if call.ended.done():
                raise
        call.is_given_up = True
        self._send("cancel", number)
        await asyncio.wait({call.ended}, timeout=GRACE_S)
        if not call.ended.done():
            self.retire(f"{call.invocation.call.name} goes on though its time is over")
            await asyncio.wait({call.ended})
        if call.ended.cancelled() and not call.has_started:
            raise Timeout(f"{call.invocation.call.name} could not start in its time", sent=Sent.NO)
        return call.ended.result()

    def retire(self, why: str) -> None:
        """Send no new call; kill the process once the calls that can still end have ended."""
        if self.retired is None and not self.ended.is_set():
            self.retired = why
            self._reports.log(logging.WARNING, "connector's process retired", reason=why)
        self._kill_if_idle()

    def kill(self, why: str) -> None:
        """Kill the process and all that it started; its calls are answered when its last words are read."""
        self.retired = self.retired or why
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def close(self, why: str = "the worker ends") -> None:
        """Kill the process, and wait until it is gone."""
        if self._process is None or self._writer is None:
            return
        self.kill(why)
        await self.ended.wait()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _kill_if_idle(self) -> None:
        others = [call for call in self._calls.values() if not call.is_given_up]
        if self.retired is not None and (not others or self._silent_s() >= SILENT_S):
            self.kill(self.retired)

    async def _watch(self) -> None:
        """Ask whether its loop turns, for as long as it lives."""
        while not self.ended.is_set():
            await asyncio.sleep(PING_S)
            self._kill_if_idle()
            if not self._calls:
                self._asked_at = None
                continue
            for number, call in self._calls.items():
                if (until := call.invocation.leave_until()) != call.leave_until:
                    call.leave_until = until
                    self._send("leave_until", number, until)
            self._asked_at = self._asked_at or time.monotonic()
            self._send("ping")

    def _silent_s(self) -> float:
        return 0.0 if self._asked_at is None else time.monotonic() - self._asked_at

    def _send(self, *frame: Any) -> None:
        data = encode(*frame)
        if self._writer is not None and not self.ended.is_set():
            self._writer.write(data)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Take its frames until it is gone, its last ones included; then answer what was in it."""
        assert self._process is not None
        try:
            while True:
                header = await reader.readexactly(LENGTH_BYTES)
                self._take(decode(await reader.readexactly(length_of(header))))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except BadFrame as bad:
            self.kill(f"it sent {bad}")
        except Exception as error:  # what it sends must not end this task
            self.kill(f"it sent what cannot be used ({type(error).__name__})")
        finally:
            self.kill("it closed its socket")
            code = await self._process.wait()
            self._end(code)

    def _end(self, code: int) -> None:
        self.ended.set()
        assert self._writer is not None
        self._writer.close()
        name = self.plan.connector
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        why = self.retired if code == -signal.SIGKILL else how
        self._reports.log(logging.WARNING, "connector's process ended", reason=why)
        if not self._ready.done():
            self._ready.set_exception(
                Unavailable(f"the process of {name} ended before it was ready ({how})", sent=Sent.NO)
            )
            self._ready.exception()  # it may be waited for no more
        for call in self._calls.values():
            if call.ended.done():
                continue
            if call.is_given_up:
                call.ended.cancel()
            else:
                # What was started may have had its effect, whatever it had reported.
                sent = Sent.UNCERTAIN if call.has_started else Sent.NO
                call.ended.set_exception(Unavailable(f"the process of {name} ended: {why}", sent=sent))
        self._calls.clear()

    def _take(self, frame: Frame) -> None:
        match frame:
            case ["ready"] if not self._ready.done():
                self._ready.set_result(None)
            case ["failed", str(error)]:
                self.kill("it cannot load its connector")
                if not self._ready.done():
                    self._ready.set_exception(
                        Unavailable(
                            f"the process of {self.plan.connector} cannot load {self.plan.reference}: {error}",
                            sent=Sent.NO,
                        )
                    )
            case ["pong"]:
                self._asked_at = None
                self._reports.is_block_logged = False
            case ["ask", None, int(asked), "keep", dict(fields)]:
                self._spawn(self._answer(asked, self._reports.keep(fields)))
            case [str(kind), int(number), *rest] if (call := self._calls.get(number)) is not None:
                self._take_of(call, kind, rest)
            case _:
                self._reports.take(frame)

    def _take_of(self, call: _RemoteCall, kind: str, rest: list[Any]) -> None:
        match kind, rest:
            case "started", []:
                call.has_started = True
            case "note", [str(message)]:
                call.invocation.call.attempt.report_progress("note", message)
            case "ask", [int(asked), "step", dict(results)]:
                self._spawn(self._answer(asked, self._record_step(call, results)), call)
            case "ask", [int(asked), "lease", [str(name), int(lease)]]:
                self._spawn(self._hold(asked, call, name, lease), call)
            case "release", [int(lease)] if lease in call.leases:
                call.leases.pop(lease).set()
            case "end", [dict(end), dict(left)] if not call.ended.done():
                self._take_end(call, end, left)

    def _take_end(self, call: _RemoteCall, end: Mapping[str, Any], left: Mapping[str, Any]) -> None:
        names = ("has_sent", "has_asked", "may_have_effect")
        call.invocation.effects.adopt(**{name: bool(left.get(name, True)) for name in names})
        if "data" in end:
            call.ended.set_result(end["data"])
        elif end.get("cancelled"):
            call.ended.cancel()
        else:
            call.ended.set_exception(error_of(end.get("error") or {}))
        for number in [number for number, each in self._calls.items() if each is call]:
            del self._calls[number]
        self._kill_if_idle()

    async def _record_step(self, call: _RemoteCall, results: dict[str, Any]) -> None:
        steps = call.invocation.call.steps
        await steps.record(results)
        steps.results = results

    async def _hold(self, asked: int, call: _RemoteCall, name: str, lease: int) -> None:
        """Hold a lease for an action until it is released, or its call ends."""
        context = call.invocation.context
        assert context is not None
        try:
            async with context.lease(name):
                released = call.leases[lease] = asyncio.Event()
                self._send("answer", asked, None)
                await released.wait()
        except ConnectorError as error:
            self._send("answer", asked, error_as_json(error))

    async def _answer(self, asked: int, doing: Any) -> None:
        """Do what the process asks for, and tell it how that ended."""
        failure: ConnectorError | None = None
        try:
            await doing
        except ConnectorError as error:
            failure = error
        except Snooze as snooze:
            failure = ConnectorError(str(snooze), sent=Sent.UNCERTAIN)
        except Exception as error:
            failure = ConnectorError(f"the worker met {type(error).__name__}", sent=Sent.UNCERTAIN)
        self._send("answer", asked, None if failure is None else error_as_json(failure))

    def _spawn(self, doing: Any, call: _RemoteCall | None = None) -> None:
        task: asyncio.Task[None] = asyncio.create_task(doing)
        tasks = self._tasks if call is None else call.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _call_as_json(invocation: Invocation, leave_until: float) -> dict[str, Any]:
    call, context = invocation.call, invocation.context
    assert context is not None
    remaining_s = call.attempt.deadline.remaining_s() if invocation.heeds_deadline else None
    return {
        "part": invocation.part,
        "job": call.job.model_dump(mode="json", exclude={"metadata", "progress"}),
        "secret": dict(invocation.secret),
        "result": invocation.result,
        "steps": call.steps.results,
        "attempt": context.attempt,
        "is_repeat": context.is_repeat,
        "deadline": None if context.deadline is None else context.deadline.isoformat(),
        "http_deadline": None if remaining_s is None else time.monotonic() + remaining_s,
        "leave_until": leave_until,
    }


def _retrieve_exception(ended: "asyncio.Future[Any]") -> None:
    if not ended.cancelled():
        ended.exception()
