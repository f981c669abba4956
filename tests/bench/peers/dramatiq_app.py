"""Dramatiq: acked after the work, as it always does; results published to a queue of replies with a confirm."""

import json
import os
import threading
import time
from typing import Any

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import ResultBackend, Results

URL = os.environ["BENCH_URL"]


class Replies(ResultBackend):
    """Publishes each result, a connection a thread; Dramatiq's own backends are Redis and Memcached."""

    def __init__(self) -> None:
        super().__init__()
        self.held = threading.local()

    def store_result(self, message: dramatiq.Message[Any], result: Any, ttl: int) -> None:
        """Publish."""
        if not hasattr(self.held, "channel"):
            self.held.channel = pika.BlockingConnection(pika.URLParameters(URL)).channel()
            self.held.channel.confirm_delivery()
        self.held.channel.basic_publish(
            "",
            "replies",
            json.dumps({"id": message.message_id, "data": result}).encode(),
            pika.BasicProperties(correlation_id=message.message_id, delivery_mode=2),
            mandatory=True,
        )


broker = RabbitmqBroker(url=URL, confirm_delivery=True)
broker.add_middleware(Results(backend=Replies(), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="bench")
def echo(message: str) -> dict[str, str]:
    """Return the message."""
    return {"received_message": message}


@dramatiq.actor(queue_name="bench")
def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


@dramatiq.actor(queue_name="bench")
def block(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)
