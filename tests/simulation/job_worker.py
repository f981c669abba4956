"""One worker process of a schedule with a broker: the real parts, put together as `worker.service` does."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from connectors.registry import Registry
from connectors.sdk import Connector, Context, Effect
from connectors.sdk.http.client import HttpPool
from connectors.sdk.runtime.executor import Executor
from schemas.result import Result
from tests.simulation.broker_link import SimulatedConnection, connect
from tests.simulation.clock import SimulatedClock
from tests.simulation.job_checks import JobChecks
from tests.simulation.ledger import SimulatedLedger
from tests.simulation.loop import Host
from tests.simulation.provider import SimulatedHttp
from tests.simulation.shop import SHORT_S, Secret, make_shop
from tests.simulation.vault import SimulatedCredentials
from tests.simulation.world import SILENT
from worker.broker import Connection, Delivery
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome
from worker.broker.queue_consumer import QueueConsumer
from worker.broker.shared_connection import SharedConnection
from worker.broker.topology import JobQueue, Queue, Topology
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.processor import JobProcessor
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import WaitingRoom
from worker.metrics import Metrics

if TYPE_CHECKING:
    from tests.simulation.job_world import JobWorld

#: Seconds for a drain.
DRAIN_S: Final = 30.0
USER: Final = "connectors"
TOPOLOGY: Final = Topology()


def _make_shop() -> Connector[Any]:
    shop = make_shop()

    @shop.action(effect=Effect.READ, timeout_s=SHORT_S)
    async def read(ctx: Context[Secret], item: str) -> str:
        """Look something up."""
        await cast(Any, ctx.http).is_there(ctx.idempotency_key)
        return item

    return shop


SHOP: Final = _make_shop()


class WorkerLog:
    """A log for no one, but for what a worker calls its own fault."""

    def __init__(self, checks: JobChecks) -> None:
        self._checks = checks

    def opt(self, *, exception: Exception) -> "WorkerLog":
        """Take note of a bug."""
        if not self._checks.is_over:
            self._checks.broken("a worker never fails on a job", f"{type(exception).__name__}: {exception}")
        return self

    def bind(self, **_fields: object) -> "WorkerLog":
        """Return itself."""
        return self

    def log(self, *_what: object, **_fields: object) -> None:
        """Write nothing."""

    debug = info = warning = error = log


class Unmeasured:
    """Metrics that no one reads."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_what: None


class WatchedPublisher(JobPublisher):
    """Tells the oracle of each answer before it is published."""

    def watch(self, worker: "JobWorker") -> None:
        """Name the worker whose answers these are."""
        self._worker = worker

    async def reply(self, delivery: Delivery, headers: JobHeaders, result: Result) -> PublishOutcome:
        """Publish the result to the caller's queue."""
        self._worker.world.checks.answering(self._worker, delivery, result)
        return await super().reply(delivery, headers, result)


def _say_nothing(event: str, **fields: object) -> None:
    """Log nothing: a schedule has a journal of its own."""


