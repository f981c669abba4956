"""Settling a delivery on a connection that is dying."""

import asyncio
from types import SimpleNamespace
from typing import Any

from worker.broker import Delivery, Properties


def delivery_on(queue: "asyncio.Queue[str]", closing: "asyncio.Future[None]") -> Delivery:
    async def ack(*_: Any, **__: Any) -> None:
        await queue.put("ack")

    connection = SimpleNamespace(write_queue=queue, closing=closing)
    channel: Any = SimpleNamespace(is_closed=False, connection=connection, basic_ack=ack)
    return Delivery(b"", "dummy.ping", Properties(), False, 0, 1, channel)


async def test_an_ack_that_waits_for_a_dying_connection_ends_with_it() -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
    queue.put_nowait("what nobody writes any more")
    closing = asyncio.get_running_loop().create_future()
    acking = asyncio.create_task(delivery_on(queue, closing).ack())
    await asyncio.sleep(0)

    closing.set_result(None)

    async with asyncio.timeout(1):
        assert not await acking
    assert 1 == queue.qsize()


async def test_an_ack_behind_others_is_sent_in_its_turn() -> None:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
    queue.put_nowait("before")
    acking = asyncio.create_task(delivery_on(queue, asyncio.get_running_loop().create_future()).ack())
    await asyncio.sleep(0)

    assert "before" == queue.get_nowait()

    assert await acking
    assert "ack" == queue.get_nowait()
