"""Which actions run in a process of their connector's, and what that process is told."""

import logging
import os

from connectors.registry import Registry
from connectors.sdk.isolation.plan import Plan
from worker.settings import Settings


def isolation_plans(settings: Settings, registry: Registry, *, threads: int) -> dict[str, Plan]:
    """Mark the isolated actions, and return the plan of each connector that has one.

    Args:
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
                plaintext_hosts=tuple(sorted(settings.plaintext_hosts)),
                ca_file=None if settings.ca_file is None else str(settings.ca_file),
                proxy_url=None if settings.proxy_url is None else settings.proxy_url.get_secret_value(),
            )
    return plans
