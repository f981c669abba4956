"""Where replies may go, by who asks."""

import pytest

from connectors.sdk.runtime.publisher_rights import PublisherRights
from worker.broker.topology import Topology
from worker.job.reply_addresses import DIRECT, ReplyAddresses

TOPOLOGY = Topology("connectors")
DIRECT_ADDRESS = f"{DIRECT}g1h2AA5yZXBseUAxMTQ5.7LHkNlV3"
MAPPED = {
    "agent": PublisherRights(tenants=("acme",)),
    "desk": PublisherRights(tenants=("acme",), reply_to=r"desk-[0-9]+"),
}


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize("reply_to", [None, "amq.gen-abc", DIRECT_ADDRESS, "agent.replies.1"])
def test_a_mapped_publisher_is_replied_to_at_addresses_of_its_own(
    reply_to: str | None, is_strict: bool
) -> None:
    rule = ReplyAddresses(TOPOLOGY, publishers=MAPPED, is_strict=is_strict)

    assert rule.refusal(reply_to, "agent") is None


@pytest.mark.parametrize(
    ("reply_to", "publisher"),
    [
        ("callers", "agent"),
        ("other.replies", "agent"),
        ("agent.replies", None),
        ("agentx", "agent"),
        (".x", ""),
    ],
)
def test_another_queue_is_refused_where_publishers_are_mapped(reply_to: str, publisher: str | None) -> None:
    rule = ReplyAddresses(TOPOLOGY, publishers=MAPPED)

    assert "no address of the publisher's own" in (rule.refusal(reply_to, publisher) or "")


def test_strict_without_rights_is_as_narrow() -> None:
    assert ReplyAddresses(TOPOLOGY).refusal("callers", None) is None
    assert ReplyAddresses(TOPOLOGY, is_strict=True).refusal("callers", None) is not None


def test_a_pattern_takes_the_place_of_the_rule_and_a_publishers_own_of_that() -> None:
    rule = ReplyAddresses(TOPOLOGY, pattern=r"rpc\..*", publishers=MAPPED)

    assert rule.refusal("rpc.1", "agent") is None
    assert "PATTERN" in (rule.refusal("agent.1", "agent") or "")
    assert rule.refusal("desk-1", "desk") is None
    assert "own pattern" in (rule.refusal("rpc.1", "desk") or "")


@pytest.mark.parametrize("reply_to", ["connectors.jobs.http", "amq.other", "connectors.dead"])
def test_no_rule_opens_a_queue_of_ours(reply_to: str) -> None:
    for rule in (ReplyAddresses(TOPOLOGY, pattern=".*"), ReplyAddresses(TOPOLOGY)):
        assert rule.refusal(reply_to, "connectors") is not None
