"""Temporal: a workflow for each booking, its id the booking's reference, and one activity that calls the provider.

- a start-to-close timeout, by which a dead worker's activity is noticed, and the default retry policy, unlimited
  attempts from 1 s on: https://docs.temporal.io/develop/python/activities/timeouts
- heartbeats are for activities that run long: https://docs.temporal.io/encyclopedia/detecting-activity-failures
- at least once, so an activity is to be idempotent; the page passes a key to the provider, which this one, like
  many, does not take: https://docs.temporal.io/develop/python/error-handling
"""

import asyncio
import os
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from tests.duel.callers import Said, hold_lines
    from tests.duel.peers import booking
    from tests.duel.plan import Plan

QUEUE = "bookings"


@activity.defn
async def book(reference: str) -> str:
    return await booking.book(reference)


@workflow.defn
class Booking:
    """Books."""

    @workflow.run
    async def run(self, reference: str) -> str:
        # A request's timeout, and a second.
        limit = timedelta(seconds=booking.TIMEOUT_S + 1)
        booked: str = await workflow.execute_activity(book, reference, start_to_close_timeout=limit)
        return booked


async def worker(client: Client) -> None:
    async with Worker(client, task_queue=QUEUE, workflows=[Booking], activities=[book]):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def callers(client: Client, plan: Plan) -> None:
    async def call(reference: str) -> Said:
        try:
            await client.execute_workflow(Booking.run, reference, id=reference, task_queue=QUEUE)
        except WorkflowFailureError:
            return Said.FAILED
        return Said.BOOKED

    await hold_lines(plan, call)


async def main(role: str) -> None:
    client = await Client.connect(os.environ["DUEL_TEMPORAL"])
    if role == "worker":
        await worker(client)
    else:
        await callers(client, Plan.from_json(os.environ["DUEL_PLAN"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
