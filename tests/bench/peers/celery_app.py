"""Celery: late acks, a quorum queue, results through the RPC backend, publisher confirms."""

import os
import time

from celery import Celery
from kombu import Queue

app = Celery("bench", broker=os.environ["BENCH_URL"], backend="rpc://")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_queues=[Queue("bench", durable=True, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue="bench",
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    worker_detect_quorum_queues=True,
    worker_hijack_root_logger=False,
    broker_transport_options={"confirm_publish": True},
    result_persistent=True,
    broker_pool_limit=int(os.environ["BENCH_SLOTS"]),  # replies of as many threads at once
    task_serializer="json",
    accept_content=["json"],
)


@app.task(name="echo")
def echo(message: str) -> dict[str, str]:
    """Return the message."""
    return {"received_message": message}


@app.task(name="sleep")
def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


@app.task(name="block")
def block(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)
