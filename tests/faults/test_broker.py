"""The broker dies, hangs, hangs up, runs full, loses a queue: nothing is lost, and the worker comes back."""

import asyncio
import time
from uuid import uuid4

import pytest

from tests.conftest import StartWorker
from tests.support.frames import BAD_FRAMES, FramePublisher
from tests.support.rpc import Stranger, job
from tests.support.worker_process import WorkerProcess
from worker.dev.rabbitmq import PrivateRabbitMQ

pytestmark = pytest.mark.faults

REPLIES = "callers.replies"


async def _publish(url: str, count: int, action: str = "echo", seconds: float = 1) -> list[str]:
    """Publish jobs whose replies wait in a durable queue; the caller hangs up."""

    def publish() -> list[str]:
        with Stranger(url, reply_queue=REPLIES, collects=False) as stranger:
            stranger.channel.confirm_delivery()
            params = {"message": "x" * 100} if action == "echo" else {"seconds": seconds}
            return [stranger.send(job("dummy", action, params)) for _ in range(count)]

    return await asyncio.to_thread(publish)


async def _answers(url: str, sent: list[str], timeout_s: float = 60) -> dict[str, int]:
    """Collect the replies, and count them by correlation id."""

    def collect() -> dict[str, int]:
        with Stranger(url, reply_queue=REPLIES) as stranger:
            replies = stranger.wait(sent, timeout_s)
            assert 0 == stranger.depth("connectors.dead")
            return {each: len(copies) for each, copies in replies.items()}

    return await asyncio.to_thread(collect)


async def test_kill_9_of_the_broker_during_a_thousand_jobs_loses_none(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    worker = await start_worker(own_rabbitmq.url)
    sent = await _publish(own_rabbitmq.url, 1000)
    await worker.until_logged("job finished", count=100)

    await own_rabbitmq.kill()
    await worker.until_logged("lane lost its connection")
    assert (await worker.get("readyz")).status_code == 503
    await own_rabbitmq.restart()
    back_at = time.monotonic()
    await worker.ready(15)

    assert time.monotonic() - back_at < 10
    assert set(sent) == set(await _answers(own_rabbitmq.url, sent))


async def test_a_running_job_is_not_cut_short_by_a_lost_connection_and_runs_once(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    worker = await start_worker(own_rabbitmq.url)
    sent = await _publish(own_rabbitmq.url, 5, "sleep")
    await worker.until(lambda: "connectors.jobs.dummy" in worker.log_path.read_text())

    await own_rabbitmq.ctl("close_all_connections", "test")
    await worker.until_logged("lane lost its connection", count=3)

    answers = await _answers(own_rabbitmq.url, sent)
    assert set(sent) == set(answers)
    await worker.until_logged("job finished", count=5)
    assert 5 == len({line["job_id"] for line in worker.logged("job finished")})


async def test_a_hung_broker_is_noticed_and_nothing_is_lost(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    worker = await start_worker(own_rabbitmq.url)
    sent = await _publish(own_rabbitmq.url, 50, "sleep")
    await asyncio.sleep(0.3)

    own_rabbitmq.pause()
    try:
        await worker.until_logged("lane lost its connection", timeout_s=60)
    finally:
        own_rabbitmq.resume()
    await worker.ready(40)

    assert set(sent) == set(await _answers(own_rabbitmq.url, sent))


async def test_a_memory_alarm_pauses_intake_and_loses_nothing(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    worker = await start_worker(own_rabbitmq.url)
    sent = await _publish(own_rabbitmq.url, 20, "sleep", seconds=8)

    await own_rabbitmq.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    await worker.until_logged("lane paused")
    ready = (await worker.get("readyz")).status_code
    await own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    await worker.ready(40)

    assert 503 == ready
    assert set(sent) == set(await _answers(own_rabbitmq.url, sent))


async def test_a_deleted_lane_is_declared_again(broker_url: str, start_worker: StartWorker) -> None:
    worker = await start_worker(broker_url)

    with Stranger(broker_url) as stranger:
        stranger.channel.queue_delete("connectors.jobs.dummy")
        await worker.until_logged("lane cannot consume")
        await worker.ready()
        reply = stranger.call(job("dummy", "ping"))

    assert "pong" == reply["data"]


async def test_a_queue_with_other_arguments_is_named_with_the_difference_and_ends_in_78(
    broker_url: str, start_worker: StartWorker
) -> None:
    with Stranger(broker_url, reply_queue=None) as stranger:
        arguments = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "connectors.poison",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        stranger.channel.queue_declare("connectors.jobs.dummy", durable=True, arguments=arguments)

    worker = await start_worker(broker_url, ready=False)

    assert 78 == await worker.wait()
    last = worker.log_tail(1)
    assert "connectors.jobs.dummy" in last
    assert "x-delivery-limit" in last
    assert "Traceback" not in worker.log_path.read_text()


async def test_a_broker_that_is_absent_at_start_is_waited_for(
    own_rabbitmq: PrivateRabbitMQ, start_worker: StartWorker
) -> None:
    await own_rabbitmq.kill()
    worker = await start_worker(own_rabbitmq.url, ready=False)
    await worker.until_logged("broker unreachable")
    await own_rabbitmq.restart()
    await worker.ready(15)

    sent = await _publish(own_rabbitmq.url, 1)
    assert set(sent) == set(await _answers(own_rabbitmq.url, sent))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda url: url.replace("//connectors:", "//nobody:"), "nobody"),
        (lambda url: url + "-elsewhere", "virtual host"),
    ],
    ids=["user", "vhost"],
)
async def test_a_refused_login_is_one_clear_line_and_ends_in_78(
    broker_url: str, start_worker: StartWorker, change: object, named: str
) -> None:
    worker = await start_worker(change(broker_url), ready=False)  # type: ignore[operator]

    assert 78 == await worker.wait()
    assert named in worker.log_tail(1)
    password = broker_url.split(":")[2].split("@")[0]
    assert password not in worker.log_path.read_text()


async def test_undecodable_frames_among_a_thousand_jobs_end_in_poison_and_hurt_no_other(
    broker_url: str, start_worker: StartWorker
) -> None:
    """B01-B09: a frame that the client library cannot read kills its connection."""
    worker = await start_worker(broker_url)

    def publish() -> list[str]:
        with (
            Stranger(broker_url, reply_queue=REPLIES, collects=False) as stranger,
            FramePublisher(broker_url) as frames,
        ):
            sent = []
            bad = list(BAD_FRAMES.values())
            for number in range(1000):
                sent.append(stranger.send(job("dummy", "echo", {"message": uuid4().hex})))
                if number % 100 == 50 and bad:
                    frames.publish("connectors.jobs", "dummy.echo", b"{}", *bad.pop())
            return sent

    sent = await asyncio.to_thread(publish)
    answers = await _answers(broker_url, sent, 100)

    def poisoned() -> int:
        with Stranger(broker_url, reply_queue=None) as stranger:
            stranger.until(
                lambda: stranger.depth("connectors.poison") == len(BAD_FRAMES), 90, lambda: "the poison"
            )
            return stranger.depth("connectors.poison")

    assert set(sent) == set(answers)
    assert len(BAD_FRAMES) == await asyncio.to_thread(poisoned)
    await _is_calm(worker)


async def _is_calm(worker: WorkerProcess) -> None:
    await worker.ready()
    assert (await worker.get("healthz")).status_code == 200
