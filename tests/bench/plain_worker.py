"""The peer: what one would write by hand with aio-pika, and nothing more."""

import asyncio
import json
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


async def main(url: str, queue_name: str) -> None:
    """Consume, echo, reply with confirm, ack."""
    consuming = await aio_pika.connect_robust(url)
    publishing = await aio_pika.connect_robust(url)
    channel = await consuming.channel()
    await channel.set_qos(prefetch_count=100)
    replies = (await publishing.channel(publisher_confirms=True)).default_exchange
    queue = await channel.get_queue(queue_name)

    async def run(message: AbstractIncomingMessage) -> None:
        job = json.loads(message.body)
        result = {"id": job["id"], "data": {"received_message": job["params"]["message"]}}
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


asyncio.run(main(sys.argv[1], sys.argv[2]))
