"""The worker's Prometheus metrics.

Names and labels are those of the wire contract, section 8. A label's values come from closed sets: this
worker's connectors, actions and queues, the codes, a few words of ours. Never an id, never a tenant, because
a publisher could create series without end. For a connector that is not registered, pass `unknown`.
"""

import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from connectors.sdk.http.circuit_breaker import HostLoad
from schemas.error import Category, Code

#: The content type of `render`.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: The outcome of a successful job; otherwise it is a code.
SUCCEEDED: Final = "succeeded"

#: Seconds. From what `dummy` takes to the longest call that a caller waits for.
_DURATION_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Seconds. A job may wait far longer than it runs.
_WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)

#: Seconds that a provider's quota figure stays valid.
_QUOTA_FOR_S: Final = 3600.0
#: Accounts whose quota is kept; the least recently updated is evicted first.
_MAX_ACCOUNTS: Final = 10_000

# Series that exist at zero from the start, because rate() misses the step from nothing to one.
_RETRIED = [code for code in Code if code.facts.retryable]
_ALERTED = [*_RETRIED, *(code for code in Code if code.facts.category in {Category.WORKER, Category.UNKNOWN})]
_REPLY_OUTCOMES = ("delivered", "returned", "refused", "too_large", "uncertain")
_FETCH_OUTCOMES = ("fetched", "cached", "stale", "not_found", "denied", "invalid", "unavailable")


@dataclass(frozen=True, slots=True)
class Totals:
    """The counters since the start, summed up for the status page."""

    #: By connector, then by outcome.
    jobs: Mapping[str, Mapping[str, int]]
    #: By code.
    retries: Mapping[str, int]
    #: By code.
    dead_letters: Mapping[str, int]
    #: By outcome.
    replies: Mapping[str, int]
    #: By outcome.
    credential_fetches: Mapping[str, int]
    broker_connected: bool


