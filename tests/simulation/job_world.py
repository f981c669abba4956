"""One schedule with a broker: the real processor, publishers and queue consumers of two or three workers."""

import asyncio
import itertools
import random
from collections import Counter
from functools import partial
from typing import Any, Final, cast
from unittest.mock import patch

from connectors.registry import Registry
from connectors.sdk import Connector, Context, Effect
from connectors.sdk.http.client import HttpPool
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from schemas.result import Result
from tests.simulation.broker import Broker, Message
from tests.simulation.broker_link import SimulatedConnection, connect
from tests.simulation.choices import Choices
from tests.simulation.clock import EPOCH, SimulatedClock
from tests.simulation.job_checks import JobChecks, Sent
from tests.simulation.job_plan import BrokerPlan, JobPlan
from tests.simulation.ledger import Database, SimulatedLedger
from tests.simulation.loop import Host, SimulatedLoop
from tests.simulation.provider import Provider, SimulatedHttp
from tests.simulation.shop import SHORT_S, Secret, make_shop
from tests.simulation.vault import SimulatedCredentials, Vault
from tests.simulation.world import JUMPS_S, OUTAGES_S, STALLS_S, _SILENT
from worker.broker import Connection, Delivery, Properties
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome
from worker.broker.queue_consumer import QueueConsumer
from worker.broker.topology import JobQueue, Topology
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.processor import JobProcessor
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import WaitingRoom
from worker.metrics import Metrics

#: How probable it is that a step of a worker is its last, or is followed by a pause; and right after a frame.
FATE: Final = 0.0004
HOT_FATE: Final = 0.006
#: Seconds of silence after which the broker closes a connection.
HEARTBEAT_S: Final = 20.0
#: Seconds in which everything ends once faults have stopped, and between two looks.
CALM_S: Final = 900.0
LOOK_S: Final = 1.0
#: Seconds until what is published for no answer's sake has ended, too.
SETTLE_S: Final = 12.0
#: Seconds until no timer of a room is left.
QUIET_S: Final = 130.0
DRAIN_S: Final = 30.0
USER: Final = "connectors"
TOPOLOGY: Final = Topology()
ALARMS_S: Final = (1.0, 5.0, 20.0)


def _make_shop() -> Connector[Any]:
    shop = make_shop()

    @shop.action(effect=Effect.READ, timeout_s=SHORT_S)
    async def read(ctx: Context[Secret], item: str) -> str:
        """Look something up."""
        await cast(Any, ctx.http).is_there(ctx.idempotency_key)
        return item

    return shop


SHOP: Final = _make_shop()


