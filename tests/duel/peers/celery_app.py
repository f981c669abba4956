"""Celery on RabbitMQ, for a task that must not be lost.

- `acks_late`, with retries for expected errors: https://docs.celeryq.dev/en/stable/faq.html#faq-acks-late-vs-retry.
  The page asks for an idempotent task, and leaves that to the author of the task.
- `autoretry_for` with `retry_backoff`, five retries:
  https://docs.celeryq.dev/en/stable/userguide/tasks.html#automatic-retry-for-known-exceptions
- `reject_on_worker_lost`, since without it a task whose process is killed is acknowledged all the same:
  https://docs.celeryq.dev/en/stable/userguide/tasks.html#Task.reject_on_worker_lost
- one reserved task a process: https://docs.celeryq.dev/en/stable/userguide/optimizing.html#reserve-one-task-at-a-time
- results over RabbitMQ: https://docs.celeryq.dev/en/stable/userguide/tasks.html#rpc-result-backend-rabbitmq-qpid
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import httpx
from celery import Celery
from celery.exceptions import TimeoutError as NoResult

from tests.duel.callers import Said, hold_lines
from tests.duel.peers import booking
from tests.duel.plan import Plan

app = Celery("duel", broker=os.environ["DUEL_RABBITMQ_URL"], backend="rpc://")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    result_persistent=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="book", autoretry_for=(httpx.HTTPError,), retry_backoff=True, max_retries=5)
def book(reference: str) -> str:
    return asyncio.run(booking.book(reference))


async def callers(plan: Plan) -> None:
    with ThreadPoolExecutor(plan.bookings) as threads:

        def wait(reference: str) -> Said:
            try:
                book.delay(reference).get(timeout=plan.line_s)
            except httpx.HTTPError:
                return Said.FAILED
            except NoResult as silent:
                raise TimeoutError from silent
            return Said.BOOKED

        async def call(reference: str) -> Said:
            return await asyncio.get_running_loop().run_in_executor(threads, wait, reference)

        await hold_lines(plan, call)


if __name__ == "__main__":
    asyncio.run(callers(Plan.from_json(os.environ["DUEL_PLAN"])))
