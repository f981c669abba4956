"""Which actions run in a process of their connector's, and what that process is told."""

import logging
import os

from connectors.registry import Registry
from connectors.sdk.http.policy import HttpPolicy
from connectors.sdk.isolation.plan import Plan


def isolation_plans(policy: HttpPolicy, registry: Registry, *, threads: int) -> dict[str, Plan]:
    """Mark the isolated actions, and return the plan of each connector that has one.

    Args:
        policy: how the processes may call out, as the worker itself.
        threads: synchronous calls of one connector that run at once.
    """
    plans = {}
    for name, installed in registry.installed.items():
        if installed.connector is None:
            continue
        actions = installed.connector.actions.values()
        for action in actions:
            action.is_isolated = bool(installed.reference) and installed.isolation_of(action) == "process"
        if any(action.is_isolated for action in actions):
            plans[name] = Plan(
                connector=name,
                reference=installed.reference,
                worker_pid=os.getpid(),
                settings=dict(installed.connector.settings),
                threads=threads,
                log_level=logging.getLogger().level or logging.INFO,
                egress=tuple(sorted({*policy.egress.hosts, *map(str, policy.egress.networks)})),
                ca_file=None if policy.ca_file is None else str(policy.ca_file),
                proxy_url=policy.proxy_url,
            )
    return plans
