"""A third party's connector that does everything a connector should not."""

import asyncio
import sys
import threading
import time
from typing import Any

from connectors.sdk import Connector, Effect

rogue = Connector("rogue")

_kept: list[Any] = []


class Rubbish:
    """What no encoder knows."""

    def __repr__(self) -> str:
        raise ValueError("not even this")


@rogue.action(effect=Effect.READ)
async def leave() -> None:
    """Try to end the worker."""
    sys.exit(7)


@rogue.action(effect=Effect.READ)
async def interrupt() -> None:
    """Try to end the worker as Ctrl-C does."""
    raise KeyboardInterrupt


@rogue.action(effect=Effect.READ)
def leave_from_thread() -> None:
    """Try to end the worker from a thread."""
    raise SystemExit(7)


@rogue.action(effect=Effect.READ)
async def rubbish() -> Any:
    """Return what cannot be sent."""
    return {"rubbish": Rubbish()}


@rogue.action(effect=Effect.READ)
async def lie() -> int:
    """Return what is not declared."""
    return "no number"  # type: ignore[return-value]


@rogue.action(effect=Effect.READ)
async def flood() -> str:
    """Return more than a reply holds."""
    return "x" * (2 * 1024 * 1024)


@rogue.action(effect=Effect.READ)
async def cycle() -> Any:
    """Return what never ends."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    return endless


@rogue.action(effect=Effect.READ)
async def leak() -> str:
    """Leave a task, a thread and memory behind."""

    async def fail_later() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError("nobody waits for this")

    _kept.append(bytearray(1024 * 1024))
    _kept.append(asyncio.create_task(fail_later()))
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    return "leaked"


@rogue.action(effect=Effect.READ, timeout_s=3600)
def block() -> None:
    """Hold a thread for good."""
    time.sleep(3600)


@rogue.action(effect=Effect.READ, timeout_s=0.2)
async def ignore_cancellation() -> None:
    """Refuse to be given up."""
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass
