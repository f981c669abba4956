"""RabbitMQ's side of the simulated broker: exchanges, quorum queues, confirms, and the faults that the seed chooses.

It keeps the product's own topology: arguments, bindings and kinds are those that a worker declares.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from tests.simulation.choices import Choices
from tests.simulation.loop import Host
from worker.broker import BrokerRefusal, Properties
from worker.broker.errors import BrokerNotFound
from worker.broker.topology import Exchange, Queue, Topology

#: Seconds on the way to the broker or back, and until a confirm is sent.
LATENCIES_S: Final = (0.001, 0.01, 0.2)
CONFIRMS_S: Final = (0.002, 0.05, 1.0, 4.0, 12.0)
#: Seconds between two tries to dead-letter what no queue takes.
AGAIN_S: Final = 3.0
#: Where a direct reply goes, and one that nobody waits for any more.
DIRECT: Final = "amq.rabbitmq.reply-to."


@dataclass(slots=True, eq=False)
class Message:
    """A message in a queue."""

    body: bytes
    routing_key: str
    properties: Properties
    #: Deliveries that came back.
    returns: int = 0
    #: Whether the next delivery says that it is not the first.
    is_flagged: bool = False
    #: No client can decode it.
    is_undecodable: bool = False

    @property
    def uid(self) -> str:
        """Whose message it is: retries and dead letters of a job keep this."""
        return self.properties.message_id or ""

    def copy(self, routing_key: str | None = None) -> "Message":
        """Return what another queue stores."""
        key = self.routing_key if routing_key is None else routing_key
        return Message(self.body, key, self.properties, is_undecodable=self.is_undecodable)


class ServedChannel(Protocol):
    """A channel, as the broker sees it."""

    #: Whose it is.
    host: Host
    unacked: "dict[int, tuple[ServedConsumer, Message]]"

    def deliver(self, tag: int, message: Message) -> None:
        """Send a delivery."""
        ...

    def cancel_by_broker(self) -> None:
        """Tell that its consumer gets nothing more."""
        ...

    def break_off(self, kind: str) -> None:
        """End its connection."""
        ...


@dataclass(slots=True, eq=False)
class ServedConsumer:
    """A consumer, as the broker sees it."""

    channel: ServedChannel
    queue: "BrokerQueue"
    prefetch: int
    unacked: int = 0


@dataclass(slots=True, eq=False)
class BrokerQueue:
    """A queue. Those of callers are read by the oracle at once."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    ready: deque[Message] = field(default_factory=deque)
    consumers: deque[ServedConsumer] = field(default_factory=deque)
    #: What is delivered and neither acked nor back.
    unacked: list[Message] = field(default_factory=list)
    is_full: bool = False
    is_deleted: bool = False

    @property
    def limit(self) -> int:
        """The delivery limit."""
        return int(self.arguments.get("x-delivery-limit", 20))


class Events(Protocol):
    """Who looks at all that happens."""

    def replied(self, address: str, body: bytes, properties: Properties) -> None:
        """A caller's queue took a message."""
        ...

    def stored(self, queue: BrokerQueue, message: Message) -> None:
        """A queue took a message."""
        ...

    def settled(self, queue: BrokerQueue, message: Message) -> None:
        """A delivery was acked."""
        ...

    def came_back(self, worker: Host, message: Message) -> None:
        """A delivery came back unsettled."""
        ...

    def given_back(self, worker: Host, message: Message) -> None:
        """A delivery was given back."""
        ...

    def broken(self, name: str, what: str) -> None:
        """An invariant does not hold."""
        ...

    def disturb(self, seconds: float) -> None:
        """Something is wrong for so long."""
        ...


