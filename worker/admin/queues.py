"""The job queues of a broker: count them, retire one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from worker.broker import BrokerError, Connection
from worker.broker.publish_probe import learn_user
from worker.broker.topology import Topology
from worker.job.headers import JobHeaders
from worker.settings import Settings
from worker.tls import broker_tls


@dataclass(frozen=True, slots=True)
class QueueCount:
    """The counts of one queue."""

    queue: str
    consumers: int
    waiting: int

    @property
    def is_stranded(self) -> bool:
        """Whether jobs wait there without a consumer."""
        return self.waiting > 0 and self.consumers == 0


async def inspect_queues(settings: Settings, connectors: Iterable[str]) -> list[QueueCount]:
    """Return the counts of the queues that exist; AMQP cannot list queues, so their names are given."""
    topology = Topology(settings.prefix)
    connection = await _connect(settings)
    try:
        queues = [topology.job_queue_name(name, bulk=bulk) for name in connectors for bulk in (False, True)]
        found = [(queue, await connection.count(queue)) for queue in [*queues, topology.unrouted]]
    finally:
        await connection.close()
    return [QueueCount(queue, counts[1], counts[0]) for queue, counts in found if counts is not None]


async def retire_queue(settings: Settings, connector: str) -> int:
    """Retire a connector's queue: unbind it, move its jobs to the unrouted queue, remove it.

    Return how many jobs were moved. A worker answers them CONNECTOR_NOT_FOUND.

    Raises:
        BrokerError: there is no such queue, or workers still consume it.
    """
    topology = Topology(settings.prefix)
    connection = await _connect(settings)
    try:
        moved = 0
        queues = [topology.job_queue(connector, bulk=bulk) for bulk in (False, True)]
        counts = {queue.name: await connection.count(queue.name) for queue in queues}
        if not any(counts.values()):
            raise BrokerError(
                f"there is no queue {queues[0].name!r}; `connectors queues list` shows the queues"
            )
        for name, count in counts.items():
            if count is not None and count[1] > 0:
                raise BrokerError(
                    f"{name!r} has {count[1]} consumers; stop the workers that run {connector!r} first"
                )
        user = await learn_user(connection, settings.broker_user, topology.jobs)
        for queue in queues:
            if counts[queue.name] is not None:
                # First, because nothing new may arrive; from here on new jobs are unrouted.
                await connection.unbind(queue.name, queue.exchange, queue.binding_key)
                moved += await _move(connection, queue.name, topology.unrouted, user, settings)
                await connection.remove_queue(queue.name)
        return moved
    finally:
        await connection.close()


async def _connect(settings: Settings) -> Connection:
    return await Connection.open(
        settings.rabbitmq_url.get_secret_value(), name="connectors queues", tls=broker_tls(settings)
    )


async def _move(connection: Connection, queue: str, exchange: str, user: str, settings: Settings) -> int:
    browser = await connection.browser(queue)
    channel = await connection.publish_channel()
    moved = 0
    while (delivery := await browser.next()) is not None:
        # Republished like a snooze: under our user, the first publisher in its header.
        job_headers = JobHeaders.read(
            delivery, trusted={*settings.trusted_users, user}, now=datetime.now(UTC)
        )
        properties = replace(delivery.properties, user_id=user, headers=job_headers.write())
        if not await channel.publish(exchange, delivery.routing_key, delivery.body, properties):
            raise BrokerError(f"no queue is bound to {exchange!r}; start a worker once, then retry")
        await delivery.ack()
        moved += 1
    return moved
