"""Ours: callers with the product's client. The deadline is half a second before the line is given up."""

import asyncio
import os

from schemas.error import Code
from schemas.result import Result
from tests.duel.callers import Said, hold_lines
from tests.duel.plan import Plan
from worker.client import ConnectorsClient, ConnectorsError, NoReply

#: Between the deadline, at which the worker answers at the latest, and the end of the caller's patience.
MARGIN_S = 0.5
#: For a caller that asks again: a lease, a slow call and a retry fit.
ASK_AGAIN_S = 40.0


async def main() -> None:
    plan = Plan.from_json(os.environ["DUEL_PLAN"])
    async with ConnectorsClient(os.environ["DUEL_RABBITMQ_URL"]) as client:

        async def book(reference: str, timeout_s: float) -> Said:
            try:
                await client.call(
                    "bookings", "book", {"reference": reference}, job_id=reference, timeout_s=timeout_s
                )
            except ConnectorsError as error:
                return _said(error.result)
            except NoReply as silent:
                raise TimeoutError from silent
            return Said.BOOKED

        async def call(reference: str) -> Said:
            return await book(reference, plan.line_s - MARGIN_S)

        async def ask_again(reference: str) -> Said:
            return await book(reference, ASK_AGAIN_S)

        await hold_lines(plan, call, ask_again if plan.asks_again else None)


def _said(result: Result) -> Said:
    """Read a failure as the contract says: it is open where the code or `outcome` says so."""
    assert result.error is not None
    is_open = (
        result.error.code == Code.OUTCOME_UNKNOWN or (result.error.data or {}).get("outcome") == "unknown"
    )
    return Said.UNKNOWN if is_open else Said.FAILED


if __name__ == "__main__":
    asyncio.run(main())
