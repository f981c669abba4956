"""What goes wrong around a broker and its workers, and when."""

import asyncio
from typing import TYPE_CHECKING, Final

from tests.simulation.broker_link import SimulatedConnection
from tests.simulation.job_worker import TOPOLOGY
from tests.simulation.world import OUTAGES_S

if TYPE_CHECKING:
    from tests.simulation.job_world import JobWorld

#: Seconds for which an alarm lasts, or whatever it is.
LASTS_S: Final = (1.0, 5.0, 20.0)
#: All that may happen to a broker.
KINDS: Final = (
    "alarm",
    "restart",
    "cancel",
    "forget",
    "delete",
    "full dead letters",
    "full retries",
    "flapping",
)


class Trouble:
    """The faults of a schedule that are no single frame's."""

    def __init__(self, world: "JobWorld") -> None:
        self._world = world
        self._loop = world.loop
        self._pick = world.choices.pick
        self._checks = world.checks
        self._broker = world.broker
        self._counts = world.counts

    async def weather(self) -> None:
        """Let one part beside the broker fail for a while."""
        await asyncio.sleep(self._pick((0.0, 0.1, 1.0, 5.0, 20.0)))
        until = self._loop.time() + self._pick(OUTAGES_S)
        kind = self._pick(("vault", "ledger", "provider", "secret"))
        self._loop.note("weather", f"{kind} until {until:.2f}")
        match kind:
            case "vault":
                self._world.vault.away_until = until
            case "ledger":
                self._world.database.away_until = until
            case "provider":
                self._world.provider.away_until = until
            case "secret":
                self._world.provider.refused_tokens.add(self._world.vault.token)
                self._world.vault.version += 1

    async def befall(self) -> None:
        """Let something happen to the broker."""
        await asyncio.sleep(self._pick((0.0, 0.1, 0.5, 2.0, 6.0, 15.0)))
        lasts_s = self._pick(LASTS_S)
        kind = self._pick(KINDS)
        self._counts[kind] += 1
        self._loop.note("broker", f"{kind} for {lasts_s:g} s")
        self._checks.disturb(lasts_s)
        await getattr(self, f"_{kind.replace(' ', '_')}")(lasts_s)
        self._loop.note("broker", f"{kind} is over")

    def _connections(self) -> list[SimulatedConnection]:
        return [each for worker in self._world.workers for each in worker.connections if each.is_served]

    async def _alarm(self, lasts_s: float) -> None:
        self._broker.has_alarm = True
        for each in self._connections():
            each.block(True)
        await asyncio.sleep(lasts_s)
        self._broker.has_alarm = False
        for each in self._connections():
            each.block(False)

    async def _restart(self, lasts_s: float) -> None:
        self._broker.away_until = self._broker.now + lasts_s
        for each in self._connections():
            each.end_served()
        await asyncio.sleep(lasts_s)

    async def _flapping(self, _lasts_s: float) -> None:
        for _ in range(self._pick((3, 8, 26))):
            for each in self._connections():
                if not each.is_publishing:
                    each.end_served()
            self._checks.disturb(1.0)
            await asyncio.sleep(self._pick((0.1, 0.6)))

    async def _cancel(self, _lasts_s: float) -> None:
        queue = self._broker.queues.get(TOPOLOGY.job_queue_name("shop"))
        for consumer in tuple(queue.consumers if queue else ()):
            consumer.queue.consumers.remove(consumer)
            consumer.channel.cancel_by_broker()

    async def _forget(self, _lasts_s: float) -> None:
        self._checks.disturb(10.0)
        queue = self._broker.queues.get(TOPOLOGY.job_queue_name("shop"))
        if queue is not None:
            queue.consumers.clear()

    async def _delete(self, _lasts_s: float) -> None:
        name = self._pick((TOPOLOGY.job_queue_name("shop"), TOPOLOGY.retry("1s"), TOPOLOGY.dead))
        queue = self._broker.queues.get(name)
        for message in () if queue is None else (*queue.ready, *queue.unacked):
            self._checks.sent[message.uid].was_deleted = True
        self._broker.delete(name)

    async def _full_dead_letters(self, lasts_s: float) -> None:
        await self._fill(TOPOLOGY.dead, lasts_s)

    async def _full_retries(self, lasts_s: float) -> None:
        await self._fill(TOPOLOGY.retry("1s"), lasts_s)

    async def _fill(self, name: str, lasts_s: float) -> None:
        if (queue := self._broker.queues.get(name)) is not None:
            queue.is_full = True
            await asyncio.sleep(lasts_s)
            queue.is_full = False

    async def deploy(self) -> None:
        """Stop a worker with a signal, and start another."""
        await asyncio.sleep(self._pick((0.5, 2.0, 8.0)))
        worker = self._pick(self._world.alive)
        self._counts["drains"] += 1
        self._loop.note(worker.host.name, "drains")
        self._checks.disturb(1.0)
        self._world.start_worker()
        ending = worker.host.spawn(worker.drain())
        await asyncio.wait({ending, worker.host.died}, return_when=asyncio.FIRST_COMPLETED)
        if worker.host.is_alive:
            worker.host.kill()
            worker.lose_connections(0.001)
