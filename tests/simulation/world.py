"""One schedule: workers that share a ledger, a provider, a vault, a queue that redelivers, and what befalls them."""

import asyncio
import itertools
import logging
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, cast
from unittest.mock import patch

from connectors.registry import Registry
from connectors.sdk.http.client import HttpPool
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Identity, Ledger
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.outcome import Attempt, Outcome, Snooze
from connectors.sdk.runtime.retry import Retry, decide, final_outcome
from schemas.job import Job
from tests.simulation.checks import Checks, Told
from tests.simulation.choices import Choices
from tests.simulation.clock import EPOCH, SimulatedClock
from tests.simulation.ledger import Database, SimulatedLedger, SqliteStore
from tests.simulation.loop import Host, SimulatedLoop
from tests.simulation.plan import Plan, Published
from tests.simulation.provider import Provider, SimulatedHttp
from tests.simulation.shop import SHOP
from tests.simulation.slot import SimulatedSlot
from tests.simulation.vault import SimulatedCredentials, Vault

#: How probable it is that a step of a worker is its last, or is followed by a pause.
FATE: Final = 0.008
STALLS_S: Final = (3.0, 4.0, 8.0, 20.0, 40.0)
#: Seconds of silence after which the broker gives a worker's messages to another.
HEARTBEAT_S: Final = 30.0
SNOOZE_S: Final = (1.0, 5.0, 30.0)
OUTAGES_S: Final = (2.0, 15.0, 70.0)
JUMPS_S: Final = (-60.0, -2.0, 2.0, 60.0)
#: Deliveries of one message after which it is taken for lost, and seconds after the last answer.
MOST_DELIVERIES: Final = 150
QUIET_S: Final = 700.0
#: One line for no one.
SILENT: Final = logging.getLogger("tests.simulation.silent")
SILENT.setLevel(logging.CRITICAL + 1)
logging.getLogger("connectors.runtime").setLevel(logging.CRITICAL + 1)


class Worker:
    """One process that runs jobs."""

    def __init__(self, world: "World", name: str) -> None:
        self.host = Host(world.loop, name, is_mortal=True)
        self.clock = SimulatedClock(self.host)
        self.executor = Executor(
            Registry.of(SHOP),
            SimulatedCredentials(world.vault, self.host, has_secret=world.plan.has_secret),
            cast(HttpPool, SimulatedHttp(world.provider, self.host)),
            SimulatedLedger(world.database, self.host),
            clock=self.clock,
            log=SILENT,
        )

    def is_at_it(self, identity: Identity) -> bool:
        """Return whether it runs a job of this key already."""
        parts: Any = self.executor
        return identity in parts._idempotent._running

    @property
    def leftovers(self) -> int:
        """What it still keeps of jobs that are over."""
        parts: Any = self.executor
        return sum(map(len, (parts._idempotent._running, parts._undo._tasks, parts._runner.running)))


@dataclass(slots=True)
class Message:
    """A message on its way through the queues, with what its headers say."""

    published: Published
    job: Job
    deadline: datetime | None
    attempts: int = 0
    returns: int = 0
    failures: int = 0
    snoozes: int = 0
    is_uncertain: bool = False
    #: Its worker was lost once: what it led to no one can tell for certain.
    was_lost: bool = False
    deliveries: int = field(default=0)


