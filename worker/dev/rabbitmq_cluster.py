"""Several private RabbitMQ nodes that form one cluster, on one machine."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.dev.errors import CommandFailed
from worker.dev.rabbitmq import Epmd, NodeIdentity, PrivateRabbitMQ
from worker.dev.rabbitmq_programs import RabbitMQPrograms, find_programs
from worker.settings import data_directory

#: Seconds that a quorum queue may be without a leader; an election takes a few at most.
ELECTION_TIMEOUT_S = 30.0


class PrivateCluster:
    """Nodes with one cookie, one user and one epmd; each is killed, paused and restarted by itself.

    A virtual host made on one is there on all. Its user calls `stop` after `start`, or uses `async with`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        cache: Path | None = None,
        config: Sequence[str] = (),
        programs: RabbitMQPrograms | None = None,
    ) -> None:
        """Create a cluster; nothing is started yet. Arguments as a node's, `directory` with one below for each."""
        self.nodes: list[PrivateRabbitMQ] = []
        self._directory = directory.absolute()
        self._size = size
        self._cache = cache if cache is not None else data_directory()
        self._config = tuple(config)
        self._programs = programs
        self._epmd: Epmd | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def urls(self) -> list[str]:
        """The AMQP URL of each node, password included."""
        return [node.url for node in self.nodes]

    async def start(self) -> None:
        """Start the nodes and wait until each is a member. 15 to 25 s on two cores.

        Raises:  NotInstalled, StartFailed: as a node's start.
        """
        programs = self._programs or await find_programs(self._cache)
        self._directory.mkdir(parents=True, exist_ok=True)
        is_new = not (self._directory / "node-1" / "data").exists()
        try:
            self._epmd = Epmd(programs, self._directory)
            await self._epmd.start()
            self.nodes = self._prepare(programs, self._epmd)
            if is_new:
                # The others join the first, so that they cannot form two clusters.
                await self.nodes[0].start()
                await _all_of(node.start() for node in self.nodes[1:])
            else:
                # A member waits for the one that was stopped last: they have to come together.
                await _all_of(node.start() for node in self.nodes)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all nodes and their epmd. The data stays; stopping twice is fine."""
        await _all_of(node.stop() for node in self.nodes)
        if self._epmd is not None:
            await self._epmd.stop()
            self._epmd = None

    async def leader_of(self, queue: str, *, vhost: str = "/") -> PrivateRabbitMQ:
        """Return the living node that leads a quorum queue, after the election if there is one.

        Raises:  CommandFailed: no living node leads such a queue within 30 s.
        """
        try:
            async with asyncio.timeout(ELECTION_TIMEOUT_S):
                while True:
                    leaders = await self._leaders(vhost)
                    for node in self.nodes:
                        if node.is_running and node.node == leaders.get(queue):
                            return node
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise CommandFailed(
                f"no living node leads queue {queue} in virtual host {vhost} after {ELECTION_TIMEOUT_S:g} s"
            ) from error

    async def _leaders(self, vhost: str) -> dict[str, str]:
        """Return the leader of each queue as a living node knows it; empty while it does not know."""
        living = next((node for node in self.nodes if node.is_running), None)
        if living is None:
            return {}
        try:
            listing = await living.ctl("list_queues", "--no-table-headers", "-p", vhost, "name", "leader")
        except CommandFailed:
            return {}
        return dict(row.split("\t") for row in listing.splitlines() if row.count("\t") == 1)

    def _prepare(self, programs: RabbitMQPrograms, epmd: Epmd) -> list[PrivateRabbitMQ]:
        shared = NodeIdentity.new()
        # Fixed names: the epmd is the cluster's own, so they meet no others.
        identities = [replace(shared, node=f"connectors-{n}@localhost") for n in range(1, self._size + 1)]
        members = [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{n} = {i.node}" for n, i in enumerate(identities, 1)),
        ]
        return [
            PrivateRabbitMQ(
                self._directory / f"node-{n}",
                config=(*members, *self._config),
                programs=programs,
                identity=identity,
                epmd=epmd,
            )
            for n, identity in enumerate(identities, 1)
        ]


async def _all_of(steps: Iterable[Coroutine[None, None, None]]) -> None:
    """Run the steps concurrently, each to its end; raise the first one's error."""
    for outcome in await asyncio.gather(*steps, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
