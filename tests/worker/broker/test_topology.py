"""Exchanges, queues and arguments, as the contract names them."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.runtime.retry import MAX_WAIT_S
from worker.broker.topology import RETRY_DELAYS_S, Topology, is_bulk, retry_delay_for, routing_key


@given(st.floats(0, 100_000))
def test_a_retry_delay_never_exceeds_the_wait_except_the_shortest(wait_s: float) -> None:
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


def test_bulk_is_the_third_word_of_the_routing_key() -> None:
    assert is_bulk(routing_key("dummy", "echo", bulk=True))
    assert not is_bulk(routing_key("dummy", "bulk"))


def test_the_longest_wait_of_a_retry_is_the_longest_retry_queue() -> None:
    assert MAX_WAIT_S == max(RETRY_DELAYS_S.values())
