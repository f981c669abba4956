"""A third party's connector that does everything a connector should not."""

import asyncio
import sys
import threading
import time
from typing import Any

from connectors.sdk import Connector, Effect

misbehaving = Connector("misbehaving")

_kept: list[Any] = []


class Unencodable:
    """A value that no encoder knows."""

    def __repr__(self) -> str:
        raise ValueError("not even this")


@misbehaving.action(effect=Effect.READ)
async def leave() -> None:
    """Try to end the worker."""
    sys.exit(7)


@misbehaving.action(effect=Effect.READ)
async def interrupt() -> None:
    """Try to end the worker as Ctrl-C does."""
    raise KeyboardInterrupt


@misbehaving.action(effect=Effect.READ)
def leave_from_thread() -> None:
    """Try to end the worker from a thread."""
    raise SystemExit(7)


@misbehaving.action(effect=Effect.READ)
async def unencodable() -> Any:
    """Return a value that cannot be encoded."""
    return {"value": Unencodable()}


@misbehaving.action(effect=Effect.READ)
async def lie() -> int:
    """Return another type than declared."""
    return "no number"  # type: ignore[return-value]


@misbehaving.action(effect=Effect.READ)
async def flood() -> str:
    """Return more than fits in a reply."""
    return "x" * (2 * 1024 * 1024)


@misbehaving.action(effect=Effect.READ)
async def cycle() -> Any:
    """Return a value that contains itself."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    return endless


@misbehaving.action(effect=Effect.READ)
async def leak() -> str:
    """Leave a task, a thread and memory behind."""

    async def fail_later() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError("nobody waits for this")

    _kept.append(bytearray(1024 * 1024))
    _kept.append(asyncio.create_task(fail_later()))
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return "leaked"


@misbehaving.action(effect=Effect.READ, timeout_s=3600)
async def block_the_loop(seconds: float) -> None:
    """Block in an asynchronous function, and so every job of the process."""
    time.sleep(seconds)


@misbehaving.action(effect=Effect.READ, timeout_s=3600)
def block() -> None:
    """Hold a thread for good."""
    time.sleep(3600)


@misbehaving.action(effect=Effect.READ, timeout_s=0.2)
async def ignore_cancellation() -> None:
    """Refuse to be given up."""
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass


@misbehaving.action(effect=Effect.READ, timeout_s=0.2)
async def never_end() -> None:
    """Refuse to be given up, for good."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
