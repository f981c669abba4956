import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connectors.sdk.http.circuit_breaker import HostLoad
from schemas.error import Category, Code
from worker.broker.confirmed_publisher import PublishOutcome
from worker.credentials.source import FetchOutcome
from worker.metrics import CONTENT_TYPE, Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="1.2.3")


def samples(metrics: Metrics, name: str) -> Iterator[tuple[dict[str, str], float]]:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name:
                yield sample.labels, sample.value


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return next((count for found, count in samples(metrics, name) if found == labels), None)


def work_a_bit(metrics: Metrics) -> None:
    metrics.add_connector("dummy", ["echo"])
    metrics.add_queue("jobs.dummy", 100)
    metrics.job_waited("jobs.dummy", 0.1)
    metrics.job_started("jobs.dummy")
    metrics.slots("jobs.dummy", 1, 99)
    metrics.job_finished("dummy", "echo", "succeeded", 0.004)
    metrics.retried("dummy", Code.TIMEOUT)
    metrics.dead_lettered(Code.CONNECTOR_ERROR)
    metrics.replied("delivered")
    metrics.credential_fetched("fetched")
    metrics.broker_connected(True)
    metrics.called_out("public", "2xx", 0.2)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("connectors_jobs_total", {"connector", "action", "outcome"}),
        ("connectors_job_duration_seconds_bucket", {"connector", "action", "le"}),
        ("connectors_job_queue_wait_seconds_bucket", {"queue", "le"}),
        ("connectors_jobs_in_progress", {"queue"}),
        ("connectors_slots", {"queue", "state"}),
        ("connectors_retries_total", {"connector", "code"}),
        ("connectors_dead_letters_total", {"reason"}),
        ("connectors_replies_total", {"outcome"}),
        ("connectors_credential_fetches_total", {"outcome"}),
        ("connectors_http_call_duration_seconds_bucket", {"reach", "outcome", "le"}),
        ("connectors_broker_connected", set()),
        ("connectors_build_info", {"version", "python"}),
        ("connectors_loop_lag_seconds", set()),
        ("connectors_log_lines_dropped_total", set()),
        ("process_resident_memory_bytes", set()),
    ],
)
def test_every_metric_of_the_contract_has_its_name_and_labels(
    metrics: Metrics, name: str, labels: set[str]
) -> None:
    work_a_bit(metrics)

    found = list(samples(metrics, name))

    assert found
    assert all(labels == set(one) for one, _ in found)


def test_a_job_is_counted_once_with_its_outcome_and_duration(metrics: Metrics) -> None:
    work_a_bit(metrics)

    labels = {"connector": "dummy", "action": "echo"}
    assert value(metrics, "connectors_jobs_total", **labels, outcome="succeeded") == 1
    assert value(metrics, "connectors_job_duration_seconds_count", **labels) == 1
    assert value(metrics, "connectors_job_duration_seconds_bucket", **labels, le="0.005") == 1
    assert value(metrics, "connectors_job_queue_wait_seconds_sum", queue="jobs.dummy") == 0.1


def test_a_queue_shows_what_is_in_progress_and_its_slots(metrics: Metrics) -> None:
    work_a_bit(metrics)
    during = value(metrics, "connectors_jobs_in_progress", queue="jobs.dummy")

    metrics.job_ended("jobs.dummy")

    assert during == 1
    assert value(metrics, "connectors_jobs_in_progress", queue="jobs.dummy") == 0
    assert value(metrics, "connectors_slots", queue="jobs.dummy", state="used") == 1
    assert value(metrics, "connectors_slots", queue="jobs.dummy", state="free") == 99


def test_alerted_failures_start_at_zero(metrics: Metrics) -> None:
    metrics.add_connector("dummy", ["echo"])

    outcomes = {
        labels["outcome"] for labels, count in samples(metrics, "connectors_jobs_total") if count == 0
    }

    expected = {code for code in Code if code.facts.retryable or code.facts.category is Category.WORKER}
    assert {"succeeded", "OUTCOME_UNKNOWN", *expected} <= outcomes


