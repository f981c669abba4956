"""FastStream on RabbitMQ, for a message that must not be lost.

- `NACK_ON_ERROR`, which the page names for retries after a failure:
  https://faststream.ag2.ai/latest/getting-started/acknowledgement/
- a prefetch, set at the channel: https://faststream.ag2.ai/latest/rabbit/prefetch/
- a reply queue: https://faststream.ag2.ai/latest/rabbit/rpc/#reply-to. The other way of that page, `request`, makes
  one call at a time (https://github.com/ag2ai/faststream/issues/1318), and most of the callers would time out.
"""

import asyncio
import os
import sys

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from tests.duel.callers import Said, hold_lines
from tests.duel.peers import booking
from tests.duel.plan import Plan

#: Messages that one worker handles at a time; without a limit it takes the whole queue.
PREFETCH = 20
QUEUE = RabbitQueue("bookings", durable=True)
REPLIES = RabbitQueue("replies", durable=True)

broker = RabbitBroker(
    os.environ["DUEL_RABBITMQ_URL"], default_channel=Channel(prefetch_count=PREFETCH), logger=None
)


async def worker() -> None:
    app = FastStream(broker, logger=None)

    @broker.subscriber(QUEUE, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def book(reference: str) -> str:
        return await booking.book(reference)

    @app.after_startup
    async def say_ready() -> None:
        print("ready", flush=True)

    await app.run()


async def callers(plan: Plan) -> None:
    replies: dict[str, asyncio.Future[Said]] = {}

    @broker.subscriber(REPLIES)
    async def take(message: RabbitMessage) -> None:
        waiting = replies.get(message.correlation_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(Said.BOOKED)

    async def call(reference: str) -> Said:
        reply: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        replies[reference] = reply
        await broker.publish(reference, QUEUE, reply_to="replies", correlation_id=reference, persist=True)
        return await reply

    async with broker:
        await broker.start()
        await hold_lines(plan, call)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(worker())
    else:
        asyncio.run(callers(Plan.from_json(os.environ["DUEL_PLAN"])))
