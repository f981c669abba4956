"""Three nodes on one machine: the leader dies during load, and nothing is lost."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import StartWorker
from tests.faults.answered import answers, publish
from worker.dev.rabbitmq_cluster import PrivateCluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(280)]


async def test_f26_a_killed_leader_loses_no_job_and_no_answer(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    async with PrivateCluster(tmp_path / "cluster") as cluster:
        # A worker on each of two nodes; on SQLite they share one ledger.
        workers = [await start_worker(url, ready=False) for url in cluster.urls[:2]]
        await asyncio.gather(*(worker.ready(90) for worker in workers))
        leader = await cluster.leader_of("connectors.jobs.dummy")
        follower = next(node for node in cluster.nodes if node is not leader)
        publishing = asyncio.create_task(publish(follower.url, 1000))
        await workers[0].until(lambda: any(worker.logged("job finished") for worker in workers), 60)

        await leader.kill()
        sent = await publishing
        await cluster.leader_of("connectors.jobs.dummy")
        answered = await answers(follower.url, sent, 120)
        await leader.restart()
        await asyncio.gather(*(worker.ready(90) for worker in workers))
        later = await publish(leader.url, 10)

        assert set(sent) == set(answered)
        assert set(later) == set(await answers(leader.url, later))