def test_outcomes_known_elsewhere_begin_at_zero(metrics: Metrics) -> None:
    replies = {labels["outcome"] for labels, _ in samples(metrics, "connectors_replies_total")}
    fetches = {labels["outcome"] for labels, _ in samples(metrics, "connectors_credential_fetches_total")}
    reasons = {labels["reason"] for labels, _ in samples(metrics, "connectors_dead_letters_total")}

    assert set(PublishOutcome) <= replies
    assert set(FetchOutcome) == fetches
    assert set(Code) == reasons


def test_no_created_series(metrics: Metrics) -> None:
    work_a_bit(metrics)

    assert "_created" not in metrics.render().decode()


def test_names_are_snake_case_with_base_units(metrics: Metrics) -> None:
    work_a_bit(metrics)

    families = [family.name for family in text_string_to_metric_families(metrics.render().decode())]

    ours = [name for name in families if not name.startswith("process_")]
    assert all(re.fullmatch(r"connectors_[a-z_]+", name) for name in ours)
    assert not [name for name in ours if re.search(r"_(ms|minutes|kb|percent)\b", name)]


def test_two_workers_in_one_process_count_apart(metrics: Metrics) -> None:
    other = Metrics(version="1.2.3")

    metrics.replied("delivered")

    assert value(other, "connectors_replies_total", outcome="delivered") == 0


def test_build_info_names_the_version(metrics: Metrics) -> None:
    (labels, count), *_ = samples(metrics, "connectors_build_info")

    assert labels["version"] == "1.2.3"
    assert count == 1


def test_the_loop_lag_is_read_with_the_metrics(metrics: Metrics) -> None:
    lags = iter([0.5, 2.0])
    metrics.loop_lag_from(lambda: next(lags))

    assert value(metrics, "connectors_loop_lag_seconds") == 0.5
    assert value(metrics, "connectors_loop_lag_seconds") == 2.0


def test_totals_sum_up_the_counters(metrics: Metrics) -> None:
    work_a_bit(metrics)
    metrics.job_finished("dummy", "ping", "succeeded", 0.001)
    metrics.job_finished("dummy", "ping", Code.TIMEOUT, 0.001)
    metrics.job_finished("unknown", "unknown", Code.CONNECTOR_NOT_FOUND, 0.001)

    totals = metrics.totals()

    assert totals.jobs["dummy"]["succeeded"] == 2
    assert totals.jobs["dummy"]["TIMEOUT"] == 1
    assert totals.jobs["unknown"] == {"CONNECTOR_NOT_FOUND": 1}
    assert totals.retries["TIMEOUT"] == 1
    assert totals.dead_letters["CONNECTOR_ERROR"] == 1
    assert totals.replies["delivered"] == 1
    assert totals.credential_fetches["fetched"] == 1
    assert totals.broker_connected


def test_the_content_type_is_prometheus_text() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_the_fullest_account_of_a_connector_makes_its_quota(metrics: Metrics) -> None:
    for number in range(10_100):
        metrics.quota_seen((f"tenant-{number}", "crm", "default"), 10, 100)
    metrics.quota_seen(("acme", "crm", "default"), 90, 100)
    metrics.quota_seen(("acme", "erp", "default"), 1, 0)

    found = list(samples(metrics, "connectors_provider_quota_used_ratio"))

    assert [({"connector": "crm"}, 0.9), ({"connector": "erp"}, 1.0)] == sorted(found, key=str)


def test_outbound_calls_are_counted_by_connector() -> None:
    metrics = Metrics(version="1")
    metrics.host_loads_from(lambda: {"crm": HostLoad(in_flight=3, waiting=2, lowest_limit=4)})

    text = metrics.render().decode()

    for line in ("in_flight", "waiting", "lowest_limit"):
        assert f'connectors_http_{line}{{connector="crm"}}' in text


def test_the_processes_of_a_connector_are_counted() -> None:
    metrics = Metrics(version="1")
    metrics.add_connector("crm", [])
    metrics.processes("crm", 2)
    metrics.process_ended("crm")

    text = metrics.render().decode()

    assert 'connectors_isolated_processes{connector="crm"} 2.0' in text
    assert 'connectors_isolated_process_ends_total{connector="crm"} 1.0' in text
