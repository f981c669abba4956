"""The monitoring port from outside: metrics, health, readiness, the page; bounded in every way."""

import asyncio
import base64
import hashlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest

from tests.support.log_records import logged
from worker.metrics import Metrics
from worker.monitoring import CannotListen, MonitoringServer, PortTaken, Status
from worker.monitoring.listener import ListenerPolicy
from worker.monitoring.status import Check


class FakeStatus:
    def __init__(self, status: Status | None = None) -> None:
        self.status = status or Status("1.2.3", 4000.0)

    def snapshot(self) -> Status:
        return self.status


class BrokenStatus:
    def snapshot(self) -> Status:
        raise LookupError("a bug")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


@asynccontextmanager
async def monitoring_server(
    checks: Mapping[str, Check] | None = None, status: Any = None, **options: Any
) -> AsyncIterator[MonitoringServer]:
    one = MonitoringServer(
        "127.0.0.1", 0, Metrics(version="1.2.3"), checks or {}, status or FakeStatus(), **options
    )
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


async def ask(one: MonitoringServer, path: str, method: str = "GET") -> Answer:
    return await send(one, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


async def send(one: MonitoringServer, data: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(data)
    async with asyncio.timeout(10):
        raw = await reader.read()
    await hang_up(writer)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return Answer(int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_metrics_are_prometheus_text() -> None:
    async with monitoring_server() as one:
        answer = await ask(one, "/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"connectors_build_info{" in answer.body


async def test_healthy_while_the_loop_turns() -> None:
    async with monitoring_server() as one:
        answer = await ask(one, "/healthz")

    assert (answer.status, answer.body) == (200, b"ok\n")


async def test_ready_when_every_check_is() -> None:
    async with monitoring_server({"broker": lambda: None}) as one:
        answer = await ask(one, "/readyz")

    told = json.loads(answer.body)
    assert answer.status == 200
    assert told["ready"] is True
    assert {"name": "broker", "ok": True, "detail": None} in told["checks"]


async def test_not_ready_names_the_check_and_why() -> None:
    checks = {"broker": lambda: None, "credentials": lambda: "the vault is sealed"}
    async with monitoring_server(checks) as one:
        answer = await ask(one, "/readyz")

    told = json.loads(answer.body)
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/json"
    assert told["ready"] is False
    assert [{"name": "credentials", "ok": False, "detail": "the vault is sealed"}] == [
        check for check in told["checks"] if not check["ok"]
    ]


async def test_checks_are_read_anew_each_time_and_on_the_workers_loop() -> None:
    threads: list[int] = []
    reasons = iter([None, "draining"])

    def check() -> str | None:
        threads.append(threading.get_ident())
        return next(reasons)

    async with monitoring_server({"running": check}) as one:
        first, second = await ask(one, "/readyz"), await ask(one, "/readyz")

    assert (first.status, second.status) == (200, 503)
    assert {threading.get_ident()} == set(threads)


async def test_a_check_that_fails_itself_is_not_ready() -> None:
    def check() -> str | None:
        raise LookupError("with a secret in it")

    async with monitoring_server({"broker": check}) as one:
        answer = await ask(one, "/readyz")

    assert answer.status == 503
    assert b"the check itself failed: LookupError" in answer.body
    assert b"secret" not in answer.body


async def test_no_password_of_a_url_is_shown() -> None:
    async with monitoring_server(
        {"broker": lambda: "cannot reach amqp://guest:canary@rabbit/"},
        not_loaded={"acme": "token=canary"},
    ) as one:
        answers = [await ask(one, path) for path in ("/readyz", "/")]

    assert all(b"canary" not in answer.body for answer in answers)
    assert b"amqp://guest:***@rabbit/" in answers[0].body


async def test_connectors_that_failed_to_load_are_named_and_do_not_count() -> None:
    async with monitoring_server(not_loaded={"acme": "no module named acme_sdk"}) as one:
        answer = await ask(one, "/readyz")

    assert answer.status == 200
    assert json.loads(answer.body)["not_loaded"] == {"acme": "no module named acme_sdk"}


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nothing"])
async def test_head_answers_the_same_without_body(path: str) -> None:
    async with monitoring_server() as one:
        get, head = await ask(one, path), await ask(one, path, "HEAD")

    assert get.status == head.status
    assert head.body == b""
    assert int(get.headers["Content-Length"]) == len(get.body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "TRACE"])
async def test_other_methods_are_refused(method: str) -> None:
    async with monitoring_server() as one:
        answer = await ask(one, "/metrics", method)

    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "//metrics", "/../etc/passwd", "http://x/metrics", "*", "/%6detrics"]
)
async def test_other_paths_are_not_found(path: str) -> None:
    async with monitoring_server() as one:
        answer = await ask(one, path)

    assert answer.status == 404
    assert path.encode() not in answer.body


async def test_a_query_is_ignored() -> None:
    async with monitoring_server() as one:
        answer = await ask(one, "/healthz?probe=1")

    assert answer.status == 200


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / FTP/1\r\n\r\n", b"\xff\r\n\r\n"]
)
async def test_what_is_not_http_is_refused(data: bytes) -> None:
    async with monitoring_server() as one:
        answer = await send(one, data)

    assert answer.status == 400


async def test_an_oversize_head_is_refused() -> None:
    async with monitoring_server() as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * ListenerPolicy().max_head_bytes * 4)
        try:
            answer = await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            answer = b""  # it may be cut off before it has read the refusal
        await hang_up(writer)
        healthy = await ask(one, "/healthz")

    assert answer == b"" or b" 431 " in answer
    assert healthy.status == 200