class World:
    """Everything of one schedule."""

    def __init__(self, plan: Plan, choices: Choices, loop: SimulatedLoop) -> None:
        self.plan = plan
        self.choices = choices
        self.loop = loop
        self.counts: Counter[str] = Counter()
        machine = Host(loop, "database")
        self.database = Database(machine, self._store(machine), choices, rate=plan.ledger_rate)
        self.provider = Provider(Host(loop, "provider"), choices, rate=plan.provider_rate)
        self.vault = Vault(Host(loop, "vault"))
        self.checks = Checks(self)
        self.workers: list[Worker] = []
        self._crashes, self._stalls = plan.crashes, plan.stalls
        loop.before_step = self._befall

    def _store(self, machine: Host) -> Ledger:
        clock, policy = SimulatedClock(machine), LeasePolicy()
        if self.plan.store == "memory":
            return MemoryLedger(clock, policy)
        self._sqlite = SqliteStore(lambda: clock.now().timestamp(), policy.lease_s)
        return self._sqlite

    async def live(self) -> None:
        """Run the schedule to its end, and see that nothing is left."""
        for number in range(self.plan.workers):
            self.workers.append(Worker(self, f"worker-{number}"))
        chores = [self.loop.outside.spawn(self._publish(each)) for each in self.plan.jobs]
        weather = [self.loop.outside.spawn(self._weather()) for _ in range(self.plan.weather)]
        await asyncio.gather(*chores)
        for each in weather:
            each.cancel()
        self._crashes = self._stalls = 0
        await asyncio.sleep(QUIET_S)
        self.checks.at_end()

    def close(self) -> None:
        """Throw the database away."""
        if self.plan.store == "sqlite":
            self._sqlite.dispose()

    @property
    def alive(self) -> list[Worker]:
        """The workers that were not killed."""
        return [each for each in self.workers if each.host.is_alive]

    def _befall(self, host: Host) -> None:
        """Kill a worker before its next step, or let it stand still, if the schedule has it so."""
        fates: list[float | None] = [None]
        if self._crashes:
            fates.append(0.0)
        if self._stalls:
            fates.extend(STALLS_S)
        if len(fates) == 1:
            return
        fate = self.choices.pick(fates, self.plan.hot_rate if host.hot_steps else FATE)
        host.hot_steps = max(0, host.hot_steps - 1)
        if fate is None:
            return
        if fate and (not self._crashes or self.choices.pick((True, False))):
            self._stalls -= 1
            self.counts["stalls"] += 1
            self.loop.note(host.name, f"stands still for {fate:g} s")
            host.stall(fate)
        elif self._crashes:
            self._crashes -= 1
            self.counts["crashes"] += 1
            self.loop.note(host.name, "is killed")
            host.kill()
            self.workers.append(Worker(self, f"worker-{len(self.workers)}"))

    async def _weather(self) -> None:
        """Let one part of the world fail for a while."""
        await asyncio.sleep(self.choices.pick((0.0, 0.01, 0.1, 1.0, 5.0, 20.0)))
        until = self.loop.time() + self.choices.pick(OUTAGES_S)
        kind = self.choices.pick(("vault", "ledger", "provider", "secret", "clock"))
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
                self.vault.away_until = self.choices.pick((0.0, until))
            case "clock":
                host = self.choices.pick(self.alive).host
                host.skew_s += self.choices.pick(JUMPS_S)
                host.jumps += 1
                self.counts["jumps"] += 1

    # The queue, and what a worker's processor does with an outcome.

    async def _publish(self, published: Published) -> None:
        """Send one message, and deliver it until it is over."""
        await asyncio.sleep(published.at_s)
        wait_s = published.deadline_s
        now = EPOCH + timedelta(seconds=self.loop.time())
        job = Job(
            id=f"{published.key}-{published.mode}",
            connector="shop",
            action=published.action,
            params={"item": "x"},
            idempotency_key=published.key,
            mode=published.mode,
        )
        deadline = None if wait_s is None else now + timedelta(seconds=wait_s)
        message = Message(published, job, deadline)
        while not await self._deliver(message):
            message.deliveries += 1
            if message.deliveries > MOST_DELIVERIES:
                raise AssertionError(f"lost: {job.id} has no end after {MOST_DELIVERIES} deliveries")

    async def _deliver(self, message: Message) -> bool:
        """Deliver a message once; return whether it is over."""
        worker = self.choices.pick(self.alive)
        told = self.checks.expect(message, worker)
        deadline = Deadline(message.deadline, worker.clock)
        attempt = Attempt(
            deadline,
            attempts=message.attempts + message.returns,
            is_uncertain=message.is_uncertain,
            slot=SimulatedSlot(self.choices, deadline),
        )
        task = worker.host.spawn(self._execute(worker, message, attempt, told))
        if not await self._outlives(worker, task):
            message.returns += 1
            message.was_lost = True
            return False
        result = task.result()
        if isinstance(result, Snooze):
            await asyncio.sleep(self._snooze_s(message, worker, result))
            return False
        return await self._after(message, worker, result, told)

    async def _execute(
        self, worker: Worker, message: Message, attempt: Attempt, told: Told
    ) -> Outcome | Snooze:
        try:
            outcome: Outcome | Snooze = await worker.executor.execute(message.job, attempt)
        except Snooze as snooze:
            outcome = snooze
        try:
            self.checks.returned(told, outcome)
        except AssertionError as broken:
            self.loop.failure = broken
        return outcome

    async def _outlives(self, worker: Worker, future: "asyncio.Future[Any]") -> bool:
        """Wait for a worker to do something; return False if it dies or is silent for too long before."""
        while not future.done():
            died = worker.host.died
            await asyncio.wait({future, died}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if not future.done() and died.done():
                return False
            if not future.done() and worker.host.stalled_until > self.loop.time():
                return False  # it goes on later, beside who gets its message now
        return True

    def _snooze_s(self, message: Message, worker: Worker, snooze: Snooze) -> float:
        delay_s = SNOOZE_S[min(message.snoozes // 5, 2)]
        message.snoozes += 1
        message.attempts, message.returns = message.attempts + message.returns, 0
        if snooze.retry_in_s is not None:
            delay_s = snooze.retry_in_s
        elif snooze.at_most_s is not None:
            delay_s = min(delay_s, snooze.at_most_s + 0.1)
        if message.deadline is not None:
            delay_s = min(delay_s, (message.deadline - worker.clock.now()).total_seconds())
        return max(0.01, delay_s)

    async def _after(self, message: Message, worker: Worker, outcome: Outcome, told: Told) -> bool:
        error = outcome.error
        if error is not None:
            now = worker.clock.now()
            message.failures += 1
            decision = decide(
                error.code,
                failures=message.failures,
                max_attempts=5,
                now=now,
                deadline=message.deadline,
                retry_after_s=error.retry_after_s,
                random_fraction=self.choices.pick((0.5, 0.0, 1.0)),
            )
            if isinstance(decision, Retry):
                message.attempts, message.returns, message.snoozes = outcome.attempts, 0, 0
                message.is_uncertain = outcome.is_uncertain
                self.counts["retries"] += 1
                await asyncio.sleep((decision.not_before - now).total_seconds())
                return False
            outcome = final_outcome(outcome, at_deadline=decision.at_deadline)
        self.checks.told(told, outcome)
        is_acked = outcome.ack_after is None or await self._outlives(worker, outcome.ack_after)
        if is_acked and not self.choices.pick((False, True), 0.05):
            return True
        message.returns += 1  # told, but not acked: it comes again
        message.was_lost = True
        return False


def identity_of(published: Published) -> Identity:
    """Return the ledger's name of a key."""
    return Identity("default", "shop", published.action, published.key)


def run_plan(plan: Plan, choices: Choices, loop: SimulatedLoop | None = None) -> World:
    """Run one schedule.

    Raises:
        AssertionError: an invariant does not hold.
    """
    loop = loop or SimulatedLoop(choices)
    world = World(plan, choices, loop)
    try:
        with (
            patch("worker.ledger.store.time.time_ns", lambda: int((EPOCH.timestamp() + loop.time()) * 1e9)),
            patch("connectors.sdk.runtime.memory_ledger._FENCES", itertools.count(1)),
        ):
            loop.run(world.live())
    finally:
        world.close()
    world.counts["steps"] = loop.steps
    world.checks.count(world.counts)
    return world
