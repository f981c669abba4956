"""What a publisher imports."""

import asyncio

import pytest

from schemas.error import Code
from schemas.job import Job
from tests.conftest import StartWorker
from worker.broker import BrokerError
from worker.client import ConnectorsClient, ConnectorsError, NoReply
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.integration


async def test_many_calls_in_flight_each_get_their_own_answer(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    async with ConnectorsClient(broker_url) as client:
        results = await asyncio.gather(
            *(client.call("dummy", "echo", {"message": str(n)}, timeout_s=20) for n in range(500))
        )

    assert [str(n) for n in range(500)] == [result.data["received_message"] for result in results]


async def test_a_failure_is_raised_with_its_code_and_the_whole_answer(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    async with ConnectorsClient(broker_url) as client:
        with pytest.raises(ConnectorsError) as caught:
            await client.call("dummy", "fail", {"code": "NOT_FOUND"}, locale="tr", metadata={"call": "1"})

    assert Code.NOT_FOUND is caught.value.code
    assert "Bunu bulamadım." == caught.value.error.say
    assert {"call": "1"} == caught.value.result.metadata


async def test_progress_is_reported_if_asked_for(broker_url: str, start_worker: StartWorker) -> None:
    await start_worker(broker_url)
    stages: list[str] = []

    async with ConnectorsClient(broker_url) as client:
        await client.call("dummy", "ping", on_progress=lambda progress: stages.append(progress.stage))

    assert ["accepted", "started"] == stages


async def test_the_timeout_is_the_deadline_too(broker_url: str, start_worker: StartWorker) -> None:
    await start_worker(broker_url)

    async with ConnectorsClient(broker_url) as client:
        with pytest.raises(ConnectorsError, match="DEADLINE_EXCEEDED"):
            await client.call("dummy", "sleep", {"seconds": 20}, timeout_s=0.5)


async def test_without_a_worker_there_is_no_reply(broker_url: str, start_worker: StartWorker) -> None:
    worker = await start_worker(broker_url)
    worker.kill()

    async with ConnectorsClient(broker_url) as client:
        with pytest.raises(NoReply, match="is a worker running"):
            await client.call("dummy", "ping", timeout_s=0.2)


async def test_if_no_worker_ever_ran_that_is_the_reason(broker_url: str) -> None:
    async with ConnectorsClient(broker_url) as client:
        with pytest.raises(BrokerError, match="has a worker ever run"):
            await client.publish(Job(id="a", connector="dummy", action="ping"), timeout_s=0.5)


async def test_a_refused_login_is_said_without_the_password(broker_url: str) -> None:
    password = broker_url.split(":")[2].partition("@")[0]

    with pytest.raises(BrokerError) as caught:
        await ConnectorsClient(broker_url.replace("//connectors", "//nobody")).__aenter__()

    assert "nobody" in str(caught.value)
    assert password not in str(caught.value)


@pytest.mark.faults
async def test_calls_in_flight_survive_the_brokers_death(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    worker = await start_worker(own_rabbitmq.url)

    async with ConnectorsClient(own_rabbitmq.url) as client:
        calls = [
            asyncio.create_task(client.call("dummy", "sleep", {"seconds": 2}, timeout_s=60))
            for _ in range(20)
        ]
        await worker.until(lambda: not any(call.done() for call in calls))
        await asyncio.sleep(1)
        await own_rabbitmq.kill()
        await own_rabbitmq.restart()
        results = await asyncio.gather(*calls)

    assert {"succeeded"} == {result.status for result in results}
