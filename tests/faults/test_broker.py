"""The broker dies, hangs, hangs up, runs full, loses a queue: nothing is lost, and the worker comes back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.conftest import StartWorker
from tests.faults.answered import REPLIES, answers, publish
from tests.support.frames import BAD_FRAMES, FramePublisher, callers_own, nested_tables, odd_timestamps
from tests.support.provider import Provider
from tests.support.rpc import DIRECT, ExternalClient, job
from worker.dev.rabbitmq import PrivateRabbitMQ

# One process runs them all, on one broker that they kill in turn.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(280), pytest.mark.xdist_group("broker")]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """A broker of this module's own."""
    broker = PrivateRabbitMQ(tmp_path_factory.mktemp("victim"))
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.stop())


@pytest.fixture
async def victim_url(victim: PrivateRabbitMQ) -> AsyncIterator[str]:
    """A virtual host on it for this test alone."""
    name = f"test-{uuid4().hex[:12]}"
    yield await victim.add_vhost(name)
    await victim.delete_vhost(name)


async def test_f01_kill_9_of_the_broker_during_a_thousand_jobs_loses_none(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    sent = await publish(victim_url, 1000)
    await worker.until_logged("job finished", count=100)

    await victim.kill()
    await worker.until_logged("queue consumer lost its connection")
    assert (await worker.get("readyz")).status_code == 503
    await victim.restart()
    back_at = time.monotonic()
    await worker.ready(15)

    assert time.monotonic() - back_at < 10
    assert set(sent) == set(await answers(victim_url, sent))


async def test_f20_f25_a_lost_connection_does_not_cut_or_repeat_a_running_job(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    sent = await publish(victim_url, 5, "sleep")
    await worker.until(lambda: "connectors.jobs.dummy" in worker.log_path.read_text())

    await victim.ctl("close_all_connections", "--global", "test")
    await worker.until_logged("queue consumer lost its connection", count=3)

    assert set(sent) == set(await answers(victim_url, sent))
    await worker.until_logged("job finished", count=5)
    assert 5 == len({line["job_id"] for line in worker.logged("job finished")})


async def test_f02_a_clean_stop_and_start_is_logged_once_and_loses_nothing(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    sent = await publish(victim_url, 20, "sleep")
    await worker.until_logged("queue consumer started")

    await victim.ctl("stop_app")
    await worker.until_logged("queue consumer lost its connection", count=3)
    await victim.ctl("start_app")
    await worker.ready(40)

    assert set(sent) == set(await answers(victim_url, sent))
    lost = [line["queue"] for line in worker.logged("queue consumer lost its connection")]
    assert sorted(set(lost)) == sorted(lost)


async def test_f03_f04_a_hung_broker_is_noticed_and_nothing_is_lost(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url, failing=True, HEARTBEAT_S="4")
    sent = await publish(victim_url, 50, "sleep")
    await asyncio.sleep(0.3)

    victim.pause()  # the jobs end in the hang, and their answers are published into it
    try:
        await worker.until_logged("queue consumer lost its connection", 60)
        ready = (await worker.get("readyz")).status_code
    finally:
        victim.resume()
    await worker.ready(40)

    assert 503 == ready
    assert set(sent) == set(await answers(victim_url, sent))


async def test_f10_a_channel_closed_for_a_double_ack_reopens_without_loss(
    broker_url: str, start_worker: StartWorker, tmp_path: Any
) -> None:
    worker = await start_worker(
        broker_url, failing=True, FAILPOINT="double ack", FAILPOINT_MARKER=str(tmp_path / "marker")
    )
    sent = await publish(broker_url, 1)
    slow = await publish(broker_url, 20, "sleep")

    await worker.until_logged("queue consumer cannot consume")
    await worker.ready()

    assert set(sent + slow) == set(await answers(broker_url, sent + slow))
    assert not worker.logged("queue consumer lost its connection")


async def test_f11_a_reply_exchange_that_is_gone_hurts_no_consumer(
    broker_url: str, start_worker: StartWorker
) -> None:
    with ExternalClient(broker_url) as client:
        channel = client.channel
        channel.exchange_declare("callers", "direct")
        channel.queue_bind(client.reply_to or "", "callers")
        worker = await start_worker(broker_url, reply_exchange="callers")
        first = client.call(job("dummy", "ping"))

        channel.exchange_delete("callers")
        for _ in range(10):
            client.send(job("dummy", "ping"))
        client.send(job("dummy", "fail", {"code": "REJECTED"}))
        client.until(lambda: client.depth("connectors.dead") == 1, 30, lambda: "the failure")
        await worker.until_logged("job finished", count=12)
        channel.exchange_declare("callers", "direct")
        channel.queue_bind(client.reply_to or "", "callers")
        again = client.call(job("dummy", "ping"))

    assert ["pong"] * 2 == [first["data"], again["data"]]
    assert not worker.logged("queue consumer lost its connection") + worker.logged(
        "queue consumer cannot consume"
    )


async def test_f14_a_full_queue_of_ours_holds_the_job_until_it_has_room(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    await start_worker(victim_url)
    vhost = victim_url.rpartition("/")[2]
    policy = (
        "set_policy",
        "-p",
        vhost,
        "full",
        "^connectors.dead$",
        '{"max-length":3,"overflow":"reject-publish"}',
        "--apply-to",
        "queues",
    )
    await victim.ctl(*policy)

    def take(client: ExternalClient) -> None:
        taken: set[bytes] = set()

        def all_ten() -> bool:
            method, _, body = client.channel.basic_get("connectors.dead", auto_ack=True)
            if method is not None:
                taken.add(body)
            return len(taken) == 10

        client.until(all_ten, 60, lambda: f"{10 - len(taken)} dead letters")

    with ExternalClient(victim_url, reply_queue=None) as client:
        for _ in range(10):
            client.send(job("dummy", "fail", {"code": "REJECTED"}))
        await asyncio.to_thread(take, client)
        assert 0 == client.depth("connectors.jobs.dummy")


async def test_f23_a_reply_queue_that_is_full_is_tried_a_few_times_and_no_more(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}

    with ExternalClient(broker_url, reply_queue=None) as client:
        client.channel.queue_declare("narrow", arguments=full)
        for _ in range(5):
            client.send(job("dummy", "ping"), reply_to="narrow")
        await worker.until_logged("job finished", count=5)

    said = sorted(line["reply"] for line in worker.logged("job finished"))
    assert said[0] == "delivered" and "refused" in said


async def test_f18_a_job_beyond_the_consumer_timeout_has_one_effect_and_reply(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    await victim.eval("application:set_env(rabbit, consumer_timeout, 2000)")
    await victim.eval("application:set_env(rabbit, channel_tick_interval, 500)")
    provider = Provider()
    await provider.start()
    try:
        worker = await start_worker(victim_url, enabled="effects", EFFECTS_URL=provider.url)
        client = await asyncio.to_thread(ExternalClient, victim_url)
        sent = client.send(job("effects", "linger", {"seconds": 6}, idempotency_key="k"))
        replies = await asyncio.to_thread(client.wait, [sent])
        client.close()
        assert worker.logged("queue consumer cannot consume"), "the broker closed the channel meanwhile"
    finally:
        await victim.eval("application:set_env(rabbit, consumer_timeout, 1800000)")
        await victim.eval("application:set_env(rabbit, channel_tick_interval, 60000)")
        await provider.stop()

    assert ["lingered"] == [reply["data"] for reply in replies[sent]]
    assert [("notes", "k")] == provider.journal


async def test_f21_a_revoked_permission_is_on_readyz_and_leaks_no_connections(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    vhost = victim_url.rpartition("/")[2]
    await victim.ctl("set_permissions", "-p", vhost, "connectors", "^$", "^$", "^$")
    await victim.ctl("close_all_connections", "--vhost", vhost, "test")
    await worker.until_logged("queue consumer cannot consume", 40, count=3)
    ready = (await worker.get("readyz")).status_code
    await asyncio.sleep(3)  # of tries
    listed = await victim.ctl("list_connections", "vhost", "state")
    count = sum(line.startswith(vhost) for line in listed.splitlines())
    await victim.ctl("set_permissions", "-p", vhost, "connectors", ".*", ".*", ".*")
    await worker.ready(40)
    sent = await publish(victim_url, 1)

    assert 503 == ready
    assert count <= 5, listed
    assert 3 == len(worker.logged("queue consumer cannot consume")), "said once for each queue"
    assert set(sent) == set(await answers(victim_url, sent))


async def test_f15_f16_alarms_pause_intake_and_lose_nothing(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    alarms = (
        (("set_vm_memory_high_watermark", "absolute", "1MB"), ("set_vm_memory_high_watermark", "0.4")),
        (("set_disk_free_limit", "10000GB"), ("set_disk_free_limit", "50MB")),
    )
    for number, (alarm, clear) in enumerate(alarms, 1):
        sent = await publish(victim_url, 20, "sleep", seconds=4)
        direct = await asyncio.to_thread(ExternalClient, victim_url, reply_queue=DIRECT)
        waiting = direct.send(job("dummy", "sleep", {"seconds": 4}))
        direct.process(0.5)

        await victim.ctl(*alarm)
        await worker.until_logged("queue consumer paused", count=3 * number)
        ready = (await worker.get("readyz")).status_code
        await victim.ctl(*clear)
        await worker.ready(40)

        assert 503 == ready
        await asyncio.to_thread(direct.wait, [waiting])
        direct.close()
        assert set(sent) == set(await answers(victim_url, sent))


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (r"^(?!amq\.default).*", "CONNECTORS_REPLY_EXCHANGE"),
        (r"^(?!connectors\.retry\.5s).*", "connectors.retry.5s"),
    ],
    ids=["replies", "retries"],
)
async def test_a_user_who_may_not_publish_is_found_out_at_start_and_while_running(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker, write: str, named: str
) -> None:
    vhost = victim_url.rpartition("/")[2]
    running = await start_worker(victim_url)

    await victim.ctl("set_permissions", "-p", vhost, "connectors", ".*", write, ".*")
    other = await start_worker(victim_url, ready=False)
    code, last = await other.wait(), other.log_tail(1)

    async def is_unready() -> bool:
        return (await running.get("readyz")).status_code == 503

    async with asyncio.timeout(10):
        while not await is_unready():
            await asyncio.sleep(0.1)
    await victim.ctl("set_permissions", "-p", vhost, "connectors", ".*", ".*", ".*")
    await running.ready(10)

    assert 78 == code
    assert named in last


async def test_an_idle_worker_notices_an_alarm_and_is_not_ready(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    await victim.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        await worker.until_logged("queue consumer paused", 10, count=3)
        ready = (await worker.get("readyz")).status_code
    finally:
        await victim.ctl("set_vm_memory_high_watermark", "0.4")
    await worker.ready(10)

    assert 503 == ready


async def test_a_queue_recreated_often_leaves_no_channel_open(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url)
    vhost = victim_url.rpartition("/")[2]
    with ExternalClient(victim_url, reply_queue=None) as external:
        for number in range(4):
            external.channel.queue_delete("connectors.jobs.dummy")
            await worker.until_logged("queue consumer cannot consume", count=number + 1)
            await worker.ready()
    listed = await victim.ctl("list_channels", "vhost", "name")
    channels = [line for line in listed.splitlines() if line.startswith(vhost)]

    assert len(channels) <= 5, listed


async def test_f28_a_reply_too_large_for_the_broker_is_result_too_large(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    try:
        with ExternalClient(victim_url) as external:  # its channel keeps the limit that it began with
            await victim.eval("application:set_env(rabbit, max_message_size, 300000)")
            await start_worker(victim_url)
            large = external.send(job("dummy", "echo", {"message": "x" * 400_000}))
            small = [external.send(job("dummy", "ping")) for _ in range(20)]
            replies = await asyncio.to_thread(external.wait, [large, *small], 30)
    finally:
        await victim.eval("application:set_env(rabbit, max_message_size, 134217728)")

    assert ["RESULT_TOO_LARGE"] == [reply["error"]["code"] for reply in replies[large]]
    assert {"succeeded"} == {replies[each][0]["status"] for each in small}


async def test_f29_an_alarm_longer_than_any_timeout_doubles_nothing(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(victim_url, max_attempts="2")
    sent = await publish(victim_url, 20, "sleep", seconds=3)
    with ExternalClient(victim_url, reply_queue=None) as external:
        for _ in range(5):
            external.send(job("dummy", "fail", {"code": "UNAVAILABLE"}))

        await victim.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        await worker.until_logged("queue consumer paused", count=3)
        await asyncio.sleep(14)  # longer than a publish once waited for its confirm
        await victim.ctl("set_vm_memory_high_watermark", "0.4")
        await worker.ready(40)

        await asyncio.to_thread(
            external.until, lambda: external.depth("connectors.dead") >= 5, 60, lambda: "5"
        )
        assert 5 == external.depth("connectors.dead")
        external.channel.queue_purge("connectors.dead")
    assert dict.fromkeys(sent, 1) == await answers(victim_url, sent)


async def test_f12_deleted_retry_and_dead_letter_queues_are_declared_again(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url, max_attempts="2")

    with ExternalClient(broker_url) as client:
        for kind in ("retry.1s", "dead"):
            client.channel.queue_delete(f"connectors.{kind}")
        client.channel.exchange_delete("connectors.retry.5s")
        reply = client.call(job("dummy", "fail", {"code": "UNAVAILABLE"}))

        assert "UNAVAILABLE" == reply["error"]["code"]
        assert 1 == client.depth("connectors.dead")


async def test_f12_a_deleted_exchange_is_declared_again_by_an_idle_worker(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)

    with ExternalClient(broker_url, reply_queue=None) as client:
        client.channel.exchange_delete("connectors.dead")
        async with asyncio.timeout(10):
            while (await worker.get("readyz")).status_code == 200:
                await asyncio.sleep(0.05)
        await worker.ready(10)
        client.channel.exchange_declare("connectors.dead", passive=True)


async def test_f12_a_deleted_queue_is_declared_again(broker_url: str, start_worker: StartWorker) -> None:
    worker = await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        client.channel.queue_delete("connectors.jobs.dummy")
        await worker.until_logged("queue consumer cannot consume")
        await worker.ready()
        reply = client.call(job("dummy", "ping"))

    assert "pong" == reply["data"]


async def test_f13_a_queue_with_other_arguments_is_named_and_exits_with_78(
    broker_url: str, start_worker: StartWorker
) -> None:
    with ExternalClient(broker_url, reply_queue=None) as client:
        arguments = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 3,
            "x-dead-letter-exchange": "connectors.poison",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        client.channel.queue_declare("connectors.jobs.dummy", durable=True, arguments=arguments)

    worker = await start_worker(broker_url, ready=False)

    assert 78 == await worker.wait()
    last = worker.log_tail(1)
    assert "connectors.jobs.dummy" in last
    assert "x-delivery-limit" in last
    assert "Traceback" not in worker.log_path.read_text()


async def test_f05_a_broker_that_is_absent_at_start_is_waited_for(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    await victim.kill()
    worker = await start_worker(victim_url, ready=False)
    await worker.until_logged("broker unreachable")
    await victim.restart()
    await worker.ready(15)

    sent = await publish(victim_url, 1)
    assert set(sent) == set(await answers(victim_url, sent))


async def test_a_rotated_password_is_tried_slowly_until_it_fits_again(
    tmp_path: Path, start_worker: StartWorker
) -> None:
    async with PrivateRabbitMQ(tmp_path / "rotating") as broker:
        worker = await start_worker(broker.url)
        password = broker.url.split(":")[2].split("@")[0]
        await broker.ctl("change_password", "connectors", "another")
        await broker.ctl("close_all_connections", "--global", "test")
        await worker.until_logged("queue consumer cannot connect", count=3)
        await asyncio.sleep(8)  # of tries, 80 a minute before
        refused = broker.log.read_text().count("invalid credentials")
        ready = (await worker.get("readyz")).status_code

        await broker.ctl("change_password", "connectors", password)
        await worker.ready(40)

    assert 503 == ready
    assert refused <= 10
    assert "tried again" in worker.logged("queue consumer cannot connect")[0]["reason"]


async def test_a_connection_limit_is_named_and_waited_out(
    victim: PrivateRabbitMQ, victim_url: str, start_worker: StartWorker
) -> None:
    vhost = victim_url.rpartition("/")[2]
    await victim.ctl("set_vhost_limits", "-p", vhost, '{"max-connections": 0}')
    worker = await start_worker(victim_url, ready=False)
    await worker.until_logged("queue consumer cannot connect")
    said = " ".join(line["reason"] for line in worker.logged("queue consumer cannot connect"))

    await victim.ctl("clear_vhost_limits", "-p", vhost)
    await worker.ready(30)

    assert "connection limit (0) is reached" in said
    assert "virtual host" not in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda url: url.replace("//connectors:", "//nobody:"), "nobody"),
        (lambda url: url + "-elsewhere", "virtual host"),
    ],
    ids=["user", "vhost"],
)
async def test_f06_a_refused_login_is_one_clear_line_and_ends_in_78(
    broker_url: str, start_worker: StartWorker, change: object, named: str
) -> None:
    worker = await start_worker(change(broker_url), ready=False)  # type: ignore[operator]

    assert 78 == await worker.wait()
    (told,) = [line for line in worker.log_tail().splitlines() if line.startswith("connectors: ")]
    assert named in told
    password = broker_url.split(":")[2].split("@")[0]
    assert password not in worker.log_path.read_text()


async def test_b06_b07_a_timestamp_that_is_no_date_is_absent_and_its_job_answered(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)

    def call_all() -> dict[str, list[dict[str, Any]]]:
        with ExternalClient(broker_url) as client, FramePublisher(broker_url) as frames:
            odd = odd_timestamps(client.reply_to or "")
            for name, (flags, properties) in odd.items():
                body = json.dumps(job("dummy", "ping", id=name.replace(" ", "-"))).encode()
                frames.publish("connectors.jobs", "dummy.ping", body, flags, properties)
            return client.wait(odd)

    replies = await asyncio.to_thread(call_all)

    assert {("succeeded", "pong")} == {(each[0]["status"], each[0]["data"]) for each in replies.values()}
    assert not worker.logged("queue consumer lost its connection")


async def test_b01_to_b09_what_no_client_decodes_is_a_dead_letter_at_once(
    broker_url: str, start_worker: StartWorker
) -> None:
    """B01-B05, B08, B09: what ends the connection of other clients hurts no job beside it here."""
    worker = await start_worker(broker_url)

    def publish_all() -> list[str]:
        with (
            ExternalClient(broker_url, reply_queue=REPLIES, collects=False) as client,
            FramePublisher(broker_url) as frames,
        ):
            client.channel.confirm_delivery()  # what is missing later was there
            sent = []
            bad = list(BAD_FRAMES.values())
            for number in range(1000):
                sent.append(client.send(job("dummy", "echo", {"message": uuid4().hex})))
                if number % 100 == 50 and bad:
                    frames.publish("connectors.jobs", "dummy.echo", b"{}", *bad.pop())
            return sent

    sent = await asyncio.to_thread(publish_all)
    answered = await answers(broker_url, sent, 100, dead_letters=len(BAD_FRAMES))

    letters = worker.logged("job dead-lettered")
    assert set(sent) == set(answered)
    assert {"INVALID_MESSAGE"} == {line["code"] for line in letters}
    assert not worker.logged("queue consumer lost its connection")
    assert 0 == await asyncio.to_thread(_depth, broker_url, "connectors.poison")


async def test_an_undecodable_job_is_answered_if_its_caller_can_be_read(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    def call() -> dict[str, Any]:
        with ExternalClient(broker_url) as client, FramePublisher(broker_url) as frames:
            table = nested_tables(1000)
            flags, properties = callers_own(table, "deep", client.reply_to or "")
            body = json.dumps(job("dummy", "ping", id="deep")).encode()
            frames.publish("connectors.jobs", "dummy.ping", body, flags, properties)
            return client.wait(["deep"])["deep"][0]

    reply = await asyncio.to_thread(call)

    assert ("deep", "INVALID_MESSAGE") == (reply["id"], reply["error"]["code"])
    assert "nested deeper than" in reply["error"]["message"]


def _depth(url: str, queue: str) -> int:
    with ExternalClient(url, reply_queue=None) as client:
        return client.depth(queue)
