"""What a connector's process is told: its own settings, and the worker's rules for calling out."""

from pathlib import Path

import pytest

from connectors.registry import Installed, Registry
from connectors.sdk.http.client import HttpPolicy
from connectors.sdk.http.egress import Egress
from connectors.sdk.isolation.plan import Plan
from tests.support.isolated_connector import isolated
from worker.job.isolation import isolation_plans


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The isolated connector, as if it were installed."""
    for action in isolated.actions.values():
        monkeypatch.setattr(action, "is_isolated", False)
    entry = Installed("isolated", "acme", "1", isolated, "tests.support.isolated_connector:isolated")
    return Registry({"isolated": entry})


def test_its_actions_are_marked_and_its_plan_holds_the_workers_policy(registry: Registry) -> None:
    policy = HttpPolicy(
        egress=Egress.of(["crm.internal", "10.1.0.0/16", "localhost"]),
        ca_file=Path("/ca.pem"),
        proxy_url="http://p",
    )

    plan = isolation_plans(policy, registry, threads=7)["isolated"]

    assert all(action.is_isolated for action in isolated.actions.values())
    read = Plan.of(["plan", plan.as_json()]).policy()
    assert (policy.egress.hosts, set(policy.egress.networks)) == (
        read.egress.hosts,
        set(read.egress.networks),
    )
    assert (policy.ca_file, policy.proxy_url, 7) == (read.ca_file, read.proxy_url, plan.threads)
    assert "http://p" not in repr(plan)


def test_one_that_was_given_by_hand_runs_in_the_worker(registry: Registry) -> None:
    assert not isolation_plans(HttpPolicy(), Registry.of(isolated), threads=7)
