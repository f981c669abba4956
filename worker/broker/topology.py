"""Every exchange, queue and argument; their names appear nowhere else."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

#: Deliveries of one job before the broker dead-letters it as poison. The worker answers it on the last one.
DELIVERY_LIMIT: Final = 20
#: No limit in effect. If it is left out, RabbitMQ 4 sets 20, and the 22nd look would destroy a dead letter.
UNLIMITED: Final = 1_000_000_000
#: Milliseconds that a dead letter is kept: 14 days.
DEAD_TTL_MS: Final = 14 * 24 * 3600 * 1000
#: The delays of the retry queues by name, in seconds. Fixed queue TTLs, because a long message at the head
#: of a queue blocks the short ones behind it.
RETRY_DELAYS_S: Final[dict[str, int]] = {
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
class JobQueue:
    """A queue that jobs are consumed from."""

    name: str
    #: The connector whose jobs belong here; None for the unrouted queue.
    connector: str | None
    #: Work that no caller waits for.
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Topology:
    """The names under one prefix, and the exchanges and queues that are declared."""

    prefix: str = "connectors"

    @property
    def jobs(self) -> str:
        """The exchange that jobs are published to."""
        return f"{self.prefix}.jobs"

    @property
    def unrouted(self) -> str:
        """Exchange and queue of jobs that no connector's queue is bound for."""
        return f"{self.prefix}.unrouted"

    @property
    def dead(self) -> str:
        """Exchange and queue of dead-lettered jobs."""
        return f"{self.prefix}.dead"

    @property
    def poison(self) -> str:
        """Exchange and queue of messages that the broker dead-lettered by itself."""
        return f"{self.prefix}.poison"

    @property
    def ledger(self) -> str:
        """Exchange that lives as long as a worker holds it; its arguments name the ledger they share."""
        return f"{self.prefix}.ledger"

    def job_queue_name(self, connector: str, *, bulk: bool = False) -> str:
        """Return the name of one connector's queue."""
        return f"{self.jobs}.{connector}{'.bulk' if bulk else ''}"

    def connector_of(self, queue: str) -> str:
        """Return the connector that a queue belongs to."""
        return queue.removeprefix(f"{self.jobs}.").removesuffix(".bulk")

    def retry(self, delay: str) -> str:
        """Return the name of the retry exchange and queue of one delay."""
        return f"{self.prefix}.retry.{delay}"

    def owns(self, queue: str) -> bool:
        """Return whether a queue's name is one of ours; no reply goes there."""
        return queue == self.prefix or queue.startswith(f"{self.prefix}.")

    def exchanges(self) -> Iterator[Exchange]:
        """Yield every exchange."""
        yield Exchange(self.unrouted, "fanout")
        yield Exchange(self.poison, "fanout")
        yield Exchange(self.dead, "topic")
        yield Exchange(self.jobs, "topic", {"alternate-exchange": self.unrouted})
        for delay in RETRY_DELAYS_S:
            yield Exchange(self.retry(delay), "fanout")  # a fanout keeps the job's own routing key

    def published(self) -> Iterator[str]:
        """Yield the exchanges that a worker publishes to, besides replies."""
        yield self.jobs
        yield self.dead
        yield from map(self.retry, RETRY_DELAYS_S)

    def queues(self) -> Iterator[Queue]:
        """Yield the queues that every worker shares."""
        yield Queue(self.poison, self.poison, "", _quorum(UNLIMITED))
        yield Queue(self.dead, self.dead, "#", {**_quorum(UNLIMITED), "x-message-ttl": DEAD_TTL_MS})
        yield Queue(self.unrouted, self.unrouted, "", self._job_queue_arguments())
        for delay, seconds in RETRY_DELAYS_S.items():
            yield Queue(
                self.retry(delay),
                self.retry(delay),
                "",
                {
                    **_quorum(UNLIMITED),
                    "x-message-ttl": seconds * 1000,
                    **_dead_lettering(self.jobs),
                },
            )

    def job_queue(self, connector: str, *, bulk: bool = False) -> Queue:
        """Return the queue of one connector's jobs, or of its bulk jobs."""
        key = f"{connector}.*{'.bulk' if bulk else ''}"
        return Queue(self.job_queue_name(connector, bulk=bulk), self.jobs, key, self._job_queue_arguments())

    def _job_queue_arguments(self) -> dict[str, Any]:
        return {**_quorum(DELIVERY_LIMIT), **_dead_lettering(self.poison)}


def routing_key(connector: str, action: str, *, bulk: bool = False) -> str:
    """Return the routing key of a job."""
    return f"{connector}.{action}{'.bulk' if bulk else ''}"


def retry_delay_for(wait_s: float) -> str:
    """Return the longest retry delay that does not exceed a wait, or the shortest there is."""
    fitting = [delay for delay, seconds in RETRY_DELAYS_S.items() if seconds <= wait_s]
    return fitting[-1] if fitting else next(iter(RETRY_DELAYS_S))


def is_bulk(key: str) -> bool:
    """Return whether a routing key names a bulk queue: work that no caller waits for."""
    return key.count(".") == 2 and key.endswith(".bulk")


def _quorum(delivery_limit: int) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}


def _dead_lettering(exchange: str) -> dict[str, Any]:
    # At-least-once requires reject-publish; the default (at-most-once) loses what is unroutable at that moment.
    return {
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
