"""One schedule with a broker: the real processor, publishers and queue consumers of two or three workers."""

import asyncio
import itertools
import random
from collections import Counter
from typing import Any, Final, cast
from unittest.mock import patch

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from tests.simulation.broker import Broker, Message
from tests.simulation.choices import Choices
from tests.simulation.clock import SimulatedClock
from tests.simulation.job_checks import JobChecks, Sent
from tests.simulation.job_plan import BrokerPlan, JobPlan
from tests.simulation.job_trouble import Trouble
from tests.simulation.job_worker import TOPOLOGY, JobWorker, WorkerLog
from tests.simulation.ledger import Database
from tests.simulation.loop import Host, SimulatedLoop
from tests.simulation.provider import Provider
from tests.simulation.vault import Vault
from tests.simulation.world import STALLS_S
from worker.broker import Properties

#: How probable it is that a step of a worker is its last, or is followed by a pause; and right after a frame.
FATE: Final = 0.0004
HOT_FATE: Final = 0.006
#: Seconds of silence after which the broker closes a connection.
HEARTBEAT_S: Final = 20.0
#: Seconds in which everything ends once faults have stopped, and between two looks.
CALM_S: Final = 900.0
LOOK_S: Final = 1.0
#: Seconds until what is published for no answer's sake has ended, too.
SETTLE_S: Final = 40.0
#: Seconds until no timer of a room is left.
QUIET_S: Final = 130.0


class JobWorld:
    """Everything of one schedule."""

    def __init__(self, plan: BrokerPlan, choices: Choices, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.choices = choices
        self.loop = loop
        self.topology = TOPOLOGY
        self.counts: Counter[str] = Counter()
        self.checks = JobChecks(self)
        machine = Host(loop, "database")
        ledger = MemoryLedger(SimulatedClock(machine), LeasePolicy())
        self.database = Database(machine, ledger, choices, rate=0.03 * plan.is_faulty)
        self.provider = Provider(Host(loop, "provider"), choices, rate=0.12 * plan.is_faulty)
        self.vault = Vault(Host(loop, "vault"))
        self.broker = Broker(Host(loop, "broker"), choices, self.checks, rare=0.03 if plan.is_faulty else 0.0)
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
            self.start_worker()
        self.broker.declare(
            [*TOPOLOGY.queues(), TOPOLOGY.job_queue("shop"), TOPOLOGY.job_queue("shop", bulk=True)]
        )
        trouble = Trouble(self)
        chores = [self.loop.outside.spawn(self._publish(each)) for each in self.plan.jobs]
        chores += [self.loop.outside.spawn(trouble.weather()) for _ in range(self.plan.weather)]
        chores += [self.loop.outside.spawn(trouble.befall()) for _ in range(self.plan.trouble)]
        chores += [self.loop.outside.spawn(trouble.deploy()) for _ in range(self.plan.deploys)]
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

    def start_worker(self) -> None:
        """Start one more process."""
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
            self.start_worker()

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
            message_id=plan.uid,
            correlation_id=f"c-{plan.uid}",
            reply_to=address,
            content_type="application/json",
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


def run_broker_plan(plan: BrokerPlan, choices: Choices, loop: SimulatedLoop | None = None) -> JobWorld:
    """Run one schedule.

    Raises:
        AssertionError: an invariant does not hold.
    """
    loop = loop or SimulatedLoop(choices)
    world = JobWorld(plan, choices, loop)
    log = WorkerLog(world.checks)
    state = random.getstate()
    random.seed(choices.pick(range(1000)))
    modules = (
        "job.processor",
        "broker.queue_consumer",
        "broker.confirmed_publisher",
        "broker.publisher_link",
    )
    patches: list[Any] = [patch(f"worker.{each}.logger", log) for each in modules]
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
