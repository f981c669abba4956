"""What the way to the broker does to a connection: cuts, silence, slowness, false certificates."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartWorker
from tests.faults.answered import answers, publish
from tests.support.http_servers import make_authority
from tests.support.proxy import Proxy, proxy
from tests.support.rpc import ExternalClient, job
from worker.broker import BrokerError, Connection
from worker.dev.rabbitmq import PrivateRabbitMQ
from worker.tls import verifying_context

pytestmark = pytest.mark.faults

#: Bytes after which one connection after the other is cut: in the handshake, in the declarations, in frames.
STAIRWAY = [*range(1, 600, 60), *range(600, 5001, 400)]


@pytest.fixture
async def wire(rabbitmq: PrivateRabbitMQ) -> AsyncIterator[Proxy]:
    """A proxy before the shared broker."""
    async with proxy(rabbitmq.amqp_port) as served:
        yield served


def _through(wire: Proxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{wire.port}/")


async def test_f07_connections_cut_after_any_number_of_bytes_lose_nothing(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    wire.cuts = iter(STAIRWAY)
    worker = await start_worker(_through(wire, broker_url), ready=False)

    while wire.accepted < 4:  # its queues and its link
        await asyncio.sleep(0.05)
    await worker.until_logged("queue consumer started")
    sent = await publish(broker_url, 100)
    while wire.accepted <= len(STAIRWAY):
        await asyncio.sleep(0.5)
        wire.reset()  # those that were not used up to their step
    await worker.ready(60)

    assert set(sent) == set(await answers(broker_url, sent))


async def test_f08_f09_silence_is_noticed_and_slowness_borne(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    worker = await start_worker(_through(wire, broker_url), failing=True, HEARTBEAT_S="2")
    wire.latency_s = 0.15
    slow = await publish(broker_url, 100)
    assert set(slow) == set(await answers(broker_url, slow))
    wire.latency_s = 0.0

    sent = await publish(broker_url, 20, "sleep")
    await asyncio.sleep(0.3)
    wire.half_open()  # the jobs end, and neither answers nor acks arrive
    await worker.until_logged("queue consumer lost its connection", 60)
    wire.pass_all()
    await worker.ready(40)

    assert set(sent) == set(await answers(broker_url, sent))


async def test_a_black_hole_or_reset_is_retried_until_it_passes(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    wire.refuse()
    worker = await start_worker(_through(wire, broker_url), ready=False)
    await worker.until_logged("broker unreachable")
    wire.pass_all()
    wire.blackhole()
    accepted = wire.accepted
    await worker.until(lambda: wire.accepted > accepted, 40, "a try into the black hole")
    wire.pass_all()
    await worker.ready(60)

    sent = await publish(broker_url, 1)
    assert set(sent) == set(await answers(broker_url, sent))


@pytest.mark.parametrize("fault", [None, "expired", "wrong host", "CA changed", "no CA"])
async def test_f27_only_a_valid_certificate_of_the_trusted_authority_is_accepted(
    broker_url: str, rabbitmq: PrivateRabbitMQ, tmp_path: Path, fault: str | None
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    host = "elsewhere.example" if fault == "wrong host" else "127.0.0.1"
    authority = make_authority(first, host, expired=fault == "expired")
    trusted = make_authority(second, host) if fault == "CA changed" else authority
    context = verifying_context(None if fault == "no CA" else trusted.ca_file)

    async with proxy(rabbitmq.amqp_port, tls=authority.server) as wire:
        url = _through(wire, broker_url).replace("amqp:", "amqps:")
        if fault is None:
            connection = await Connection.open(url, name="test", tls=context)
            await connection.close()
        else:
            with pytest.raises(BrokerError, match="certificate"):
                await Connection.open(url, name="test", tls=context)


async def test_f24_a_direct_reply_outlives_a_hang_of_its_link(
    broker_url: str, wire: Proxy, start_worker: StartWorker
) -> None:
    worker = await start_worker(_through(wire, broker_url), failing=True, HEARTBEAT_S="2")

    def call() -> list[dict[str, object]]:
        with ExternalClient(broker_url, reply_queue="amq.rabbitmq.reply-to") as client:
            first = client.call(job("dummy", "ping"))
            sent = client.send(job("dummy", "sleep", {"seconds": 1}))
            client.process(0.5)
            loop.call_soon_threadsafe(wire.blackhole)
            client.process(5)
            loop.call_soon_threadsafe(wire.pass_all)
            return [first, client.wait([sent], 60)[sent][0]]

    loop = asyncio.get_running_loop()
    replies = await asyncio.to_thread(call)

    assert ["succeeded"] * 2 == [reply["status"] for reply in replies]
    await worker.ready()
