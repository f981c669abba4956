"""The client through the worker's own faults: each call is answered, or told the true reason in its time."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pika
import pytest

from tests.conftest import StartWorker
from tests.support.proxy import Proxy, proxy
from tests.support.rpc import ExternalClient
from worker.broker import BrokerError
from worker.client import ConnectorsClient, ConnectorsError, NoReply, UnreadableReply
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.fixture
async def wire(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[Proxy]:
    """A proxy before the broker."""
    async with proxy(rabbitmq.amqp_port) as wire:
        yield wire


def through(wire: Proxy, url: str) -> str:
    """Return the URL with the proxy's port."""
    head, _, rest = url.rpartition(":")
    return f"{head}:{wire.port}/{rest.partition('/')[2]}"


async def ping(client: ConnectorsClient, timeout_s: float = 20) -> Any:
    """Call once; return the data."""
    return (await client.call("dummy", "ping", timeout_s=timeout_s)).data


async def test_a_broker_that_is_down_at_start_is_waited_for(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    wire.refuse()
    async with ConnectorsClient(through(wire, broker_url)) as client:
        with pytest.raises(NoReply, match=r"cannot be reached|broke off|hung up"):
            await ping(client, 0.5)
        calling = asyncio.create_task(ping(client))
        await asyncio.sleep(0)

        wire.pass_all()

        assert "pong" == await calling


async def test_a_first_call_before_any_worker_is_answered_once_one_runs(
    broker_url: str, start_worker: StartWorker
) -> None:
    async with ConnectorsClient(broker_url) as client:
        with pytest.raises(NoReply, match="has a worker ever run on this broker"):
            await ping(client, 0.5)
        calling = asyncio.create_task(ping(client, 60))

        await start_worker(broker_url)

        assert "pong" == await calling
        assert "pong" == await ping(client)


async def test_a_deleted_reply_queue_is_made_again_and_its_calls_sent_again(
    broker_url: str, rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    vhost = broker_url.rpartition("/")[2]
    async with ConnectorsClient(broker_url) as client:
        assert "pong" == await ping(client)
        calling = asyncio.create_task(client.call("dummy", "sleep", {"seconds": 1}, timeout_s=30))
        await asyncio.sleep(0.3)

        listed = await rabbitmq.ctl("list_queues", "-p", vhost, "name", "consumers")
        (name,) = [
            line.split()[0]
            for line in listed.splitlines()
            if line.startswith("amq.gen") and line.split()[1] == "1"
        ]
        await rabbitmq.ctl("delete_queue", "-p", vhost, name, "--if-empty")

        assert "succeeded" == (await calling).status
        assert "pong" == await ping(client)


async def test_a_connection_cut_twice_within_a_second_heals(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    async with ConnectorsClient(through(wire, broker_url)) as client:
        assert "pong" == await ping(client)
        calls = [
            asyncio.create_task(client.call("dummy", "sleep", {"seconds": 1}, timeout_s=30))
            for _ in range(10)
        ]
        await asyncio.sleep(0.2)

        wire.reset()
        accepted = wire.accepted
        while wire.accepted == accepted:
            await asyncio.sleep(0.01)
        wire.reset()

        assert {"succeeded"} == {result.status for result in await asyncio.gather(*calls)}
        assert "pong" == await ping(client)
        assert wire.accepted < 20, "half-opened connections pile up"


async def test_an_alarm_is_the_reason_and_a_longer_call_outlives_it(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    await start_worker(own_rabbitmq.url)
    async with ConnectorsClient(own_rabbitmq.url) as client:
        assert "pong" == await ping(client)
        await own_rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        blocked = asyncio.create_task(ping(client, 60))
        with pytest.raises(NoReply, match="alarm"):
            await ping(client, 1)

        await own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")

        assert "pong" == await blocked


async def test_a_job_that_the_broker_refuses_fails_at_once_and_hurts_no_other(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    async with ConnectorsClient(broker_url) as client, ConnectorsClient(broker_url, user_id="x") as forged:
        slow = asyncio.create_task(client.call("dummy", "sleep", {"seconds": 1}, timeout_s=20))
        began = time.monotonic()
        with pytest.raises(BrokerError, match="user_id"):
            await ping(forged)

        assert time.monotonic() - began < 5
        assert "succeeded" == (await slow).status


def answer(external: ExternalClient, body: dict[str, Any] | bytes) -> None:
    """Answer the next job as another worker would."""

    def taken() -> bool:
        method, properties, _ = external.channel.basic_get("connectors.jobs.dummy", auto_ack=True)
        if method is None:
            return False
        external.channel.basic_publish(
            "",
            properties.reply_to,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            pika.BasicProperties(correlation_id=properties.correlation_id, type="connectors.result"),
        )
        return True

    external.until(taken, 20, lambda: "a job")


def newer(**fields: Any) -> dict[str, Any]:
    """A reply of a newer worker."""
    now = datetime.now(UTC).isoformat()
    return {
        "version": 1,
        "id": "x",
        "connector": "dummy",
        "action": "ping",
        "status": "succeeded",
        "data": "pong",
        "started_at": now,
        "finished_at": now,
        "duration_ms": 1.0,
        "cost": {"currency": "EUR"},
        **fields,
    }


NEW_ERROR = {
    "code": "QUOTA_OF_THE_MOON",
    "category": "celestial",
    "message": "the moon is full",
    "say": "Not tonight.",
    "retryable": False,
    "hint": "wait",
    "details": [{"field": "moon", "issue": "full", "phase": 1}],
}


async def test_a_newer_workers_reply_is_read_for_what_is_known(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)
    worker.kill()
    with ExternalClient(broker_url, reply_queue=None) as external:
        async with ConnectorsClient(broker_url) as client:
            calling = asyncio.create_task(ping(client))
            await asyncio.to_thread(answer, external, newer())
            assert "pong" == await calling

            calling = asyncio.create_task(ping(client))
            await asyncio.to_thread(answer, external, newer(status="failed", data=None, error=NEW_ERROR))
            with pytest.raises(ConnectorsError, match="QUOTA_OF_THE_MOON: the moon is full") as failed:
                await calling
            assert "QUOTA_OF_THE_MOON" == failed.value.code
            assert "Not tonight." == failed.value.error.say

            calling = asyncio.create_task(ping(client))
            await asyncio.to_thread(answer, external, b"[]")
            with pytest.raises(UnreadableReply, match="not a JSON object"):
                await calling
