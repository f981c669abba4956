"""The lanes of a broker, seen from outside: what waits in them, and the end of one."""

from collections.abc import Iterable
from dataclasses import dataclass

from worker.broker import BrokerError, Browser, Connection, Properties, PublishChannel
from worker.settings import Settings
from worker.topology import Topology


@dataclass(frozen=True, slots=True)
class LaneCount:
    """One lane's queue."""

    queue: str
    consumers: int
    waiting: int

    @property
    def is_stranded(self) -> bool:
        """Whether jobs wait there and nobody runs them."""
        return self.waiting > 0 and self.consumers == 0


async def look_at_lanes(settings: Settings, connectors: Iterable[str]) -> list[LaneCount]:
    """Count consumers and waiting jobs of the lanes that exist; AMQP cannot list them unasked."""
    topology = Topology(settings.prefix)
    connection = await Connection.open(settings.rabbitmq_url.get_secret_value(), name="connectors lanes")
    try:
        queues = [topology.lane(name, bulk=bulk) for name in connectors for bulk in (False, True)]
        found = [(queue, await connection.count(queue)) for queue in [*queues, topology.unrouted]]
    finally:
        await connection.close()
    return [LaneCount(queue, counts[1], counts[0]) for queue, counts in found if counts is not None]


async def retire_lane(settings: Settings, connector: str) -> int:
    """End a connector's lane: unbind it, move what waits to the unrouted queue, remove it.

    Returns how many jobs were moved. A worker answers them CONNECTOR_NOT_FOUND.

    Raises:
        BrokerError: there is no such lane, or workers still consume it.
    """
    topology = Topology(settings.prefix)
    connection = await Connection.open(settings.rabbitmq_url.get_secret_value(), name="connectors lanes")
    try:
        moved = 0
        queues = [topology.lane_queue(connector, bulk=bulk) for bulk in (False, True)]
        counts = {queue.name: await connection.count(queue.name) for queue in queues}
        if not any(counts.values()):
            raise BrokerError(
                f"there is no lane {queues[0].name!r}; `connectors lanes list` shows what there is"
            )
        for name, count in counts.items():
            if count is not None and count[1] > 0:
                raise BrokerError(
                    f"{count[1]} consumers are on {name!r}; stop the workers that run {connector!r} first"
                )
        for queue in queues:
            if counts[queue.name] is not None:
                # First, so that nothing new arrives; from here on new jobs are unrouted by themselves.
                await connection.unbind(queue.name, queue.exchange, queue.binding_key)
                moved += await _move(connection, queue.name, topology.unrouted)
                await connection.remove_queue(queue.name)
        return moved
    finally:
        await connection.close()


async def _move(connection: Connection, queue: str, exchange: str) -> int:
    browser = await Browser.open(connection, queue)
    channel = await PublishChannel.open(connection)
    moved = 0
    while (delivery := await browser.next()) is not None:
        # The headers go along but for the broker's own, which it would not take back.
        headers = {
            name: value for name, value in delivery.properties.headers.items() if not name.startswith("x-")
        }
        properties = Properties(
            message_id=delivery.properties.message_id,
            correlation_id=delivery.properties.correlation_id,
            reply_to=delivery.properties.reply_to,
            content_type=delivery.properties.content_type,
            content_encoding=delivery.properties.content_encoding,
            type=delivery.properties.type,
            timestamp=delivery.properties.timestamp,
            headers=headers,
        )
        await channel.publish(exchange, delivery.routing_key, delivery.body, properties)
        await delivery.ack()
        moved += 1
    return moved
