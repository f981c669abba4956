"""What is published for a job, where to, and with which headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES, Result
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome
from worker.broker.topology import Topology
from worker.job.headers import JobHeaders
from worker.job.publisher import JobPublisher

NOW = datetime(2037, 1, 2, tzinfo=UTC)
DIRECT = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxMjM0NTY3OA.aBcDeF=="
JOB = Job(id="j", connector="crm", action="create")


@dataclass
class Published:
    """One message as it was published."""

    exchange: str
    key: str
    body: bytes
    properties: Properties
    options: Mapping[str, Any]


@dataclass
class Link:
    """A confirmed publisher that keeps what it is given, and ends each publish as it is told."""

    outcomes: list[PublishOutcome] = field(default_factory=list)
    is_open: bool = True
    published: list[Published] = field(default_factory=list)

    async def publish(
        self, exchange: str, key: str, body: bytes, properties: Properties, **options: Any
    ) -> PublishOutcome:
        self.published.append(Published(exchange, key, body, properties, options))
        return self.outcomes.pop(0) if self.outcomes else PublishOutcome.DELIVERED


@dataclass
class Bench:
    """A publisher with both of its links."""

    confirmed: Link = field(default_factory=Link)
    direct: Link = field(default_factory=Link)

    def publisher(self, **options: Any) -> JobPublisher:
        confirmed, direct = (cast("ConfirmedPublisher", each) for each in (self.confirmed, self.direct))
        return JobPublisher(confirmed, direct, Topology(), user="worker", **options)


def _delivery(reply_to: str | None = "callers", headers: dict[str, Any] | None = None) -> Delivery:
    properties = Properties(
        reply_to=reply_to, correlation_id="c", message_id="m", user_id="caller", headers=headers or {}
    )
    channel: Any = SimpleNamespace()
    return Delivery(b'{"id": "j"}', "crm.create", properties, False, 0, 1, channel)


def _headers(delivery: Delivery) -> JobHeaders:
    return JobHeaders.read(delivery, trusted=(), now=NOW)


def _result(data: Any = None) -> Result:
    return Result(
        id="j",
        connector="crm",
        action="create",
        status="succeeded",
        data=data,
        started_at=NOW,
        finished_at=NOW,
        duration_ms=0,
    )


@pytest.mark.parametrize("reply_to", [None, "callers", "amq.gen-abc", DIRECT])
def test_an_address_of_a_caller_may_be_replied_to(reply_to: str | None) -> None:
    assert Bench().publisher().refusal_of(reply_to, None) is None


@pytest.mark.parametrize(
    "reply_to", ["connectors.dead", "connectors.crm", "amq.other", "amq.rabbitmq.reply-to"]
)
def test_an_address_that_is_no_callers_is_refused(reply_to: str) -> None:
    assert "reply_to names" in (Bench().publisher().refusal_of(reply_to, None) or "")


def test_an_address_outside_the_pattern_is_refused() -> None:
    publisher = Bench().publisher(reply_to_pattern=r"rpc\..*")

    assert publisher.refusal_of("rpc.1", None) is None
    assert "PATTERN" in (publisher.refusal_of("callers", None) or "")


def test_direct_reply_to_is_refused_beside_a_reply_exchange() -> None:
    publisher = Bench().publisher(reply_exchange="replies")

    assert "REPLY_EXCHANGE" in (publisher.refusal_of(DIRECT, None) or "")


async def test_a_reply_carries_the_callers_correlation_and_no_header_of_the_job() -> None:
    bench, delivery = Bench(), _delivery(headers={"CC": ["other.queue"], "connectors-attempts": 3})

    await bench.publisher().reply(delivery, _headers(delivery), _result())

    (sent,) = bench.confirmed.published
    assert ("", "callers", "c") == (sent.exchange, sent.key, sent.properties.correlation_id)
    assert {} == sent.properties.headers


async def test_a_direct_reply_goes_over_its_own_link_and_is_not_mandatory() -> None:
    bench, delivery = Bench(), _delivery(DIRECT)

    await bench.publisher().reply(delivery, _headers(delivery), _result())

    (sent,) = bench.direct.published
    assert [] == bench.confirmed.published
    assert sent.options["mandatory"] is False


async def test_a_reply_that_is_too_large_says_so_instead() -> None:
    bench, delivery = Bench(), _delivery()

    await bench.publisher().reply(delivery, _headers(delivery), _result("x" * (MAX_RESULT_BYTES * 2)))

    (sent,) = bench.confirmed.published
    error = Result.model_validate_json(sent.body).error
    assert error is not None
    assert Code.RESULT_TOO_LARGE == error.code


async def test_a_reply_that_the_broker_finds_too_large_is_sent_without_data() -> None:
    bench, delivery = Bench(Link([PublishOutcome.TOO_LARGE])), _delivery()

    outcome = await bench.publisher().reply(delivery, _headers(delivery), _result("data"))

    assert PublishOutcome.DELIVERED is outcome
    assert [True, False] == [b'"data":"data"' in sent.body for sent in bench.confirmed.published]


async def test_a_delayed_job_keeps_its_body_and_key_and_has_our_user() -> None:
    bench, delivery = Bench(), _delivery()
    headers = _headers(delivery).after_snooze(NOW + timedelta(seconds=30))

    await bench.publisher().delay(delivery, headers, NOW)

    (sent,) = bench.confirmed.published
    assert (Topology().retry("30s"), "crm.create", delivery.body) == (sent.exchange, sent.key, sent.body)
    assert ("worker", "m", "callers") == (
        sent.properties.user_id,
        sent.properties.message_id,
        sent.properties.reply_to,
    )
    assert sent.options["must_route"]


async def test_a_rerouted_job_goes_to_the_queue_of_its_body_and_says_so() -> None:
    bench, delivery = Bench(), _delivery()
    job = JOB.model_copy(update={"connector": "erp", "action": "look"})

    await bench.publisher().reroute(delivery, _headers(delivery), job)

    (sent,) = bench.confirmed.published
    assert (Topology().jobs, "erp.look") == (sent.exchange, sent.key)
    assert sent.properties.headers["connectors-rerouted"]


@pytest.mark.parametrize(
    ("outcome", "is_stored"), [(PublishOutcome.DELIVERED, True), (PublishOutcome.REFUSED, False)]
)
async def test_a_dead_letter_says_why_and_whether_it_found_room(
    outcome: PublishOutcome, is_stored: bool
) -> None:
    bench, delivery = Bench(Link([outcome])), _delivery()

    stored = await bench.publisher().dead_letter(
        delivery, _headers(delivery), queue="crm", code=Code.REJECTED, message="x" * 5000, attempts=4
    )

    (sent,) = bench.confirmed.published
    headers = sent.properties.headers
    assert is_stored is stored
    assert (Topology().dead, delivery.body) == (sent.exchange, sent.body)
    assert ("REJECTED", 4, "crm") == tuple(
        headers[f"connectors-{name}"] for name in ("reason", "attempts", "queue")
    )
    assert 1000 == len(headers["connectors-error"])


async def test_progress_is_dropped_while_there_is_no_connection() -> None:
    bench, delivery = Bench(Link(is_open=False)), _delivery()

    bench.publisher().progress(delivery, _headers(delivery), JOB, "started", None)

    assert [] == bench.confirmed.published
