"""The topology as RabbitMQ imports it, for a broker whose workers may not declare anything.

`python -m worker.broker.rabbitmq_definitions` writes the file that compose.yaml mounts; a test compares them.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from worker.broker.topology import Queue, Topology
from worker.settings import OWN_CONNECTORS

#: The file that compose.yaml gives its broker.
FILE: Final = Path(__file__).parents[1] / "ops" / "rabbitmq" / "topology.json"
#: The exchange that replies go through there: a worker that may not publish to the default exchange
#: reaches no queue that did not ask for it.
REPLY_EXCHANGE: Final = "connectors.replies"


def broker_definitions(
    topology: Topology, connectors: Collection[str], *, vhost: str = "/", reply_exchange: str = ""
) -> dict[str, Any]:
    """Return every exchange, queue and binding that a worker with these connectors needs."""
    queues = list(topology.queues())
    for connector in connectors:
        queues += [topology.job_queue(connector, bulk=bulk) for bulk in (False, True)]
    exchanges: list[tuple[str, str, dict[str, Any]]] = [
        (each.name, each.kind, each.arguments) for each in topology.exchanges()
    ]
    if reply_exchange:
        exchanges.append((reply_exchange, "direct", {}))
    durable = {"vhost": vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {"name": name, "type": kind, "internal": False, "arguments": arguments, **durable}
            for name, kind, arguments in exchanges
        ],
        "queues": [{"name": queue.name, "arguments": queue.arguments, **durable} for queue in queues],
        "bindings": [_binding(queue, vhost) for queue in queues],
    }


def compose_text() -> str:
    """Return the text of the file of compose.yaml."""
    definitions = broker_definitions(Topology(), OWN_CONNECTORS, reply_exchange=REPLY_EXCHANGE)
    return json.dumps(definitions, indent=1) + "\n"


def _binding(queue: Queue, vhost: str) -> dict[str, Any]:
    return {
        "source": queue.exchange,
        "destination": queue.name,
        "destination_type": "queue",
        "routing_key": queue.binding_key,
        "arguments": {},
        "vhost": vhost,
    }


if __name__ == "__main__":
    FILE.write_text(compose_text())
    sys.stdout.write(f"{FILE.name}\n")