class Metrics:
    """The metrics of one worker, in a registry of its own.

    Counting happens on the worker's event loop, reading (`render`, `totals`) in any thread. All updates
    of one job together take 11 µs: the labelled children are kept here, because finding one through
    prometheus-client costs more than counting, and a queue's gauges are plain numbers until they are read.
    """

    def __init__(self, *, version: str) -> None:
        # For the whole process: prometheus-client has no smaller switch.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._jobs = _Counters(
            "connectors_jobs",
            "Jobs that ended, by outcome: succeeded or an error code.",
            ("connector", "action", "outcome"),
            registry,
        )
        self._durations = _Histograms(
            "connectors_job_duration_seconds",
            "Seconds from receiving a job to its outcome.",
            ("connector", "action"),
            _DURATION_BUCKETS,
            registry,
        )
        self._waits = _Histograms(
            "connectors_job_queue_wait_seconds",
            "Seconds from publishing a job to receiving it.",
            ("queue",),
            _WAIT_BUCKETS,
            registry,
        )
        self._retries = _Counters(
            "connectors_retries",
            "Jobs sent to a retry queue, by the code of the failed attempt.",
            ("connector", "code"),
            registry,
        )
        self._dead_letters = _Counters(
            "connectors_dead_letters", "Jobs dead-lettered, by error code.", ("reason",), registry
        )
        self._left_behind = _Counters(
            "connectors_left_behind",
            "Failed jobs that could not undo what they had done at the provider.",
            ("connector", "action"),
            registry,
        )
        self._replies = _Counters(
            "connectors_replies",
            "Replies: delivered, returned as undeliverable, refused by the broker, or uncertain.",
            ("outcome",),
            registry,
        )
        self._fetches = _Counters(
            "connectors_credential_fetches", "Credentials requested, by outcome.", ("outcome",), registry
        )
        self._calls = _Histograms(
            "connectors_http_call_duration_seconds",
            "Outbound HTTP requests, by how far inside the host lies (public, loopback, internal) and how "
            "they ended (2xx to 5xx, timeout, unreachable, cut, oversize, refused, held, left).",
            ("reach", "outcome"),
            _DURATION_BUCKETS,
            registry,
        )
        self._queues = _QueueGauges()
        registry.register(self._queues)
        self._host_loads = _HostLoadGauges()
        registry.register(self._host_loads)
        self._quotas = _QuotaGauges()
        registry.register(self._quotas)
        self._broker = Gauge(
            "connectors_broker_connected", "1 while the worker is connected to the broker.", registry=registry
        )
        self._loop_lag = Gauge(
            "connectors_loop_lag_seconds",
            "Worst lag of the event loop within the last minute.",
            registry=registry,
        )
        self._loop_blocks = Counter(
            "connectors_loop_blocks", "Times that the event loop was blocked for seconds.", registry=registry
        )
        self._log_drops = Counter(
            "connectors_log_lines_dropped",
            "Log lines lost because the log's stream was slow or closed.",
            registry=registry,
        )
        self._hung = Gauge(
            "connectors_hung_calls",
            "Calls of a connector that go on though they were given up: their threads or tasks hang.",
            ("connector",),
            registry=registry,
        )
        self._processes = Gauge(
            "connectors_isolated_processes",
            "Processes of a connector that runs in its own, those included whose calls hang.",
            ("connector",),
            registry=registry,
        )
        self._process_ends = Counter(
            "connectors_isolated_process_ends",
            "Times that a connector's process died or was killed because a call of it hung.",
            ("connector",),
            registry=registry,
        )
        self._connectors = Gauge(
            "connectors_connector_info",
            "1 for each connector that runs, with its distribution and version.",
            ("connector", "distribution", "version"),
            registry=registry,
        )
        build = Info("connectors_build", "What is running.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})
        ProcessCollector(registry=registry)
        self._start_at_zero()

    def add_connector(
        self, connector: str, actions: Iterable[str], *, distribution: str = "", version: str = ""
    ) -> None:
        """Start a connector's series at zero, and record its distribution and version."""
        self._connectors.labels(connector, distribution, version).set(1)
        self._hung.labels(connector).set(0)
        self._processes.labels(connector).set(0)
        self._process_ends.labels(connector).inc(0)
        for action in actions:
            for outcome in (SUCCEEDED, *_ALERTED):
                self._jobs[connector, action, outcome].inc(0)
        for code in _RETRIED:
            self._retries[connector, code].inc(0)

    def add_queue(self, queue: str, slots: int) -> None:
        """Start a queue's series at zero, with all its slots free."""
        self._queues.running.setdefault(queue, 0)
        self._queues.slots.setdefault(queue, (0, slots))

    def job_waited(self, queue: str, wait_s: float) -> None:
        """Record how long a job waited in its queue."""
        self._waits[queue,].observe(wait_s)

    def job_started(self, queue: str) -> None:
        """Count a job as in progress."""
        running = self._queues.running
        running[queue] = running.get(queue, 0) + 1

    def job_ended(self, queue: str) -> None:
        """Count a job as no longer in progress."""
        self._queues.running[queue] -= 1

    def job_finished(self, connector: str, action: str, outcome: str, duration_s: float) -> None:
        """Count a finished job; `outcome` is `succeeded` or a code."""
        self._jobs[connector, action, outcome].inc()
        self._durations[connector, action].observe(duration_s)

    def slots(self, queue: str, used: int, free: int) -> None:
        """Record a queue's slots."""
        self._queues.slots[queue] = (used, free)

    def retried(self, connector: str, code: str) -> None:
        """Count a job that was sent to a retry queue."""
        self._retries[connector, code].inc()

    def dead_lettered(self, reason: str) -> None:
        """Count a dead-lettered job."""
        self._dead_letters[reason,].inc()

    def left_behind(self, connector: str, action: str) -> None:
        """Count a failed job that says what it could not undo at the provider."""
        self._left_behind[connector, action].inc()

    def replied(self, outcome: str) -> None:
        """Count a reply: delivered, returned, refused or uncertain."""
        self._replies[outcome,].inc()

    def credential_fetched(self, outcome: str) -> None:
        """Count a requested credential: fetched, cached, stale, or why there was none."""
        self._fetches[outcome,].inc()

    def called_out(self, reach: str, outcome: str, duration_s: float) -> None:
        """Record an outbound HTTP request; both labels come from closed sets of the HTTP layer."""
        self._calls[reach, outcome].observe(duration_s)

    def quota_seen(self, account: tuple[str, str, str], used: int, total: int) -> None:
        """Record how much of an account's quota (tenant, connector, credential) is used."""
        self._quotas.seen(account, used / total if total > 0 else 1.0)

    def broker_connected(self, connected: bool) -> None:
        """Record whether the worker is connected to the broker."""
        self._broker.set(1 if connected else 0)

    def calls_hung(self, connector: str, calls: int) -> None:
        """Record how many calls of a connector hang."""
        self._hung.labels(connector).set(calls)

    def processes(self, connector: str, count: int) -> None:
        """Record how many processes a connector has."""
        self._processes.labels(connector).set(count)

    def process_ended(self, connector: str) -> None:
        """Count a connector's process that ended before the worker."""
        self._process_ends.labels(connector).inc()

    def host_loads_from(self, read: Callable[[], Mapping[str, HostLoad]]) -> None:
        """Read by connector what its outbound calls do now, whenever the metrics are read."""
        self._host_loads.read = read

    def loop_lag_from(self, read_lag_s: Callable[[], float]) -> None:
        """Read the loop's lag from this function whenever the metrics are read."""
        self._loop_lag.set_function(read_lag_s)

    def loop_blocked(self) -> None:
        """Count a block of the event loop."""
        self._loop_blocks.inc()

    def log_lines_dropped(self, lines: int) -> None:
        """Count log lines that were lost; any thread may call this."""
        self._log_drops.inc(lines)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def totals(self) -> Totals:
        """Return the sums of the counters."""
        return Totals(
            jobs={name: self._jobs.sums("outcome", connector=name) for name in self._jobs.sums("connector")},
            retries=self._retries.sums("code"),
            dead_letters=self._dead_letters.sums("reason"),
            replies=self._replies.sums("outcome"),
            credential_fetches=self._fetches.sums("outcome"),
            broker_connected=bool(self._registry.get_sample_value("connectors_broker_connected")),
        )

    def _start_at_zero(self) -> None:
        for code in Code:
            self._dead_letters[code,].inc(0)
        for outcome in _REPLY_OUTCOMES:
            self._replies[outcome,].inc(0)
        for outcome in _FETCH_OUTCOMES:
            self._fetches[outcome,].inc(0)


class _Counters(dict[tuple[str, ...], Counter]):
    """The children of one counter by their labels."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], registry: CollectorRegistry) -> None:
        super().__init__()
        self._parent = Counter(name, text, labels, registry=registry)

    def __missing__(self, labels: tuple[str, ...]) -> Counter:
        child = self[labels] = self._parent.labels(*labels)
        return child

    def sums(self, by: str, **only: str) -> dict[str, int]:
        """Return the sums by one label, over the children that have the labels `only`."""
        sums: dict[str, int] = {}
        for metric in self._parent.collect():
            for sample in metric.samples:
                if only.items() <= sample.labels.items():
                    key = sample.labels[by]
                    sums[key] = sums.get(key, 0) + int(sample.value)
        return sums


class _Histograms(dict[tuple[str, ...], Histogram]):
    """The children of one histogram by their labels."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        super().__init__()
        self._parent = Histogram(name, text, labels, buckets=buckets, registry=registry)

    def __missing__(self, labels: tuple[str, ...]) -> Histogram:
        child = self[labels] = self._parent.labels(*labels)
        return child


class _QueueGauges(Collector):
    """A queue's jobs and slots now: plain numbers, made into metrics when they are read."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.slots: dict[str, tuple[int, int]] = {}

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily(
            "connectors_jobs_in_progress", "Jobs received and not settled yet.", labels=("queue",)
        )
        for queue, jobs in self.running.copy().items():
            running.add_metric((queue,), jobs)
        yield running
        slots = GaugeMetricFamily(
            "connectors_slots", "A queue's slots, used and free.", labels=("queue", "state")
        )
        for queue, (used, free) in self.slots.copy().items():
            slots.add_metric((queue, "used"), used)
            slots.add_metric((queue, "free"), free)
        yield slots


class _HostLoadGauges(Collector):
    """What the outbound calls of each connector do now: hosts come from credentials, and are no label."""

    def __init__(self) -> None:
        self.read: Callable[[], Mapping[str, HostLoad]] = dict

    def collect(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "connectors_http_in_flight",
            "Outbound HTTP calls that hold a connection now.",
            labels=("connector",),
        )
        waiting = GaugeMetricFamily(
            "connectors_http_waiting",
            "Outbound HTTP calls that wait for a connection, or for a call of their account to end.",
            labels=("connector",),
        )
        limit = GaugeMetricFamily(
            "connectors_http_lowest_limit",
            "Lowest limit of calls in flight among the accounts that have calls now.",
            labels=("connector",),
        )
        for connector, load in self.read().items():
            in_flight.add_metric((connector,), load.in_flight)
            waiting.add_metric((connector,), load.waiting)
            limit.add_metric((connector,), load.lowest_limit)
        yield from (in_flight, waiting, limit)


class _QuotaGauges(Collector):
    """The used share of quota of each connector's fullest account: one series, however many accounts."""

    def __init__(self) -> None:
        self._used: OrderedDict[tuple[str, str, str], tuple[float, float]] = OrderedDict()

    def seen(self, account: tuple[str, str, str], ratio: float) -> None:
        """Record the newest figure of an account."""
        self._used[account] = ratio, time.monotonic()
        self._used.move_to_end(account)
        if len(self._used) > _MAX_ACCOUNTS:
            self._used.popitem(last=False)

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily(
            "connectors_provider_quota_used_ratio",
            "Share of a provider's quota that the fullest account has used, by figures of the last hour.",
            labels=("connector",),
        )
        since = time.monotonic() - _QUOTA_FOR_S
        fullest: dict[str, float] = {}
        for (_, connector, _), (ratio, seen_at) in self._used.copy().items():
            if seen_at > since:
                fullest[connector] = max(ratio, fullest.get(connector, 0.0))
        for connector, ratio in fullest.items():
            gauge.add_metric((connector,), ratio)
        yield gauge
