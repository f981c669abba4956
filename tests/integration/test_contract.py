"""The worker from outside: plain pika, the contract's page, and nothing of ours."""

import asyncio
import json
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import PLUGIN, Run, StartWorker
from tests.support.http_servers import make_authority
from tests.support.rpc import DIRECT, ExternalClient, job

pytestmark = pytest.mark.integration

_PING = b'{"id":"a","connector":"dummy","action":"ping"}'


def _failing(code: str) -> bytes:
    return b'{"id":"a","connector":"dummy","action":"fail","params":{"code":"%s"}}' % code.encode()


@pytest.mark.parametrize(
    "reply_queue", ["", "callers.replies", DIRECT], ids=["server-named", "named", "direct"]
)
async def test_a_job_is_answered_on_each_kind_of_reply_queue(
    broker_url: str, start_worker: StartWorker, reply_queue: str
) -> None:
    await start_worker(broker_url)

    with ExternalClient(broker_url, reply_queue=reply_queue) as client:
        reply = client.call(
            job("dummy", "echo", {"message": "hi"}, id="job-1", metadata={"call": "c1"}), correlation_id="c-1"
        )

    properties = client.properties["c-1"]
    assert {"received_message": "hi"} == reply["data"]
    assert ("succeeded", None, "job-1", "dummy", "echo") == (
        reply["status"],
        reply["error"],
        reply["id"],
        reply["connector"],
        reply["action"],
    )
    assert (1, 1, False, {"call": "c1"}) == (
        reply["version"],
        reply["attempts"],
        reply["replayed"],
        reply["metadata"],
    )
    assert reply["started_at"].endswith("Z") and reply["finished_at"] >= reply["started_at"]
    assert ("connectors.result", "application/json") == (properties.type, properties.content_type)


