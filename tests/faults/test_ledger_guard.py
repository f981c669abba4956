"""Two ledgers on one broker: found out at the start, after a restart, and once an unreachable one is back."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import StartWorker
from tests.support.provider import Provider
from tests.support.proxy import proxy
from tests.support.rpc import ExternalClient, job
from worker.dev.postgres import PrivatePostgres
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


async def test_a_worker_with_another_ledger_ends_with_78(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    await start_worker(broker_url)

    other = await start_worker(broker_url, ready=False, database_url=f"sqlite:///{tmp_path / 'other.db'}")

    assert 78 == await other.wait()
    assert "CONNECTORS_DATABASE_URL" in other.log_tail(1)


async def test_a_worker_with_an_unproven_ledger_writes_nothing_and_exits_78(
    broker_url: str, start_worker: StartWorker, postgres: PrivatePostgres
) -> None:
    database = await postgres.create_database(f"test_{uuid4().hex}")
    provider = Provider()
    await provider.start()
    async with proxy(postgres.port) as wire:
        wire.refuse()
        try:
            settings = {"enabled": "effects", "EFFECTS_URL": provider.url}
            late = await start_worker(
                broker_url,
                ready=False,
                database_url=database.replace(f":{postgres.port}/", f":{wire.port}/"),
                **settings,
            )
            await late.until_logged("queue consumer started", count=3)
            first = await start_worker(broker_url, **settings)
            with ExternalClient(broker_url) as external:
                sent = [
                    external.send(job("effects", "linger", {"seconds": 0}, idempotency_key=f"k{number}"))
                    for number in range(10)
                ]
                await asyncio.to_thread(external.process, 1)
                wire.pass_all()
                assert 78 == await late.wait()
                replies = await asyncio.to_thread(external.wait, sent)
        finally:
            await provider.stop()

    assert {"succeeded"} == {reply["status"] for copies in replies.values() for reply in copies}
    assert 10 == len(set(provider.journal)) == len(provider.journal)
    assert first.is_running


async def test_after_a_restart_of_the_broker_one_of_two_ledgers_ends_with_78(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker, tmp_path: Path
) -> None:
    url = own_rabbitmq.url
    first = await start_worker(url)
    await own_rabbitmq.ctl(
        "eval",
        'rabbit_exchange:delete({resource, <<"/">>, exchange, <<"connectors.ledger">>}, false, <<"test">>).',
    )
    other = await start_worker(url, database_url=f"sqlite:///{tmp_path / 'other.db'}")

    await own_rabbitmq.kill()
    await own_rabbitmq.restart()
    while first.is_running and other.is_running:
        await asyncio.sleep(0.2)
    loser, winner = (first, other) if not first.is_running else (other, first)

    assert 78 == await loser.wait()
    await winner.ready(40)
