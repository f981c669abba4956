"""taskiq on RabbitMQ: results go to a queue of replies, and a task is acked once its result is saved."""

import asyncio
import os
import time
from typing import Any

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractRobustConnection
from taskiq import AsyncResultBackend, TaskiqResult
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue, QueueType

SLOTS = int(os.environ["BENCH_SLOTS"])
URL = os.environ["BENCH_URL"]


class Replies(AsyncResultBackend[Any]):
    """Publishes each result with a confirm; taskiq has no result backend of its own for RabbitMQ."""

    connection: AbstractRobustConnection
    exchange: AbstractExchange

    async def startup(self) -> None:
        """Connect."""
        self.connection = await aio_pika.connect_robust(URL)
        self.exchange = (await self.connection.channel(publisher_confirms=True)).default_exchange

    async def shutdown(self) -> None:
        """Close the connection."""
        await self.connection.close()

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Publish."""
        message = aio_pika.Message(
            result.model_dump_json().encode(),
            correlation_id=task_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self.exchange.publish(message, routing_key="replies", mandatory=True)

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """Refuse: callers consume the replies."""
        raise LookupError(task_id)

    async def is_result_ready(self, task_id: str) -> bool:
        """Return false: nothing is kept here."""
        return False


broker = AioPikaBroker(
    URL, qos=SLOTS, result_backend=Replies(), task_queues=[Queue(name="bench", type=QueueType.QUORUM)]
)


@broker.task("echo")
async def echo(message: str) -> dict[str, str]:
    """Return the message."""
    return {"received_message": message}


@broker.task("sleep")
async def sleep(seconds: float) -> None:
    """Wait as an asynchronous client does."""
    await asyncio.sleep(seconds)


@broker.task("block")
def block(seconds: float) -> None:
    """Wait as a synchronous client does."""
    time.sleep(seconds)
