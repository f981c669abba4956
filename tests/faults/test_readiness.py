"""`/readyz` tells of each way to be useless within 10 s, and of its end within 10 s.

The ways that have tests elsewhere are in the table of `tests/README.md`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(120)]

#: Seconds within which a way to be useless must show, and its end.
NOTICED_S = 10.0


@dataclass(frozen=True, slots=True)
class Site:
    """What a worker depends on."""

    broker: PrivateRabbitMQ
    broker_url: str
    vault: PrivateOpenBao


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be useless."""

    #: The check that fails.
    check: str
    begin: Callable[[Site], Awaitable[None]]
    end: Callable[[Site], Awaitable[None]]


async def delete_queue(site: Site) -> None:
    with ExternalClient(site.broker_url, reply_queue=None) as client:
        client.channel.queue_delete("connectors.jobs.dummy")


async def forget_consumer(site: Site) -> None:
    """Take our consumer from the queue's own list; the channel, and so the worker, is told nothing."""
    vhost = site.broker_url.rpartition("/")[2]
    await site.broker.eval(
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"connectors.jobs.dummy">>)), '
        "[ra:process_command(amqqueue:get_pid(Q), "
        "rabbit_fifo:make_checkout({element(2, C), element(1, C)}, cancel, #{})) "
        "|| C <- rabbit_amqqueue:consumers(Q)]"
    )


async def hang_threads(site: Site) -> None:
    """Give up two calls that hold the connector's only thread and the one that replaced it."""
    with ExternalClient(site.broker_url) as client:
        for _ in range(2):
            deadline = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
            hanging = job("dummy", "block", {"seconds": 8}, deadline=deadline)
            await asyncio.to_thread(client.call, hanging)


async def heal_itself(site: Site) -> None:
    """Do nothing."""


WAYS = {
    "queue gone": Way("queues", delete_queue, heal_itself),
    "consumer forgotten": Way("queues", forget_consumer, heal_itself),
    "vault sealed": Way("credentials", lambda site: site.vault.seal(), lambda site: site.vault.unseal()),
    "threads hung": Way("actions", hang_threads, heal_itself),
}


async def until_failing(worker: WorkerProcess, check: str) -> None:
    async with asyncio.timeout(NOTICED_S):
        while True:
            answer = await worker.get("readyz")
            failing = {each["name"] for each in answer.json()["checks"] if not each["ok"]}
            if check in failing:
                assert 503 == answer.status_code
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_a_useless_worker_is_unready_until_it_is_of_use(
    rabbitmq: PrivateRabbitMQ,
    broker_url: str,
    openbao: PrivateOpenBao,
    start_worker: StartWorker,
    way: Way,
) -> None:
    site = Site(rabbitmq, broker_url, openbao)
    role = await openbao.enable_approle()
    worker = await start_worker(
        broker_url,
        enabled="dummy,http",
        concurrency="1",
        vault_url=openbao.url,
        vault_role_id=role.role_id,
        vault_secret_id=role.secret_id.get_secret_value(),
    )

    async with asyncio.TaskGroup() as both:
        both.create_task(until_failing(worker, way.check))
        await way.begin(site)
    await way.end(site)
    await worker.ready(NOTICED_S)