async def test_silent_clients_keep_no_probe_out() -> None:
    async with monitoring_server() as one:
        held = [
            await asyncio.open_connection("127.0.0.1", one.port)
            for _ in range(ListenerPolicy().max_connections * 2)
        ]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")

        begin = time.monotonic()
        answer = await ask(one, "/healthz")
        took_s = time.monotonic() - begin

        for _, writer in held:
            await hang_up(writer)

    assert answer.status == 200
    assert took_s < 1


async def test_a_client_that_never_ends_its_head_is_dropped() -> None:
    async with monitoring_server(listener_policy=ListenerPolicy(head_timeout_s=0.1)) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        try:
            rest = await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:
            rest = b""
        await hang_up(writer)

    assert rest == b""


async def test_stopping_does_not_wait_for_open_connections(caplog: pytest.LogCaptureFixture) -> None:
    async with monitoring_server() as one:
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        await ask(one, "/healthz")
        begin = time.monotonic()

        await one.stop()

    took_s = time.monotonic() - begin
    await hang_up(writer)
    assert took_s < 2
    assert not [thread for thread in threading.enumerate() if thread.name == "monitoring"]
    assert caplog.text == ""


async def test_stopping_gives_the_port_back_and_may_be_repeated() -> None:
    async with monitoring_server() as one:
        port = one.port
        await one.stop()
        await one.stop()

        again = MonitoringServer("127.0.0.1", port, Metrics(version="1"), {}, FakeStatus())
        await again.start()
        await again.stop()

    assert again.port == port


async def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = MonitoringServer("127.0.0.1", port, Metrics(version="1"), {}, FakeStatus())

        with pytest.raises(PortTaken) as caught:
            await one.start()
        await one.stop()

    assert str(caught.value) == (
        f"CONNECTORS_METRICS_PORT={port}: the port is taken on 127.0.0.1; set another one"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_said_in_one_line(host: str) -> None:
    one = MonitoringServer(host, 0, Metrics(version="1"), {}, FakeStatus())

    with pytest.raises(CannotListen, match=f"^CONNECTORS_METRICS_HOST={re.escape(host)}: .*127.0.0.1"):
        await one.start()


def while_blocked(port: int, until: Callable[[int, bytes], bool], path: str) -> tuple[int, bytes]:
    """Ask from another thread, and block this one, loop and all, until the answer is as it should be."""
    answers: list[tuple[int, bytes]] = []

    def poll() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, response.read()))
            connection.close()
            if until(*answers[-1]):
                return

    thread = threading.Thread(target=poll)
    thread.start()
    thread.join()
    return answers[-1]


