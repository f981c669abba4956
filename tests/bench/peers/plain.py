"""The peer: what one would write by hand with aio-pika, and nothing more."""

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

SLOTS = int(os.environ["BENCH_SLOTS"])


async def act(action: str, params: dict[str, Any]) -> Any:
    """Run one action."""
    if action == "echo":
        return {"received_message": params["message"]}
    if action == "sleep":
        return await asyncio.sleep(params["seconds"])
    return await asyncio.to_thread(time.sleep, params["seconds"])


async def main() -> None:
    """Consume, act, reply with confirm, ack."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SLOTS))
    consuming = await aio_pika.connect_robust(os.environ["BENCH_URL"])
    publishing = await aio_pika.connect_robust(os.environ["BENCH_URL"])
    channel = await consuming.channel()
    await channel.set_qos(prefetch_count=SLOTS)
    replies = (await publishing.channel(publisher_confirms=True)).default_exchange
    queue = await channel.declare_queue("bench", durable=True, arguments={"x-queue-type": "quorum"})

    async def run(message: AbstractIncomingMessage) -> None:
        job = json.loads(message.body)
        result = {"id": job["id"], "data": await act(job["action"], job["params"])}
        await replies.publish(
            aio_pika.Message(
                json.dumps(result).encode(),
                correlation_id=message.correlation_id,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            routing_key=message.reply_to or "",
            mandatory=True,
        )
        await message.ack()

    await queue.consume(run)
    await asyncio.Event().wait()


asyncio.run(main())