class JobWorker:
    """One process as `worker.service` builds it, without monitoring, ledger guard and probes."""

    def __init__(self, world: "JobWorld", name: str) -> None:
        self.world = world
        self.host = Host(world.loop, name, is_mortal=True)
        self.clock = clock = SimulatedClock(self.host)
        self.connections: list[SimulatedConnection] = []
        self.is_draining = False
        shared = list(TOPOLOGY.queues())
        self.executor = Executor(
            Registry.of(SHOP),
            SimulatedCredentials(world.vault, self.host, has_secret=False),
            cast(HttpPool, SimulatedHttp(world.provider, self.host)),
            SimulatedLedger(world.database, self.host),
            clock=clock,
            log=SILENT,
        )
        self.confirmed = ConfirmedPublisher(
            self._connect, name="publish", declare=partial(self._declare, shared)
        )
        self.direct = ConfirmedPublisher(self._connect, name="direct")
        self.publisher = WatchedPublisher(self.confirmed, self.direct, TOPOLOGY, user=USER)
        self.publisher.watch(self)
        limiter = ConcurrencyLimiter(
            world.plan.slots, tenant_total=max(1, world.plan.slots // 2), clock=clock
        )
        queue, bulk = (
            JobQueue(TOPOLOGY.job_queue_name("shop", bulk=is_bulk), "shop", is_bulk)
            for is_bulk in (False, True)
        )
        self.rooms = {
            queue: WaitingRoom(limiter),
            bulk: WaitingRoom(limiter, bulk=True),
            JobQueue(TOPOLOGY.unrouted, None): WaitingRoom(ConcurrencyLimiter(2, clock=clock)),
        }
        self.processor = JobProcessor(
            self.executor,
            self.publisher,
            Registry.of(SHOP),
            cast(Metrics, Unmeasured()),
            rooms=self.rooms,
            trusted_users={USER},
            max_attempts=5,
            max_body_bytes=1 << 20,
            clock=clock,
            log_info=_say_nothing,
        )
        self.consuming = SharedConnection(self._connect)
        self.consumers = [
            QueueConsumer(
                queue,
                prefetch=room.capacity,
                connect=self.consuming.open,
                declare=partial(
                    self._declare,
                    shared if queue.connector is None else [TOPOLOGY.job_queue("shop", bulk=queue.bulk)],
                ),
                flowing=self.confirmed.flowing,
            )
            for queue, room in self.rooms.items()
        ]
        self.running = self.host.spawn(self._run())

    async def _connect(self) -> Connection:
        connection = await connect(self.world.broker, self.host, self.connections.append)
        return cast(Connection, connection)

    async def _declare(self, queues: list[Queue], connection: Connection) -> None:
        declare = partial(self.world.broker.declare, queues)
        await cast(SimulatedConnection, connection).call("declaring", declare)

    async def _run(self) -> None:
        self.confirmed.start()
        consuming = [asyncio.create_task(each.run(self._receive)) for each in self.consumers]
        done, _ = await asyncio.wait(consuming, return_when=asyncio.FIRST_EXCEPTION)
        if not self.is_draining:
            self.world.checks.broken(
                "a worker never ends by itself", str([each.exception() for each in done])
            )

    def _receive(self, queue: JobQueue, delivery: Delivery) -> None:
        properties = delivery.properties
        self.world.loop.note(
            self.host.name,
            f"receives {properties.message_id} from {queue.name}, redelivered {delivery.redelivered} "
            f"{delivery.returns}, {dict(properties.headers)}",
        )
        sent = self.world.checks.sent[properties.message_id or ""]
        sent.receiver = self
        sent.received_at = self.world.loop.time()
        self.processor.receive(queue, delivery)
        self.world.checks.slots_hold(self)

    async def drain(self) -> None:
        """End as after a signal."""
        self.is_draining = True
        await asyncio.gather(*(each.stop() for each in self.consumers))
        await self.processor.drain(DRAIN_S)
        await self.confirmed.close()
        await self.direct.close()
        await self.consuming.close()
        await self.executor.close()

    def lose_connections(self, delay_s: float) -> None:
        """Have the broker find out that the process is gone, or silent."""
        for each in self.connections:
            self.world.broker.host.call_at(self.world.broker.now + delay_s, each.end_served)

    def leftovers(self, *, has_stopped: bool) -> dict[str, int]:
        """Return what it still keeps of jobs that are over; timers run on for a while."""
        core: Any = self.executor
        processor: Any = self.processor
        kept = {
            "runs": core._idempotent._running,
            "undos": core._undo._tasks,
            "calls": core._runner.running,
            "in flight": processor._in_flight,
            "tasks": processor._tasks,
        }
        if not has_stopped:
            kept["progress"] = cast(Any, self.publisher)._progress
        for link in cast(Any, () if has_stopped else (self.confirmed, self.direct)):
            kept[f"refused on {link._link.name}"] = link._refused
            kept[f"own channels of {link._link.name}"] = range(20 - link._own_channels._value)
        for room in cast(Any, self.rooms.values()):
            slots = room.slots
            kept["jobs in a room"] = room._jobs
            if has_stopped:
                kept |= {"delayed": room._delayed, "rates": room._rates}
            kept |= {"bytes": range(room._bytes), "waiting": [*slots._waiting[False], *slots._waiting[True]]}
            kept |= {
                "slots": range(sum(slots._count.values())),
                "held": [*filter(None, slots._held.values())],
            }
            broken = {name: len(each) for name, each in kept.items() if each}
            if broken:
                return broken
        return {}
