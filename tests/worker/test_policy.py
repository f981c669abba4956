"""Retry, topology, history, settings, limits: the rules, without a broker."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.retry import MAX_WAIT_S
from schemas.error import Code
from worker.broker import Delivery, Properties
from worker.broker.topology import RETRY_DELAYS_S, Topology, is_bulk, retry_delay_for, routing_key
from worker.job.concurrency import RETURN_S, RETURNS_PER_S, ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.retry import DELAYS_S, GiveUp, Retry, backoff_s, decide
from worker.settings import SettingError, Settings, load_settings, masked, unknown_names

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def _decide(code: Code = Code.UNAVAILABLE, **how: Any) -> Retry | GiveUp:
    facts: dict[str, Any] = {
        "failures": 1,
        "max_attempts": 5,
        "now": NOW,
        "deadline": None,
        "retry_after_s": None,
        "chance": 0.5,
    }
    return decide(code, **{**facts, **how})


@pytest.mark.parametrize("code", Code)
def test_only_what_may_pass_is_tried_again(code: Code) -> None:
    assert code.facts.retryable == isinstance(_decide(code), Retry)


def test_the_last_attempt_gives_up() -> None:
    assert isinstance(_decide(failures=4), Retry)
    assert GiveUp() == _decide(failures=5)


def test_no_try_is_planned_beyond_the_deadline() -> None:
    assert GiveUp(at_deadline=True) == _decide(deadline=NOW + timedelta(seconds=0.7))
    assert isinstance(_decide(deadline=NOW + timedelta(seconds=0.8)), Retry)


def test_retry_after_is_kept() -> None:
    assert Retry(NOW + timedelta(seconds=90)) == _decide(Code.RATE_LIMITED, retry_after_s=90.0)


def test_a_wait_beyond_the_longest_retry_delay_is_not_waited() -> None:
    assert MAX_WAIT_S == max(RETRY_DELAYS_S.values())
    assert isinstance(_decide(Code.RATE_LIMITED, retry_after_s=max(RETRY_DELAYS_S.values())), Retry)
    assert GiveUp() == _decide(Code.RATE_LIMITED, retry_after_s=max(RETRY_DELAYS_S.values()) + 1)


@given(st.integers(1, 50), st.floats(0, 1))
def test_each_delay_is_drawn_between_half_and_whole_of_its_step(failures: int, chance: float) -> None:
    step_s = DELAYS_S[min(failures, len(DELAYS_S)) - 1]

    assert step_s / 2 <= backoff_s(failures, chance) <= step_s


@given(st.floats(0, 100_000))
def test_a_retry_delay_never_exceeds_the_wait_but_for_the_shortest(wait_s: float) -> None:
    delay = retry_delay_for(wait_s)

    assert RETRY_DELAYS_S[delay] <= wait_s or delay == "1s"
    assert not [seconds for seconds in RETRY_DELAYS_S.values() if RETRY_DELAYS_S[delay] < seconds <= wait_s]


def test_the_topology_is_the_contracts() -> None:
    topology = Topology()
    queues = {queue.name: queue for queue in topology.queues()}
    queue, bulk = topology.job_queue("dummy"), topology.job_queue("dummy", bulk=True)

    assert {
        "connectors.jobs": "topic",
        "connectors.dead": "topic",
        "connectors.unrouted": "fanout",
        "connectors.poison": "fanout",
        **{f"connectors.retry.{delay}": "fanout" for delay in ("1s", "5s", "30s", "2m", "10m", "1h", "6h")},
    } == {exchange.name: exchange.kind for exchange in topology.exchanges()}
    assert ("connectors.jobs.dummy", "dummy.*") == (queue.name, queue.binding_key)
    assert ("connectors.jobs.dummy.bulk", "dummy.*.bulk") == (bulk.name, bulk.binding_key)
    assert {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "connectors.poison",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    } == queue.arguments
    assert 14 * 24 * 3600 * 1000 == queues["connectors.dead"].arguments["x-message-ttl"]
    assert 1_000_000_000 == queues["connectors.dead"].arguments["x-delivery-limit"]
    assert [1000, 5000, 30_000, 120_000, 600_000, 3_600_000, 21_600_000] == [
        queues[topology.retry(delay)].arguments["x-message-ttl"] for delay in RETRY_DELAYS_S
    ]
    assert all("x-delivery-limit" in queue.arguments for queue in queues.values())
    assert all(queue.arguments["x-queue-type"] == "quorum" for queue in queues.values())


def test_bulk_is_a_third_word_of_the_routing_key() -> None:
    assert is_bulk(routing_key("dummy", "echo", bulk=True))
    assert not is_bulk(routing_key("dummy", "bulk"))


def _delivery(headers: dict[str, Any], user_id: str | None) -> Delivery:
    return Delivery(b"", "dummy.echo", Properties(user_id=user_id, headers=headers), False, 0, 1, None)  # type: ignore[arg-type]


def test_what_is_written_is_read_again_from_a_trusted_user() -> None:
    written = JobHeaders(NOW, publisher="agent", starts=2, failures=1, hops=3, not_before=NOW, rerouted=True)

    read = JobHeaders.read(_delivery(written.headers(), "worker"), trusted={"worker"}, now=NOW)

    assert written == read


@pytest.mark.parametrize("user_id", [None, "agent"])
def test_headers_of_ours_count_for_nothing_from_anybody_else(user_id: str | None) -> None:
    forged = JobHeaders(
        NOW, publisher="boss", starts=10**9, failures=4, rerouted=True, deadline="none"
    ).headers()
    forged["x-death"] = [{"count": 99}]

    read = JobHeaders.read(_delivery(forged, user_id), trusted={"worker"}, now=NOW)

    assert (user_id, 0, 0, False, None) == (
        read.publisher, read.starts, read.failures, read.rerouted, read.deadline,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["x", 1, None, b"\xff", [], "00-" + "0" * 10_000])
def test_a_traceparent_that_is_none_is_dropped(value: Any) -> None:
    assert JobHeaders.read(_delivery({"traceparent": value}, None), trusted=(), now=NOW).traceparent is None


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.chdir(tmp_path)
    for name in ("RABBITMQ_URL", "VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONNECTORS_CONCURRENCY", "many", "CONNECTORS_CONCURRENCY='many'"),
        ("CONNECTORS_CONCURRENCY", "0", "CONNECTORS_CONCURRENCY"),
        ("CONNECTORS_RABBITMQ_URL", "http://x", "CONNECTORS_RABBITMQ_URL"),
        ("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@broker.example/", "CONNECTORS_PLAINTEXT_HOSTS"),
        ("CONNECTORS_RABBITMQ_URL", "amqps://u:hunter2@b.example/?no_verify_ssl=1", "CONNECTORS_CA_FILE"),
        ("CONNECTORS_ENABLED", " , ", "CONNECTORS_ENABLED"),
        ("CONNECTORS_PUBLISHERS", '{"agent": ["../x"]}', "CONNECTORS_PUBLISHERS"),
        ("CONNECTORS_REPLY_TO_PATTERN", "(", "CONNECTORS_REPLY_TO_PATTERN"),
        ("CONNECTORS_VAULT_URL", "https://vault.example", "CONNECTORS_VAULT_ROLE_ID"),
        ("CONNECTORS_CA_FILE", "/nowhere/ca.pem", "cannot be read"),
        ("CONNECTORS_LOG_LEVEL", "loud", "CONNECTORS_LOG_LEVEL"),
        ("CONNECTORS_GOOGLE_CALENDAR_API_URL", "http://calendar.example/v3", "CONNECTORS_PLAINTEXT_HOSTS"),
        ("CONNECTORS_GOOGLE_CALENDAR_API_URL", "calendar.example", "https://host"),
        ("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@localhost:99999/", "CONNECTORS_RABBITMQ_URL"),
        ("CONNECTORS_VAULT_URL", "ftp://u:hunter2@vault.example", "ftp://u:******@vault.example"),
        ("CONNECTORS_DATABASE_URL", "postgresql://u:hunter2@localhost:99999/x", "CONNECTORS_DATABASE_URL"),
        ("CONNECTORS_DRAIN_SECONDS", "inf", "CONNECTORS_DRAIN_SECONDS"),
        ("CONNECTORS_CA_FILE", __file__, "no certificate"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_tells_no_secret(
    settings: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    settings.setenv(name, value)

    with pytest.raises(SettingError) as caught:
        load_settings()

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())


def test_the_older_variables_and_a_dotenv_are_read(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CONNECTORS_CONCURRENCY=7\n")
    settings.setenv("RABBITMQ_URL", "amqp://a:b@localhost/")
    settings.setenv("VAULT_TOKEN", "ambient")

    read = load_settings()

    assert (7, "a", None) == (read.concurrency, read.broker_user, read.vault_token)


def test_a_connector_gets_its_own_settings_and_nothing_else(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("CONNECTORS_GOOGLE_CALENDAR_API_URL", "http://127.0.0.1:8080/calendar/v3/")
    settings.setenv("CONNECTORS_VAULT_TOKEN", "hunter2")

    read = load_settings()

    assert {"api_url": "http://127.0.0.1:8080/calendar/v3"} == read.of_connector("google_calendar")
    assert {} == read.of_connector("vault") == read.of_connector("dummy")


def test_secrets_are_masked_where_settings_are_shown(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@localhost/")
    settings.setenv("CONNECTORS_DATABASE_URL", "postgresql://u:hun@ter3@localhost/x?a=b&password=hunter5&c=d")
    settings.setenv("CONNECTORS_VAULT_TOKEN", "hunter4")
    settings.setenv("CONNECTORS_VAULT_URL", "https://u:hunter6@vault.example")

    shown = str(masked(load_settings()))

    assert not [n for n in range(2, 7) if f"hunter{n}" in shown or f"ter{n}" in shown]
    assert "postgresql://u:******@localhost/x?a=b&password=******&c=d" in shown


def test_a_slip_of_the_pen_is_found() -> None:
    assert ["CONNECTORS_CONCURENCY"] == unknown_names({"CONNECTORS_CONCURENCY": "1", "PATH": ""})
    assert not unknown_names({f"CONNECTORS_{name.upper()}": "" for name in Settings.model_fields})


async def test_bulk_work_holds_a_quarter_of_the_slots_at_most() -> None:
    slots = ConcurrencyLimiter(8, tenant_total=4)

    async with slots.hold(bulk=True), slots.hold(bulk=True):
        waiting = asyncio.ensure_future(_hold(slots))
        await asyncio.sleep(0)
        assert not waiting.done()
        async with slots.hold():
            assert 3 == slots.used
    await waiting


async def _hold(slots: ConcurrencyLimiter) -> None:
    async with slots.hold(bulk=True):
        pass


async def test_the_more_jobs_of_a_tenant_are_over_its_share_the_later_they_come_back() -> None:
    crowded, alone = ConcurrencyLimiter(4), ConcurrencyLimiter(4)

    few = [alone.send_round("a") for _ in range(5)]
    many = [crowded.send_round("a") for _ in range(10_000)]

    assert {1.0} == set(few)
    assert set(RETURN_S) == set(many)
    by_step = Counter(many[-1000:])
    a_second = sum(10 * count / step_s for step_s, count in by_step.items())
    assert RETURNS_PER_S / 2 < a_second < RETURNS_PER_S * 3
    assert crowded.send_round("b") == 1.0
    assert set(RETURN_S) <= {float(seconds) for seconds in RETRY_DELAYS_S.values()}


def test_one_tenant_is_admitted_to_its_share() -> None:
    slots = ConcurrencyLimiter(4, tenant_total=1)

    with slots.admit("a") as first, slots.admit("a") as second, slots.admit("b") as other:
        assert (True, False, True) == (first, second, other)
    with slots.admit("a") as again:
        assert again