class SilentLog:
    """A log for no one, but for what a worker calls its own fault."""

    def __init__(self, checks: "JobChecks") -> None:
        self._checks = checks

    def opt(self, *, exception: Exception) -> "SilentLog":
        """Take note of a bug."""
        if not self._checks.is_over:
            self._checks.broken("a worker never fails on a job", f"{type(exception).__name__}: {exception}")
        return self

    def bind(self, **_fields: object) -> "SilentLog":
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
            SimulatedCredentials(world.vault, self.host),
            cast(HttpPool, SimulatedHttp(world.provider, self.host)),
            SimulatedLedger(world.database, self.host),
            clock=clock,
            log=_SILENT,
        )
        self.confirmed = ConfirmedPublisher(
            self._connect, name="publish", declare=partial(self._declare, shared)
        )
        self.direct = ConfirmedPublisher(self._connect, name="direct")
        self.publisher = WatchedPublisher(self.confirmed, self.direct, TOPOLOGY, user=USER)
        self.publisher.watch(self)
        limiter = ConcurrencyLimiter(world.plan.slots, tenant_total=max(1, world.plan.slots // 2), clock=clock)
        queue, bulk = (
            JobQueue(TOPOLOGY.job_queue_name("shop", bulk=is_bulk), "shop", is_bulk) for is_bulk in (False, True)
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
        )
        self.consumers = [
            QueueConsumer(
                queue,
                prefetch=room.capacity,
                connect=self._connect,
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

    async def _declare(self, queues: list[Any], connection: Connection) -> None:
        declare = partial(self.world.broker.declare, queues)
        await cast(SimulatedConnection, connection).call("declaring", declare)

    async def _run(self) -> None:
        self.confirmed.start()
        consuming = [asyncio.create_task(each.run(self._receive)) for each in self.consumers]
        done, _ = await asyncio.wait(consuming, return_when=asyncio.FIRST_EXCEPTION)
        if not self.is_draining:
            self.world.checks.broken("a worker never ends by itself", str([each.exception() for each in done]))

    def _receive(self, queue: JobQueue, delivery: Delivery) -> None:
        properties = delivery.properties
        self.world.loop.note(
            self.host.name,
            f"receives {properties.message_id} from {queue.name}, redelivered {delivery.redelivered} "
            f"{delivery.returns}, {dict(properties.headers)}",
        )
        self.processor.receive(queue, delivery)
        self.world.checks.slots_hold(self)

    async def drain(self) -> None:
        """End as after a signal."""
        self.is_draining = True
        await asyncio.gather(*(each.stop() for each in self.consumers))
        await self.processor.drain(DRAIN_S)
        await self.confirmed.close()
        await self.direct.close()
        await asyncio.gather(*(each.close() for each in self.consumers))
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
            kept |= {"slots": range(sum(slots._count.values())), "held": [*filter(None, slots._held.values())]}
            broken = {name: len(each) for name, each in kept.items() if each}
            if broken:
                return broken
        return {}


class JobWorld:
    """Everything of one schedule."""

    def __init__(self, plan: BrokerPlan, choices: Choices, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.choices = choices
        self.loop = loop
        self.topology = TOPOLOGY
        self.counts: Counter[str] = Counter()
        #: Deliveries of each job that came back.
        self.returns: Counter[str] = Counter()
        self.checks = JobChecks(self)
        machine = Host(loop, "database")
        ledger = MemoryLedger(SimulatedClock(machine), LeasePolicy())
        self.database = Database(machine, ledger, choices, is_faulty=plan.is_faulty)
        self.provider = Provider(Host(loop, "provider"), choices, is_faulty=plan.is_faulty)
        self.vault = Vault(Host(loop, "vault"))
        self.broker = Broker(
            Host(loop, "broker"), choices, self.checks, self.returns, rare=0.03 if plan.is_faulty else 0.0
        )
        self.workers: list[JobWorker] = []
        self._crashes, self._stalls = plan.crashes, plan.stalls
        loop.before_step = self._befall

    @property
    def alive(self) -> list[JobWorker]:
        """The workers that are neither dead nor ending."""
        return [each for each in self.workers if each.host.is_alive and not each.is_draining]

    async def live(self) -> None:
        """Run the schedule to its end, and see that nothing is left."""
        for _ in range(self.plan.workers):
            self._start_worker()
        self.broker.declare([*TOPOLOGY.queues(), TOPOLOGY.job_queue("shop"), TOPOLOGY.job_queue("shop", bulk=True)])
        chores = [self.loop.outside.spawn(self._publish(each)) for each in self.plan.jobs]
        chores += [self.loop.outside.spawn(self._weather()) for _ in range(self.plan.weather)]
        chores += [self.loop.outside.spawn(self._trouble()) for _ in range(self.plan.trouble)]
        chores += [self.loop.outside.spawn(self._deploy()) for _ in range(self.plan.deploys)]
        await asyncio.gather(*chores)
        await asyncio.sleep(self.choices.pick((0.0, 5.0, 20.0)))
        await self._calm_down()
        self.checks.at_end()
        await self._stop()

    async def _calm_down(self) -> None:
        """Stop all faults, and wait until every job has ended."""
        self.loop.note("world", "calms down")
        self._crashes = self._stalls = 0
        self.broker.rare = self.provider.rare = 0.0
        cast(Any, self.database)._rare = 0.0
        until = self.loop.time() + CALM_S
        while self.loop.time() < until and self._is_busy:
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(SETTLE_S)

    @property
    def _is_busy(self) -> bool:
        if any(each.host.stalled_until > self.loop.time() for each in self.alive):
            return True
        kept = {TOPOLOGY.dead, TOPOLOGY.poison}
        queues = (each for each in self.broker.queues.values() if each.name not in kept)
        return any(each.ready or each.unacked for each in queues) or any(
            each.processor.in_flight for each in self.alive
        )

    async def _stop(self) -> None:
        """Let the workers end one after the other, and see what they keep."""
        alive = self.alive
        await asyncio.gather(*(each.host.spawn(each.drain()) for each in alive))
        await asyncio.sleep(QUIET_S)
        for each in alive:
            self.checks.check_memory(each, has_stopped=True)

    def _start_worker(self) -> None:
        self.workers.append(JobWorker(self, f"worker-{len(self.workers)}"))

    def _befall(self, host: Host) -> None:
        """Kill a worker before its next step, or let it stand still, if the schedule has it so."""
        if not self._crashes and not self._stalls:
            return
        if not self.choices.pick((False, True), HOT_FATE if host.hot_steps else FATE):
            host.hot_steps = max(0, host.hot_steps - 1)
            return
        worker = next(each for each in self.workers if each.host is host)
        if self._stalls and (not self._crashes or self.choices.pick((True, False))):
            self._stalls -= 1
            seconds = self.choices.pick(STALLS_S)
            self.counts["stalls"] += 1
            self.loop.note(host.name, f"stands still for {seconds:g} s")
            self.checks.disturb(seconds)
            host.stall(seconds)
            if seconds >= HEARTBEAT_S:
                worker.lose_connections(HEARTBEAT_S)
        elif self._crashes:
            self._crashes -= 1
            self.counts["crashes"] += 1
            self.loop.note(host.name, "is killed")
            self.checks.disturb(1.0)
            host.kill()
            worker.lose_connections(self.choices.pick((0.001, 0.5)))
            self._start_worker()

    # Callers.

    async def _publish(self, plan: JobPlan) -> None:
        """Send a job, as often as its publisher does."""
        await asyncio.sleep(plan.at_s)
        self.checks.sent[plan.uid] = sent = Sent(plan)
        address = plan.address
        if address is not None and plan.reply != "forged":
            self.broker.callers.add(address)
            if plan.reply == "full":
                self.broker.full_callers.add(address)
        properties = Properties(
            message_id=plan.uid, correlation_id=f"c-{plan.uid}", reply_to=address, content_type="application/json"
        )
        for _ in range(plan.copies):
            message = Message(
                plan.body, plan.routing_key, properties, is_undecodable=plan.kind == "undecodable"
            )
            taken = self.broker.publish(TOPOLOGY.jobs, message, mandatory=True)
            if taken is not True:
                sent.was_deleted = True
            await asyncio.sleep(self.choices.pick((0.0, 0.01, 2.0)))
        if plan.gone_at_s is not None and address is not None:
            await asyncio.sleep(plan.gone_at_s)
            self.broker.callers.discard(address)

    # What goes wrong.

    async def _weather(self) -> None:
        """Let one part beside the broker fail for a while."""
        await asyncio.sleep(self.choices.pick((0.0, 0.1, 1.0, 5.0, 20.0)))
        until = self.loop.time() + self.choices.pick(OUTAGES_S)
        kind = self.choices.pick(("vault", "ledger", "provider", "secret"))
        self.loop.note("weather", f"{kind} until {until:.2f}")
        match kind:
            case "vault":
                self.vault.away_until = until
            case "ledger":
                self.database.away_until = until
            case "provider":
                self.provider.away_until = until
            case "secret":
                self.provider.refused_tokens.add(self.vault.token)
                self.vault.version += 1

    async def _trouble(self) -> None:
        """Let something happen to the broker."""
        await asyncio.sleep(self.choices.pick((0.0, 0.1, 0.5, 2.0, 6.0, 15.0)))
        lasts_s = self.choices.pick(ALARMS_S)
        kind = self.choices.pick(
            ("alarm", "restart", "cancel", "forget", "delete", "full dead letters", "full retries", "flapping")
        )
        self.counts[kind] += 1
        self.loop.note("broker", f"{kind} for {lasts_s:g} s")
        self.checks.disturb(lasts_s)
        await getattr(self, f"_{kind.replace(' ', '_')}")(lasts_s)
        self.loop.note("broker", f"{kind} is over")

    def _connections(self) -> list[SimulatedConnection]:
        return [each for worker in self.workers for each in worker.connections if each.is_served]

    async def _alarm(self, lasts_s: float) -> None:
        self.broker.has_alarm = True
        for each in self._connections():
            each.block(True)
        await asyncio.sleep(lasts_s)
        self.broker.has_alarm = False
        for each in self._connections():
            each.block(False)

    async def _restart(self, lasts_s: float) -> None:
        self.broker.away_until = self.broker.now + lasts_s
        for each in self._connections():
            each.end_served()
        await asyncio.sleep(lasts_s)

    async def _flapping(self, _lasts_s: float) -> None:
        for _ in range(self.choices.pick((3, 8, 26))):
            for each in self._connections():
                if not each.is_publishing:
                    each.end_served()
            self.checks.disturb(1.0)
            await asyncio.sleep(self.choices.pick((0.1, 0.6)))

    async def _cancel(self, _lasts_s: float) -> None:
        queue = self.broker.queues.get(TOPOLOGY.job_queue_name("shop"))
        for consumer in tuple(queue.consumers if queue else ()):
            queue and queue.consumers.remove(consumer)
            consumer.channel.cancel_by_broker()

    async def _forget(self, _lasts_s: float) -> None:
        self.checks.disturb(10.0)
        queue = self.broker.queues.get(TOPOLOGY.job_queue_name("shop"))
        if queue is not None:
            queue.consumers.clear()

    async def _delete(self, _lasts_s: float) -> None:
        name = self.choices.pick((TOPOLOGY.job_queue_name("shop"), TOPOLOGY.retry("1s"), TOPOLOGY.dead))
        queue = self.broker.queues[name]
        for message in (*queue.ready, *queue.unacked):
            self.checks.sent[message.uid].was_deleted = True
        self.broker.delete(name)

    async def _full_dead_letters(self, lasts_s: float) -> None:
        await self._fill(TOPOLOGY.dead, lasts_s)

    async def _full_retries(self, lasts_s: float) -> None:
        await self._fill(TOPOLOGY.retry("1s"), lasts_s)

    async def _fill(self, name: str, lasts_s: float) -> None:
        if (queue := self.broker.queues.get(name)) is not None:
            queue.is_full = True
            await asyncio.sleep(lasts_s)
            queue.is_full = False

    async def _deploy(self) -> None:
        """Stop a worker with a signal, and start another."""
        await asyncio.sleep(self.choices.pick((0.5, 2.0, 8.0)))
        worker = self.choices.pick(self.alive)
        self.counts["drains"] += 1
        self.loop.note(worker.host.name, "drains")
        self.checks.disturb(1.0)
        self._start_worker()
        ending = worker.host.spawn(worker.drain())
        await asyncio.wait({ending, worker.host.died}, return_when=asyncio.FIRST_COMPLETED)
        if worker.host.is_alive:
            worker.host.kill()
            worker.lose_connections(0.001)


def run_broker_plan(plan: BrokerPlan, choices: Choices, loop: SimulatedLoop | None = None) -> JobWorld:
    """Run one schedule.

    Raises:
        AssertionError: an invariant does not hold.
    """
    loop = loop or SimulatedLoop(choices)
    world = JobWorld(plan, choices, loop)
    log = SilentLog(world.checks)
    state = random.getstate()
    random.seed(choices.pick(range(1000)))
    modules = ("job.processor", "broker.queue_consumer", "broker.confirmed_publisher", "broker.publisher_link")
    patches = [patch(f"worker.{each}.logger", log) for each in modules]
    patches.append(patch("connectors.sdk.runtime.memory_ledger._FENCES", itertools.count(1)))
    for each in patches:
        each.start()
    try:
        loop.run(world.live())
        if loop.failure is not None:
            raise loop.failure
    finally:
        for each in patches:
            each.stop()
        random.setstate(state)
    world.counts["steps"] = loop.steps
    world.checks.count(world.counts)
    world.counts.update(world.broker.counts)
    world.counts.update(world.provider.counts)
    return world
