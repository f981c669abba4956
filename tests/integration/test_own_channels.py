"""Messages over channels of our own, on a real broker."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from worker.broker import BrokerRefusal, Connection, Delivery, Properties, PublishRefused

pytestmark = pytest.mark.integration


async def queue_on(connection: Connection) -> str:
    """Declare a queue that goes with the connection."""
    name = f"test.{uuid4().hex}"
    await (await connection.channel()).queue_declare(name, exclusive=True)
    return name


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_a_body_of_any_size_comes_back_byte_for_byte(broker_url: str, size: int) -> None:
    connection = await Connection.open(broker_url, name="test")
    queue, body = await queue_on(connection), b"x" * size
    came: asyncio.Queue[Delivery] = asyncio.Queue()
    consumer = await connection.consumer(queue, came.put_nowait)
    await consumer.consume(10)
    publisher = await connection.publish_channel()
    properties = Properties(correlation_id="c", headers={"n": 1, "deep": {"list": [None, True, 1.5]}})

    assert await publisher.publish("", queue, body, properties)
    delivery = await asyncio.wait_for(came.get(), 10)

    assert body == delivery.body
    assert ("c", properties.headers) == (delivery.properties.correlation_id, delivery.properties.headers)
    assert 1 == consumer.unsettled
    assert await delivery.ack()
    assert 0 == consumer.unsettled
    await connection.close()
    assert not await delivery.ack(), "its channel has ended"


async def test_acks_leave_nothing_behind_and_requeued_ones_come_again(broker_url: str) -> None:
    connection = await Connection.open(broker_url, name="test")
    queue, seen = await queue_on(connection), []
    settling: set[asyncio.Task[bool]] = set()
    all_done = asyncio.Event()

    def receive(delivery: Delivery) -> None:
        seen.append(delivery.redelivered)
        again = not delivery.redelivered and len(seen) % 3 == 0
        settling.add(asyncio.create_task(delivery.requeue() if again else delivery.ack()))
        if sum(seen) == 33 and len(seen) == 133:
            all_done.set()

    publisher = await connection.publish_channel()
    await asyncio.gather(*(publisher.publish("", queue, b"%d" % n, Properties()) for n in range(100)))
    consumer = await connection.consumer(queue, receive)
    await consumer.consume(200)
    await asyncio.wait_for(all_done.wait(), 20)
    await asyncio.gather(*settling)
    await consumer.close()

    assert (0, 0) == await connection.count(queue)
    await connection.close()


async def test_of_many_published_the_unroutable_ones_are_returned(broker_url: str) -> None:
    connection = await Connection.open(broker_url, name="test")
    queue = await queue_on(connection)
    publisher = await connection.publish_channel()

    routed = await asyncio.gather(
        *(publisher.publish("", queue if n % 2 else "nobody.here", b"x", Properties()) for n in range(200))
    )

    assert [bool(n % 2) for n in range(200)] == routed
    await connection.close()


async def test_a_missing_exchange_is_a_refusal_and_the_connection_lives(broker_url: str) -> None:
    connection = await Connection.open(broker_url, name="test")
    publisher = await connection.publish_channel()

    with pytest.raises(PublishRefused, match="no exchange") as refused:
        await publisher.publish("nowhere", "k", b"x", Properties())

    assert refused.value.refusal is BrokerRefusal.MISSING
    assert not publisher.is_open
    assert connection.is_open
    assert await (await connection.publish_channel()).publish(
        "", await queue_on(connection), b"", Properties()
    )
    await connection.close()


async def test_a_deleted_queue_is_noticed_by_its_consumer(broker_url: str) -> None:
    connection = await Connection.open(broker_url, name="test")
    queue = await queue_on(connection)
    consumer = await connection.consumer(queue, lambda _: None)
    await consumer.consume(1)

    await connection.remove_queue(queue)

    assert "the broker cancelled the consumer" in await asyncio.wait_for(consumer.ended(), 10)
    await connection.close()


async def test_more_in_flight_than_the_budget_waits_at_the_broker(broker_url: str) -> None:
    """100 messages of 1 MiB: at most 64 MiB and what was on its way are in memory at once."""
    connection = await Connection.open(broker_url, name="test")
    queue, held, most = await queue_on(connection), [], 0
    publisher = await connection.publish_channel()
    for _ in range(100):
        await publisher.publish("", queue, bytes(2**20), Properties())
    came = asyncio.Event()

    def receive(delivery: Delivery) -> None:
        held.append(delivery)
        came.set()

    consumer = await connection.consumer(queue, receive)
    await consumer.consume(200)
    settled = 0
    async with asyncio.timeout(60):
        while settled < 100:
            while not held or (len(held) < 65 and settled + len(held) < 100 and not _is_paused(consumer)):
                came.clear()
                await came.wait()
            most = max(most, len(held))
            assert not _is_paused(consumer) or (0, 1) == await consumer.count(), "nothing can be answered now"
            for delivery in held:
                await delivery.ack()
            settled += len(held)
            held.clear()

    assert 60 <= most <= 66
    assert connection.is_open
    await connection.close()


def _is_paused(consumer: Any) -> bool:
    return bool(consumer._channel.socket.is_paused)
