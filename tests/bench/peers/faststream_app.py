"""FastStream: a subscriber that returns its reply; acked after the reply is published (`AckPolicy`)."""

import asyncio
import os
import time
from typing import Any

import anyio
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue, RabbitResponse

SLOTS = int(os.environ["BENCH_SLOTS"])

broker = RabbitBroker(os.environ["BENCH_URL"], logger=None)
app = FastStream(broker, logger=None)
queue = RabbitQueue("bench", durable=True, queue_type=QueueType.QUORUM)


@app.on_startup
async def allow_threads() -> None:
    """Give synchronous calls as many threads as there are slots; anyio's default is 40."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = SLOTS


@broker.subscriber(queue, channel=Channel(prefetch_count=SLOTS), ack_policy=AckPolicy.NACK_ON_ERROR)
async def run(id: str, action: str, params: dict[str, Any]) -> RabbitResponse:
    """Run one action; the framework publishes what is returned to `reply_to`, with a confirm."""
    data: Any = None
    if action == "echo":
        data = {"received_message": params["message"]}
    elif action == "sleep":
        await asyncio.sleep(params["seconds"])
    else:
        await anyio.to_thread.run_sync(time.sleep, params["seconds"])
    return RabbitResponse({"id": id, "data": data}, persist=True)
