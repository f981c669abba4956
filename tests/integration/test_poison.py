"""What the broker dead-letters by itself is counted by its reason, whatever is in it."""

import asyncio

import pytest

from tests.support.frames import BAD_FRAMES, FramePublisher
from tests.support.rpc import ExternalClient, job
from worker.admin.poison import count_poison
from worker.broker import Connection, declare
from worker.broker.topology import Topology

pytestmark = pytest.mark.integration


async def test_expired_jobs_are_told_from_what_no_client_can_decode(broker_url: str) -> None:
    topology = Topology()
    connection = await Connection.open(broker_url, name="test")
    await declare(connection, list(topology.exchanges()), [*topology.queues(), topology.job_queue("dummy")])

    def publish() -> None:
        with ExternalClient(broker_url) as client, FramePublisher(broker_url) as frames:
            for _ in range(3):
                client.send(job("dummy", "ping"), expiration="1")
            for flags, properties in BAD_FRAMES.values():
                frames.publish(topology.poison, "dummy.ping", b"{}", flags, properties)
            wanted = 3 + len(BAD_FRAMES)
            client.until(lambda: client.depth(topology.poison) == wanted, 20, lambda: "the poison")

    await asyncio.to_thread(publish)
    first = await count_poison(connection, topology.poison)
    async with asyncio.timeout(20):  # what was looked at goes back when the broker has noticed
        while (again := await count_poison(connection, topology.poison)) != first:
            await asyncio.sleep(0.1)
    await connection.close()

    assert {"expired": 3, "that": len(BAD_FRAMES)} == {reason.split()[0]: n for reason, n in first.items()}
    assert first == again
