"""A broker given by its URL (`CONNECTORS_TEST_RABBITMQ_URL`): to run the suite against RabbitMQ 4.x.

It stands in for the suite's own broker in what tests need of it. Its one virtual host is wiped for each
test, so the suite runs in one process; a test that controls the broker itself is skipped.
"""

import asyncio
from typing import Any, NoReturn

import pika
import pytest

from worker.broker.topology import Topology

#: Queues of the tests' own connectors and callers, besides the topology.
_CONNECTORS = ("dummy", "effects", "http", "google_calendar", "salesforce")
_OTHERS = ("callers.replies", "narrow")


class GivenRabbitMQ:
    """As much of `PrivateRabbitMQ` as a test on a virtual host of its own needs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.amqp_port = pika.URLParameters(url).port

    async def add_vhost(self, _name: str) -> str:
        """Wipe the virtual host, and return its URL."""
        await asyncio.to_thread(_wipe, self.url)
        return self.url

    async def delete_vhost(self, _name: str) -> None:
        """Wipe the virtual host."""
        await asyncio.to_thread(_wipe, self.url)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: _skip(name)


def _skip(name: str) -> NoReturn:
    pytest.skip(f"`{name}` needs a broker of the suite's own")


def _wipe(url: str) -> None:
    topology = Topology()
    queues = [queue.name for queue in topology.queues()]
    queues += [topology.job_queue_name(name, bulk=bulk) for name in _CONNECTORS for bulk in (False, True)]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    for queue in (*queues, *_OTHERS):
        channel.queue_delete(queue)
    for exchange in topology.exchanges():
        channel.exchange_delete(exchange.name)
    connection.close()
