"""Every exchange, queue and argument; their names appear nowhere else."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

#: Deliveries of one job before the broker gives it up as poison. The worker parks it on the last one.
DELIVERY_LIMIT: Final = 20
#: No limit in effect. Where it is left out, RabbitMQ 4 sets 20, and the 22nd look would destroy a letter.
UNLIMITED: Final = 1_000_000_000
#: Milliseconds that a dead letter is kept: 14 days.
DEAD_TTL_MS: Final = 14 * 24 * 3600 * 1000
#: The retry rungs by name, in seconds. Fixed queue TTLs, since a long message at the head of a queue
#: holds up the short ones behind it.
RUNGS: Final[dict[str, int]] = {
    "1s": 1,
    "5s": 5,
    "30s": 30,
    "2m": 120,
    "10m": 600,
    "1h": 3600,
    "6h": 21600,
}

ExchangeKind = Literal["topic", "fanout"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: ExchangeKind
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue and its binding."""

    name: str
    exchange: str
    binding_key: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Topology:
    """The names under one prefix, and what is declared under them."""

    prefix: str = "connectors"

    @property
    def jobs(self) -> str:
        """The exchange that jobs are published to."""
        return f"{self.prefix}.jobs"

    @property
    def unrouted(self) -> str:
        """Exchange and queue of jobs that no queue takes."""
        return f"{self.prefix}.unrouted"

    @property
    def dead(self) -> str:
        """Exchange and queue of jobs that a worker parked."""
        return f"{self.prefix}.dead"

    @property
    def poison(self) -> str:
        """Exchange and queue of what no client can decode."""
        return f"{self.prefix}.poison"

    @property
    def ledger(self) -> str:
        """Exchange that lives while workers do, and shows which ledger they share."""
        return f"{self.prefix}.ledger"

    def job_queue_name(self, connector: str, *, bulk: bool = False) -> str:
        """Name the queue of one connector's jobs."""
        return f"{self.jobs}.{connector}{'.bulk' if bulk else ''}"

    def connector_of(self, queue: str) -> str:
        """Name the connector that a queue belongs to."""
        return queue.removeprefix(f"{self.jobs}.").removesuffix(".bulk")

    def retry(self, rung: str) -> str:
        """Name the exchange and queue of one rung."""
        return f"{self.prefix}.retry.{rung}"

    def owns(self, queue: str) -> bool:
        """Say whether a queue's name is one of ours; no reply goes there."""
        return queue == self.prefix or queue.startswith(f"{self.prefix}.")

    def exchanges(self) -> Iterator[Exchange]:
        """List every exchange."""
        yield Exchange(self.unrouted, "fanout")
        yield Exchange(self.poison, "fanout")
        yield Exchange(self.dead, "topic")
        yield Exchange(self.jobs, "topic", {"alternate-exchange": self.unrouted})
        for rung in RUNGS:
            yield Exchange(self.retry(rung), "fanout")  # a fanout keeps the job's own routing key

    def queues(self) -> Iterator[Queue]:
        """List the queues that every worker shares."""
        yield Queue(self.poison, self.poison, "", _quorum(UNLIMITED))
        yield Queue(self.dead, self.dead, "#", {**_quorum(UNLIMITED), "x-message-ttl": DEAD_TTL_MS})
        yield Queue(self.unrouted, self.unrouted, "", self._job_queue_arguments())
        for rung, seconds in RUNGS.items():
            yield Queue(
                self.retry(rung),
                self.retry(rung),
                "",
                {
                    **_quorum(UNLIMITED),
                    "x-message-ttl": seconds * 1000,
                    **_dead_lettering(self.jobs),
                },
            )

    def job_queue(self, connector: str, *, bulk: bool = False) -> Queue:
        """Describe the queue of one queue."""
        key = f"{connector}.*{'.bulk' if bulk else ''}"
        return Queue(self.job_queue_name(connector, bulk=bulk), self.jobs, key, self._job_queue_arguments())

    def _job_queue_arguments(self) -> dict[str, Any]:
        return {**_quorum(DELIVERY_LIMIT), **_dead_lettering(self.poison)}


def routing_key(connector: str, action: str, *, bulk: bool = False) -> str:
    """Say under which key a job is published."""
    return f"{connector}.{action}{'.bulk' if bulk else ''}"


def is_bulk(key: str) -> bool:
    """Say whether a routing key asks for the queue of work that nobody waits for."""
    return key.count(".") == 2 and key.endswith(".bulk")


def _quorum(delivery_limit: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(exchange: str) -> dict[str, Any]:
    # At-least-once wants reject-publish; the default (at-most-once) loses what is unroutable just then.
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