async def test_a_thousand_jobs_in_flight_are_each_answered_once(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        sent = [client.send(job("dummy", "echo", {"message": str(n)})) for n in range(1000)]
        replies = client.wait(sent, 60)

    assert [str(n) for n in range(1000)] == [replies[each][0]["data"]["received_message"] for each in sent]
    assert {1} == {len(replies[each]) for each in sent}


#: A body, the code it is answered with, and whether it is kept as a dead letter, too.
_BAD_JOBS = [
    (b"", "INVALID_MESSAGE", True),
    (b"not json", "INVALID_MESSAGE", True),
    (b"[]", "INVALID_MESSAGE", True),
    (b"\xff\xfe", "INVALID_MESSAGE", True),
    (b'\xef\xbb\xbf{"id":"a"}', "INVALID_MESSAGE", False),
    (b'{"id":"a","connector":"dummy","action":"ping","params":{"x":NaN}}', "INVALID_MESSAGE", False),
    (b'{"id":"a","connector":"dummy","action":"ping","id":"b"}', "INVALID_MESSAGE", False),
    (b'{"id":"a","connector":"dummy","action":"ping","surplus":1}', "INVALID_MESSAGE", False),
    (b'{"id":"a","version":2}', "UNSUPPORTED_VERSION", False),
    (b'{"id":"a","connector":"dummy","action":"nope"}', "ACTION_NOT_FOUND", False),
    (b'{"id":"a","connector":"nobody","action":"ping"}', "CONNECTOR_NOT_FOUND", False),
    (b'{"id":"a","connector":"dummy","action":"echo","params":{"message":1}}', "INVALID_PARAMS", False),
    (_failing("OUTCOME_UNKNOWN"), "OUTCOME_UNKNOWN", True),
    (_failing("CONNECTOR_ERROR"), "CONNECTOR_ERROR", True),
    (_failing("NOT_FOUND"), "NOT_FOUND", False),
    (_PING[:-1] + b',"deadline":"2020-01-01T00:00:00Z"}', "DEADLINE_EXCEEDED", False),
    (b"x" * (1024 * 1024 + 1), "MESSAGE_TOO_LARGE", False),
]  # fmt: skip


async def test_a_bad_job_is_answered_and_dead_lettered_if_no_caller_can_fix_it(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        for body, code, is_dead_lettered in _BAD_JOBS:
            reply = client.call(body)
            dead_letters = client.depth("connectors.dead")
            client.channel.queue_purge("connectors.dead")

            assert ("failed", code, None) == (reply["status"], reply["error"]["code"], reply["data"]), body[
                :80
            ]
            assert reply["error"]["say"] and reply["error"]["message"]
            assert int(is_dead_lettered) == dead_letters, body[:80]
        assert "succeeded" == client.call(job("dummy", "ping"))["status"]


async def test_a_job_with_another_content_type_or_encoding_is_refused(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    sent = job("dummy", "ping", id="j-1", metadata={"call": "c1"})

    with ExternalClient(broker_url) as client:
        typed = client.call(sent, content_type="text/xml")
        packed = client.call(b"\x1f\x8b", content_encoding="gzip", message_id="m-1")
        plain = client.call(sent, content_type='Application/JSON; charset="UTF-8"', content_encoding="UTF-8")
        forged = client.call(sent, headers={"x-delivery-count": 500})

    assert ("INVALID_MESSAGE", "INVALID_MESSAGE") == (typed["error"]["code"], packed["error"]["code"])
    assert ("j-1", "dummy", {"call": "c1"}) == (typed["id"], typed["connector"], typed["metadata"])
    assert ("m-1", None) == (packed["id"], packed["connector"])
    assert [("pong", 1)] * 2 == [(each["data"], each["attempts"]) for each in (plain, forged)]


async def test_a_failure_without_reply_to_is_dead_lettered_byte_for_byte(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)
    body = b'{"id": "a",  "connector":"dummy","action":"fail","params":{"code":"NOT_FOUND"}}'

    with ExternalClient(broker_url, reply_queue=None) as client:
        client.send(
            body, key="dummy.fail", message_id="m-1", headers={"CC": ["callers.x"], "traceparent": TRACE}
        )
        client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the dead letter")
        _, properties, dead_letter = client.channel.basic_get("connectors.dead")

    assert body == dead_letter
    assert ["a"] == [line["job_id"] for line in worker.logged("job dead-lettered")]
    assert ("m-1", TRACE) == (properties.message_id, properties.headers["traceparent"])
    assert "CC" not in properties.headers
    assert {
        "connectors-reason": "NOT_FOUND",
        "connectors-attempts": 1,
        "connectors-queue": "connectors.jobs.dummy",
        "connectors-error": "as asked",
    }.items() <= properties.headers.items()
    assert "connectors-first-seen" in properties.headers


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_failing_provider_is_retried_and_its_job_dead_lettered_at_last(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url, max_attempts="2")

    with ExternalClient(broker_url) as client:
        reply = client.call(job("dummy", "fail", {"code": "UNAVAILABLE"}, progress=True), correlation_id="c")
        letters = client.depth("connectors.dead")
        stages = [each["stage"] for each in client.progress["c"]]

    assert ("UNAVAILABLE", True, 2) == (
        reply["error"]["code"],
        reply["error"]["retryable"],
        reply["attempts"],
    )
    assert 1 == letters
    assert ["accepted", "started", "retrying", "accepted", "started"] == stages
    assert 1 == len(worker.logged("job retried"))


async def test_the_deadline_ends_a_running_job_and_its_caller_hears_it_in_time(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)
    deadline = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))

    with ExternalClient(broker_url) as client:
        begun = time.monotonic()
        reply = client.call(job("dummy", "sleep", {"seconds": 20}, deadline=deadline))

    assert ("DEADLINE_EXCEEDED", {"outcome": "unknown"}) == (reply["error"]["code"], reply["error"]["data"])
    assert time.monotonic() - begun < 3


async def test_a_job_in_the_wrong_queue_is_run_in_its_own(broker_url: str, start_worker: StartWorker) -> None:
    await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        reply = client.call(job("dummy", "ping"), key="dummy.echo")
        other = client.call(job("dummy", "ping"), key="http.request")
        stray = client.call(job("dummy", "ping"), key="no.such.queue.at.all")

    assert ["pong", "pong", "pong"] == [reply["data"], other["data"], stray["data"]]


@pytest.mark.parametrize(
    "reply_to",
    ["connectors.jobs.dummy", "connectors.dead", "amq.rabbitmq.trace", "amq.rabbitmq.reply-to.Zm9yZ2Vk.x"],
)
async def test_a_job_with_a_reserved_reply_to_is_dead_lettered_and_not_run(
    broker_url: str, start_worker: StartWorker, reply_to: str
) -> None:
    worker = await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        client.send(job("dummy", "ping"), reply_to=reply_to)
        client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the dead letter")
        _, properties, _ = client.channel.basic_get("connectors.dead")

    assert "INVALID_MESSAGE" == properties.headers["connectors-reason"]
    assert [] == worker.logged("job finished")


async def test_a_forged_direct_reply_to_affects_no_other_job(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)
    forged = "amq.rabbitmq.reply-to.g1hkABByYWJiaXRAbG9jYWxob3N0AAAEmwAAAABnAAAA.bm9ib2R5LWlzLWhlcmU="

    with ExternalClient(broker_url, reply_queue=DIRECT) as client:
        jobs = [job("dummy", "sleep", {"seconds": 0.5}) for _ in range(20)]
        sent = [client.send(each) for each in jobs]
        client.send(job("dummy", "ping"), reply_to=forged)
        replies = client.wait(sent)

    assert {"succeeded"} == {replies[each][0]["status"] for each in sent}
    assert [] == worker.logged("queue consumer lost its connection")


async def test_without_its_caller_a_success_is_acked_a_failure_dead_lettered(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        client.send(job("dummy", "ping"), reply_to="amq.gen-gone")
        client.send(job("dummy", "fail", {"code": "NOT_FOUND"}), reply_to="amq.gen-gone")
        await worker.until_logged("job finished", count=2)
        client.until(lambda: client.depth("connectors.dead") == 1, 10, lambda: "the dead letter")
        assert 0 == client.depth("connectors.jobs.dummy")

    metrics = (await worker.get("metrics")).text
    assert 'connectors_replies_total{outcome="returned"} 2.0' in metrics
    assert 'connectors_dead_letters_total{reason="NOT_FOUND"} 1.0' in metrics


async def test_bulk_work_leaves_room_for_callers_on_the_line(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url, concurrency="8")

    with ExternalClient(broker_url) as client:
        bulk = [
            client.send(job("dummy", "sleep", {"seconds": 0.5}), key="dummy.sleep.bulk") for _ in range(12)
        ]
        begun = time.monotonic()
        client.call(job("dummy", "ping"))
        waited_s = time.monotonic() - begun
        client.wait(bulk)
        all_s = time.monotonic() - begun

    assert waited_s < 0.5
    assert all_s > 2.5, "two slots of eight: six rounds of half a second"


async def test_a_publisher_may_speak_for_its_own_tenants_alone(
    broker_url: str, start_worker: StartWorker
) -> None:
    user = broker_url.split("//")[1].split(":")[0]
    await start_worker(broker_url, publishers=json.dumps({user: ["acme"]}))

    with ExternalClient(broker_url) as client:
        unsigned = client.call(job("dummy", "ping", tenant="acme"))
        signed = client.call(job("dummy", "ping", tenant="acme"), user_id=user)
        foreign = client.call(job("dummy", "ping", tenant="beta"), user_id=user)

    assert ["TENANT_FORBIDDEN", None, "TENANT_FORBIDDEN"] == [
        each["error"] and each["error"]["code"] for each in (unsigned, signed, foreign)
    ]


async def test_validate_checks_everything_and_calls_nothing(
    broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        good = client.call(job("dummy", "sleep", {"seconds": 60}, mode="validate"))
        bad = client.call(job("dummy", "sleep", {"seconds": "60"}, mode="validate"))

    assert ({"valid": True}, 0) == (good["data"], good["attempts"])
    assert ("INVALID_PARAMS", "seconds") == (bad["error"]["code"], bad["error"]["details"][0]["field"])


@asynccontextmanager
async def _tls_before(url: str, server: ssl.SSLContext) -> AsyncIterator[str]:
    """Put TLS before the broker; gives the amqps URL."""
    port = urlsplit(url).port

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_broker), pump(from_broker, writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    try:
        tls_port = listener.sockets[0].getsockname()[1]
        yield url.replace("amqp://", "amqps://").replace(f":{port}/", f":{tls_port}/")
    finally:
        listener.close()


async def test_a_broker_over_tls_is_verified_by_worker_and_commands(
    broker_url: str, start_worker: StartWorker, connectors: Run, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path, "127.0.0.1")
    async with _tls_before(broker_url, authority.server) as url:
        trusting = {"rabbitmq_url": url, "ca_file": str(authority.ca_file)}
        worker = await start_worker(url, ca_file=str(authority.ca_file))
        good = await asyncio.to_thread(connectors, "call", "dummy", "ping", **trusting)
        queues = await asyncio.to_thread(connectors, "queues", "list", **trusting)
        letters = await asyncio.to_thread(connectors, "dead", "list", **trusting)
        refused = await asyncio.to_thread(connectors, "call", "dummy", "ping", rabbitmq_url=url)
        worker.signal(signal.SIGTERM)
        await worker.wait()
        distrusting = await start_worker(url, ready=False)
        code = await distrusting.wait()

    assert [0, 0, 0] == [each.returncode for each in (good, queues, letters)], good.stderr
    assert (1, 1) == (refused.returncode, len(refused.stderr.splitlines()))
    assert "CONNECTORS_CA_FILE" in refused.stderr
    assert 78 == code
    assert "CONNECTORS_CA_FILE" in distrusting.log_tail(1)


async def test_sigterm_answers_what_runs_and_exits_with_0(broker_url: str, start_worker: StartWorker) -> None:
    worker = await start_worker(broker_url, tenant_concurrency="100")

    with ExternalClient(broker_url) as client:
        sent = [client.send(job("dummy", "sleep", {"seconds": 4})) for _ in range(100)]
        metrics = ""
        while 'connectors_slots{queue="connectors.jobs.dummy",state="used"} 100.0' not in metrics:
            metrics = (await worker.get("metrics")).text
            await asyncio.sleep(0.05)
        worker.signal(signal.SIGTERM)
        await worker.until_logged("worker draining")
        ready = (await worker.get("readyz")).status_code
        replies = client.wait(sent, 20)
        code = await worker.wait()

    assert 503 == ready
    assert {"succeeded"} == {replies[each][0]["status"] for each in sent}
    assert 0 == code


async def test_a_second_signal_stops_at_once_and_the_jobs_come_again(
    broker_url: str, start_worker: StartWorker
) -> None:
    worker = await start_worker(broker_url)

    with ExternalClient(broker_url) as client:
        client.send(job("dummy", "sleep", {"seconds": 25}))
        await worker.until(lambda: client.depth("connectors.jobs.dummy") == 0)
        worker.signal(signal.SIGTERM)
        await worker.until_logged("worker draining")
        begun = time.monotonic()
        worker.signal(signal.SIGTERM)
        await worker.wait(10)
        took_s = time.monotonic() - begun
        client.until(lambda: client.depth("connectors.jobs.dummy") == 1, 10, lambda: "the job's return")

    assert took_s < 5


async def test_a_connector_that_fails_to_load_is_named_and_the_others_run(
    broker_url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    info = tmp_path / "plugin" / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[connectors]\nacme = acme_broken:connector\n")
    (tmp_path / "plugin" / "acme_broken.py").write_text("raise ZeroDivisionError('no luck')")

    worker = await start_worker(
        broker_url, enabled="dummy,acme", PYTHONPATH=f"{tmp_path / 'plugin'}:{PLUGIN}"
    )
    with ExternalClient(broker_url) as client:
        reply = client.call(job("dummy", "ping"))
        refused = client.call(job("acme", "ping"))

    assert "pong" == reply["data"]
    assert "CONNECTOR_NOT_FOUND" == refused["error"]["code"]
    assert "no luck" in (await worker.get("readyz")).json()["not_loaded"]["acme"]
    assert "no luck" in worker.logged("connector not loaded")[0]["reason"]