async def test_a_blocked_loop_is_unhealthy_and_its_stack_is_logged_once() -> None:
    with logged() as records:
        async with monitoring_server(blocked_after_s=0.3) as one:
            before = await ask(one, "/healthz")

            status, body = while_blocked(one.port, lambda status, _: status == 503, "/healthz")
            while_blocked(
                one.port,
                lambda _, body: any(record["event"] == "event loop blocked" for record in records),
                "/healthz",
            )
            while not any(record["event"] == "event loop turns again" for record in records):
                await asyncio.sleep(0.01)
            after = await ask(one, "/healthz")
            measured = (await ask(one, "/metrics")).body.decode()

    assert (before.status, status, after.status) == (200, 503, 200)
    assert re.fullmatch(rb"the event loop has not turned for \d+\.\d s; it hangs in .+\n", body)
    events = [record["event"] for record in records]
    assert events.count("event loop blocked") == 1
    assert events.count("event loop turns again") == 1
    (blocked,) = [record for record in records if record["event"] == "event loop blocked"]
    assert "while_blocked" in blocked["stack"]
    assert "connectors_loop_blocks_total 1.0" in measured
    lag = re.search(r"^connectors_loop_lag_seconds (\S+)$", measured, re.MULTILINE)
    assert lag is not None
    assert float(lag[1]) > 0.2


async def test_a_blocked_loop_is_not_ready_and_the_page_still_comes() -> None:
    async with monitoring_server({"broker": lambda: None}, blocked_after_s=0.3) as one:
        while_blocked(one.port, lambda status, _: status == 503, "/healthz")
        status, body = while_blocked(one.port, lambda status, _: status == 503, "/readyz")
        page_status, page = while_blocked(one.port, lambda status, _: status == 200, "/")

    told = json.loads(body)
    assert status == 503
    assert [check["name"] for check in told["checks"] if not check["ok"]] == ["event_loop"]
    assert page_status == 200
    assert b"the event loop has not" in page


async def test_an_action_that_blocks_the_loop_is_named() -> None:
    async with monitoring_server({"broker": lambda: None}, blocked_after_s=0.3) as one:

        async def action() -> bytes:
            while_blocked(one.port, lambda status, _: status == 503, "/healthz")
            return while_blocked(one.port, lambda status, _: status == 503, "/readyz")[1]

        body = await asyncio.create_task(action(), name="shop.look of job 7")

    (check,) = [check for check in json.loads(body)["checks"] if not check["ok"]]
    assert "it hangs in shop.look of job 7" in check["detail"]


async def test_what_is_open_is_said_and_does_not_count() -> None:
    async with monitoring_server(insecure=["any publisher acts for any tenant"]) as one:
        answer = await ask(one, "/readyz")

    assert 200 == answer.status
    assert ["any publisher acts for any tenant"] == json.loads(answer.body)["insecure"]


async def test_hung_calls_are_named_and_do_not_count() -> None:
    async with monitoring_server(hung_calls=lambda: {"shop.block": 3}) as one:
        answer = await ask(one, "/readyz")

    assert answer.status == 200
    assert {"shop.block": 3} == json.loads(answer.body)["hung_calls"]


async def test_the_pages_policy_allows_its_own_style_and_script_alone() -> None:
    async with monitoring_server(status=FakeStatus()) as one:
        answer = await ask(one, "/")

    policy = answer.headers["Content-Security-Policy"]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.body.decode(), re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nothing"])
async def test_every_answer_brings_security_headers(path: str) -> None:
    async with monitoring_server() as one:
        answer = await ask(one, path)

    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


async def test_a_bug_in_the_status_is_logged_and_answered() -> None:
    with logged() as records:
        async with monitoring_server(status=BrokenStatus()) as one:
            answer = await ask(one, "/")
            health = await ask(one, "/healthz")

    assert (answer.status, health.status) == (500, 200)
    assert b"a bug" not in answer.body
    assert ["monitoring request failed"] == [record["event"] for record in records]
