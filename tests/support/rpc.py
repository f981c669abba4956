"""An external client: plain pika, and nothing of ours but the contract."""

import json
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import pika
from pika.adapters.blocking_connection import BlockingChannel

DIRECT = "amq.rabbitmq.reply-to"


class ExternalClient:
    """Publishes jobs and collects replies, by the contract alone."""

    def __init__(self, url: str, *, reply_queue: str | None = "", collects: bool = True) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel: BlockingChannel = self._connection.channel()
        self.replies: dict[str, list[dict[str, Any]]] = {}
        self.progress: dict[str, list[dict[str, Any]]] = {}
        self.properties: dict[str, Any] = {}
        self.reply_to: str | None = None
        if reply_queue == DIRECT:
            self.reply_to = DIRECT
            self.channel.basic_consume(DIRECT, self._take, auto_ack=True)
        elif reply_queue is not None:
            exclusive = reply_queue == ""
            declared = self.channel.queue_declare(reply_queue, exclusive=exclusive, durable=not exclusive)
            self.reply_to = declared.method.queue
            if collects:
                self.channel.basic_consume(self.reply_to, self._take, auto_ack=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._connection.is_open:
            self._connection.close()

    def send(
        self,
        job: dict[str, Any] | bytes,
        *,
        key: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        headers: dict[str, Any] | None = None,
        exchange: str = "connectors.jobs",
        **properties: Any,
    ) -> str:
        """Publish one job; gives its correlation id."""
        body = job if isinstance(job, bytes) else json.dumps(job).encode()
        if key is None:
            key = f"{job['connector']}.{job['action']}" if isinstance(job, dict) else "dummy.echo"
        correlation_id = correlation_id or uuid4().hex
        properties.setdefault("content_type", "application/json")
        self.channel.basic_publish(
            exchange,
            key,
            body,
            pika.BasicProperties(
                reply_to=reply_to if reply_to is not None else self.reply_to,
                correlation_id=correlation_id,
                delivery_mode=2,
                headers=headers,
                **properties,
            ),
        )
        return correlation_id

    def call(self, job: dict[str, Any] | bytes, *, timeout_s: float = 20.0, **how: Any) -> dict[str, Any]:
        """Publish one job and wait for its reply."""
        correlation_id = self.send(job, **how)
        return self.wait([correlation_id], timeout_s)[correlation_id][0]

    def wait(
        self, correlation_ids: Iterable[str], timeout_s: float = 30.0
    ) -> dict[str, list[dict[str, Any]]]:
        """Wait until each has a reply."""
        wanted = set(correlation_ids)
        self.until(
            lambda: wanted <= self.replies.keys(),
            timeout_s,
            lambda: f"{len(wanted - self.replies.keys())} replies",
        )
        return {each: self.replies[each] for each in wanted}

    def until(self, holds: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
        """Process what comes in until something holds."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what()}"
            self.process(0.1)

    def process(self, seconds: float) -> None:
        """Take in what comes for a while."""
        self._connection.process_data_events(time_limit=seconds)

    def depth(self, queue: str) -> int:
        """Count the messages waiting in a queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def _take(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        message = json.loads(body)
        box = self.progress if properties.type == "connectors.progress" else self.replies
        box.setdefault(properties.correlation_id, []).append(message)
        self.properties[properties.correlation_id] = properties


def job(connector: str, action: str, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Write down a job with a new id."""
    return {
        "id": fields.pop("id", uuid4().hex),
        "connector": connector,
        "action": action,
        "params": params or {},
        **fields,
    }