class Broker:
    """The machine."""

    def __init__(self, host: Host, choices: Choices, events: Events, *, rare: float) -> None:
        self.host = host
        self.choices = choices
        self.rare = rare
        self.counts: Counter[str] = Counter()
        self.queues: dict[str, BrokerQueue] = {}
        self.exchanges: dict[str, Exchange] = {each.name: each for each in Topology().exchanges()}
        self.bindings: set[tuple[str, str, str]] = set()
        #: Callers that listen, by address.
        self.callers: set[str] = set()
        self.full_callers: set[str] = set()
        #: On its way to a dead-letter exchange.
        self.leaving: list[Message] = []
        self._tags = 0
        self.away_until = 0.0
        self.has_alarm = False
        self.events = events

    @property
    def now(self) -> float:
        """The time."""
        return self.host.loop.time()

    @property
    def is_away(self) -> bool:
        """Whether it takes no connection."""
        return self.now < self.away_until

    def befalls(self, what: str, rare: float | None = None) -> bool:
        """Return whether something rare happens here, and count it."""
        happens = self.choices.pick((False, True), self.rare if rare is None else rare * bool(self.rare))
        if happens:
            self.counts[what] += 1
            self.host.loop.note("broker", what)
        return happens

    def latency_s(self) -> float:
        """Return how long a frame is on its way."""
        return self.choices.pick(LATENCIES_S, self.rare)

    # Topology.

    def declare(self, queues: Iterable[Queue]) -> None:
        """Declare queues and their bindings."""
        for each in queues:
            self.queues.setdefault(each.name, BrokerQueue(each.name, each.arguments))
            self.bindings.add((each.exchange, each.binding_key, each.name))

    def delete(self, name: str) -> list[Message]:
        """Delete a queue, and return what was in it."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return []
        queue.is_deleted = True
        self.bindings = {each for each in self.bindings if each[2] != name}
        for consumer in tuple(queue.consumers):
            consumer.channel.cancel_by_broker()
        queue.consumers.clear()
        return list(queue.ready)

    def queue(self, name: str) -> BrokerQueue:
        """Return a queue.

        Raises:
            BrokerNotFound: there is none.
        """
        if name not in self.queues:
            raise BrokerNotFound(f"no queue {name!r}")
        return self.queues[name]

    # Publishing.

    def publish(self, exchange: str, message: Message, *, mandatory: bool) -> bool | BrokerRefusal:
        """Store a message; return whether a queue took it, or why it is refused."""
        if exchange == "":
            return self._reply(message, mandatory=mandatory)
        if exchange not in self.exchanges:
            return BrokerRefusal.MISSING
        targets = list(self._route(exchange, message.routing_key))
        if any(queue.is_full for queue in targets):
            self.counts["refused by a full queue"] += 1
            return BrokerRefusal.FULL
        for queue in targets:
            self._store(queue, message.copy())
        if not targets:
            self.counts["returns"] += 1
        return bool(targets)

    def _reply(self, message: Message, *, mandatory: bool) -> bool | BrokerRefusal:
        address = message.routing_key
        if address in self.full_callers:
            return BrokerRefusal.FULL
        if address in self.callers:
            self.events.replied(address, message.body, message.properties)
            return True
        if address.startswith(DIRECT) and not mandatory:
            return True  # measured: what reaches no one is confirmed all the same
        self.counts["returns"] += 1
        return False

    def _route(self, exchange: str, key: str) -> Iterator[BrokerQueue]:
        kind = self.exchanges[exchange]
        found = False
        for source, pattern, name in sorted(self.bindings):
            if source == exchange and (kind.kind == "fanout" or _matches(pattern, key)):
                found = True
                yield self.queues[name]
        alternate = kind.arguments.get("alternate-exchange")
        if not found and alternate:
            yield from self._route(alternate, key)

    def _store(self, queue: BrokerQueue, message: Message) -> None:
        queue.ready.append(message)
        self.events.stored(queue, message)
        ttl_ms = queue.arguments.get("x-message-ttl")
        if ttl_ms is not None and "x-dead-letter-exchange" in queue.arguments:
            self.host.call_at(self.now + ttl_ms / 1000, lambda: self._expire(queue, message))
        self.dispatch(queue)

    def _expire(self, queue: BrokerQueue, message: Message) -> None:
        if message in queue.ready:
            self._dead_letter(queue, message, lambda: queue.ready.remove(message))

    def _dead_letter(self, queue: BrokerQueue, message: Message, removed: Callable[[], object]) -> None:
        """Publish to the dead-letter exchange at least once; what no queue takes is tried again."""
        if queue.is_deleted:
            return
        exchange = queue.arguments["x-dead-letter-exchange"]
        if self.publish(exchange, message, mandatory=True) is not True:
            self.host.call_at(self.now + AGAIN_S, lambda: self._dead_letter(queue, message, removed))
            return
        if self.befalls("dead-lettered twice"):
            self.publish(exchange, message, mandatory=True)
        removed()

    # Consuming.

    def dispatch(self, queue: BrokerQueue) -> None:
        """Deliver what is ready to consumers that have room, in turn."""
        while queue.ready:
            consumer = next((each for each in queue.consumers if each.unacked < each.prefetch), None)
            if consumer is None:
                return
            queue.consumers.remove(consumer)
            queue.consumers.append(consumer)
            message = queue.ready.popleft()
            consumer.unacked += 1
            queue.unacked.append(message)
            self.counts["deliveries"] += 1
            self._tags += 1
            tag = self._tags
            consumer.channel.unacked[tag] = (consumer, message)
            consumer.channel.deliver(tag, message)
            if self.befalls("connection deaths after a delivery", self.rare / 4):
                consumer.channel.break_off("after a delivery")

    def settle(self, channel: ServedChannel, tag: int, *, requeue: bool) -> None:
        """Take an ack, or a message back."""
        if tag not in channel.unacked:
            self.events.broken("a delivery is settled once", f"tag {tag} is not open on its channel")
            return
        if self.befalls("connection deaths before an ack", self.rare / 2):
            channel.break_off("before an ack")
            return
        consumer, message = channel.unacked.pop(tag)
        queue = consumer.queue
        consumer.unacked -= 1
        queue.unacked.remove(message)
        if requeue:
            self.events.given_back(channel.host, message)
            self._bring_back(queue, [message], channel.host)
        else:
            self.events.settled(queue, message)
        self.dispatch(queue)

    def release(self, channel: ServedChannel) -> None:
        """Take back all that a channel held, because it has ended."""
        held = list(channel.unacked.values())
        channel.unacked.clear()
        queues = {consumer.queue for consumer, _ in held}
        for consumer, message in held:
            consumer.queue.unacked.remove(message)
        for queue in self.queues.values():
            for consumer in [each for each in queue.consumers if each.channel is channel]:
                queue.consumers.remove(consumer)
        for queue in sorted(queues, key=lambda each: each.name):
            mine = [message for consumer, message in held if consumer.queue is queue]
            self._bring_back(queue, mine, channel.host)
            self.dispatch(queue)

    def _bring_back(self, queue: BrokerQueue, messages: list[Message], worker: Host) -> None:
        """Put messages back to the front or to the end; too many returns make a message poison."""
        if queue.is_deleted:
            return
        kept: list[Message] = []
        for message in messages:
            message.returns += 1
            self.events.came_back(worker, message)
            self.counts["redeliveries"] += 1
            if message.returns > queue.limit:
                self.counts["poison"] += 1
                self.leaving.append(message)
                self._dead_letter(queue, message, partial(self.leaving.remove, message))
                continue
            message.is_flagged = not self.befalls("redeliveries without the flag")
            kept.append(message)
        if self.choices.pick((True, False), 0.5):
            queue.ready.extendleft(reversed(kept))
        else:
            queue.ready.extend(kept)

    def copies(self, uid: str) -> int:
        """Return how many messages of a job are in queues, delivered or not."""
        kept = [
            *self.leaving,
            *(each for queue in self.queues.values() for each in (*queue.ready, *queue.unacked)),
        ]
        return sum(message.uid == uid for message in kept)


def _matches(pattern: str, key: str) -> bool:
    """Return whether a routing key fits a binding key of a topic exchange (`#` alone, or `*` for a word)."""
    if pattern == "#":
        return True
    words, wanted = key.split("."), pattern.split(".")
    return len(words) == len(wanted) and all(
        want in {"*", word} for want, word in zip(wanted, words, strict=True)
    )
