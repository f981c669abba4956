"""Who publishes jobs and collects replies: plain pika, and each id answered exactly once."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.bench.contestants import REPLIES, Contestant, Work

#: Seconds for everything that is waited for; and for a worker to start.
PATIENCE_S = 600.0
START_S = 60.0


class NotOnce(Exception):
    """A job was not answered exactly once, or not with success."""


def check_once(sent: Iterable[str], answered: Iterable[str]) -> None:
    """Check that each id was answered exactly once, and nothing else.

    Raises:
        NotOnce: it names up to three ids of each kind.
    """
    wanted, counts = set(sent), Counter(answered)
    wrong = {
        "missing": [id for id in wanted if id not in counts],
        "answered more than once": [id for id, count in counts.items() if count > 1],
        "never sent": [id for id in counts if id not in wanted],
    }
    said = [f"{len(ids)} {what} ({', '.join(ids[:3])})" for what, ids in wrong.items() if ids]
    if said:
        raise NotOnce(f"of {len(wanted)} jobs " + ", ".join(said))


class Caller:
    """One connection to a contestant's virtual host."""

    def __init__(self, contestant: Contestant, url: str) -> None:
        self.contestant = contestant
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel: BlockingChannel = self._connection.channel()
        self._channel.queue_declare(REPLIES, durable=True)
        self._is_collecting = False
        #: Ids as they were answered, and when.
        self.answered: list[tuple[str, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection.is_open:
            self._connection.close()

    def publish(self, work: Work, count: int = 1) -> list[str]:
        """Publish jobs without waiting; return their ids."""
        ids = [uuid4().hex for _ in range(count)]
        for number, id in enumerate(ids, 1):
            message = self.contestant.write(id, work)
            self._channel.basic_publish(message.exchange, message.key, message.body, message.properties)
            if number % 100 == 0:
                self._connection.process_data_events(time_limit=0)
        return ids

    def publish_waiting(self, work: Work, count: int) -> list[str]:
        """Publish jobs that no worker takes yet, and wait until all wait in their queue."""
        ids = self.publish(work, count)
        self.until(lambda: self.depth(self.contestant.queue) >= count, "the jobs in their queue")
        return ids

    def wait_for_queue(self) -> None:
        """Wait until a worker has declared the contestant's queue."""

        def exists() -> bool:
            try:
                self.depth(self.contestant.queue)
            except ChannelClosedByBroker:
                self._channel = self._connection.channel()
                return False
            return True

        self.until(exists, "its queue", 0.1, START_S)
        self._connection.sleep(0.5)  # until it is bound

    def depth(self, queue: str) -> int:
        """Count the messages that wait in a queue."""
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def replies_waiting(self) -> int:
        """Count the replies that no one has collected."""
        return self.depth(REPLIES)

    def until(
        self, holds: Callable[[], bool], what: str, look_s: float = 0.01, timeout_s: float = PATIENCE_S
    ) -> None:
        """Look again and again until something holds."""
        ends_at = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > ends_at:
                raise NotOnce(f"{self.contestant.name}: waited {timeout_s:g} s for {what}")
            self._connection.sleep(look_s)

    def collect(self, ids: list[str]) -> None:
        """Collect all replies, and check that each of these ids has exactly one, and no other is there."""
        self.listen()
        self.until(lambda: len(self.answered) >= len(ids), "replies", 0.05)
        self._connection.process_data_events(time_limit=0.05)
        check_once(ids, (id for id, _ in self.answered))
        self.answered.clear()

    def call(self, work: Work) -> float:
        """Publish one job and wait for its reply; return the seconds that it took."""
        self.listen()
        began = time.perf_counter()
        (id,) = self.publish(work)
        while not any(answered == id for answered, _ in self.answered):
            self.process(1.0)
            if time.perf_counter() - began > PATIENCE_S:
                raise NotOnce(f"{self.contestant.name}: no reply in {PATIENCE_S:g} s")
        took_s = time.perf_counter() - began
        check_once([id], (answered for answered, _ in self.answered))
        self.answered.clear()
        return took_s

    def process(self, seconds: float) -> None:
        """Take in what comes for a while."""
        self._connection.process_data_events(time_limit=seconds)

    def purge(self) -> None:
        """Throw away what waits, after a round that failed or was cut short."""
        self._channel.queue_purge(REPLIES)
        self._channel.queue_purge(self.contestant.queue)

    def listen(self) -> None:
        """Consume the replies from now on."""
        if not self._is_collecting:
            self._is_collecting = True
            self._channel.basic_consume(REPLIES, self._take, auto_ack=True)

    def _take(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        if self.contestant.success not in body:
            raise NotOnce(f"{self.contestant.name} answered {body[:200]!r}")
        self.answered.append((str(properties.correlation_id), time.perf_counter()))
