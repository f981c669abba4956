"""The callers: one for each booking, each holding the line. The standard library alone, as in `plan.py`."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from tests.duel.plan import Plan


class Said(StrEnum):
    """What a caller can hear."""

    BOOKED = "booked"
    #: Not booked, and it will not be.
    FAILED = "failed"
    #: It cannot be said yet; the caller knows that it must ask.
    UNKNOWN = "unknown"


async def hold_lines(
    plan: Plan,
    call: Callable[[str], Awaitable[Said]],
    ask_again: Callable[[str], Awaitable[Said]] | None = None,
) -> None:
    """Place each booking at its time, and print a line for each caller: what it heard, and after how long."""
    began = time.monotonic()

    async def hold(number: int, reference: str) -> None:
        await asyncio.sleep(began + number / plan.per_s - time.monotonic())
        called = time.monotonic()
        heard: Said | None = None
        try:
            async with asyncio.timeout(plan.line_s):
                heard = await call(reference)
        except (TimeoutError, EOFError):
            pass  # the line stayed silent, or went dead
        after_s, last = time.monotonic() - called, heard
        if heard is Said.UNKNOWN and ask_again is not None:
            last = await ask_again(reference)
        line = {"reference": reference, "heard": heard, "after_s": round(after_s, 3), "last": last}
        print(json.dumps(line), flush=True)

    async with asyncio.TaskGroup() as lines:
        for number, reference in enumerate(plan.references):
            lines.create_task(hold(number, reference))
