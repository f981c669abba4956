"""Several OpenBao nodes that hold one vault: one is active, the others forward to it."""

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from worker.dev.errors import CommandFailed
from worker.dev.openbao import START_TIMEOUT_S, PrivateOpenBao


class ClusterNode(PrivateOpenBao):
    """A node that joins the vault of another, if one is given; killed and restarted by itself."""

    def __init__(self, directory: Path, first: "ClusterNode | None" = None, *, standby_reads: bool) -> None:
        super().__init__(directory)
        self._first = first
        self._standby_reads = standby_reads

    def configuration(self) -> dict[str, Any]:
        """Return the server's settings: raft under the node's own name, retried until it has joined."""
        settings = super().configuration()
        settings["disable_standby_reads"] = not self._standby_reads
        settings["storage"]["raft"]["node_id"] = self._directory.name
        if self._first is not None:
            settings["storage"]["raft"]["retry_join"] = [{"leader_api_addr": self._first.url}]
        return settings

    async def start(self) -> None:
        """Start it; a node that joins has the first one's keys."""
        if self._first is not None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.keys_path.touch(mode=0o600)
            self.keys_path.write_text(self._first.keys_path.read_text())
        await super().start()

    async def unseal(self) -> None:
        """Unseal it, and wait until it knows the active node."""
        key = json.loads(self.keys_path.read_text())["key"]

        await self.ask("PUT", "sys/unseal", {"key": key})

        async def knows_the_active_node() -> bool:
            try:
                await self.ask("GET", "sys/health?standbyok=true")
                return bool(await self.leader_url())
            except (CommandFailed, httpx.TransportError):
                return False

        assert self._process is not None
        await self._process.wait_until(knows_the_active_node, timeout_s=START_TIMEOUT_S, what="unsealed")

    async def leader_url(self) -> str:
        """Return the URL of the active node as this one knows it; empty while there is none."""
        return str((await self.ask("GET", "sys/leader")).get("leader_address", ""))


class OpenBaoCluster:
    """Three nodes of one vault: the fewest of which one may die.

    Args:
        standby_reads: whether a standby answers reads itself (OpenBao), or forwards them, too (Vault).
    """

    def __init__(self, directory: Path, *, standby_reads: bool) -> None:
        first = ClusterNode(directory / "node-1", standby_reads=standby_reads)
        others = [ClusterNode(directory / f"node-{n}", first, standby_reads=standby_reads) for n in (2, 3)]
        self.nodes = [first, *others]

    async def __aenter__(self) -> Self:
        first, *others = self.nodes
        try:
            await first.start()
            # Ten seconds, if not told: so long a node that joined has no vote.
            await first.ask(
                "POST", "sys/storage/raft/autopilot/configuration", {"server_stabilization_time": "1s"}
            )
            await asyncio.gather(*(node.start() for node in others))
            await self._until_all_vote()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop every node."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def active(self) -> ClusterNode:
        """Return the active node as the first one knows it."""
        return self._node(await self.nodes[0].leader_url())

    async def successor(self, dead: ClusterNode) -> ClusterNode:
        """Wait until another node is active, and return it."""
        living = next(node for node in self.nodes if node is not dead)
        async with asyncio.timeout(START_TIMEOUT_S):
            while (url := await living.leader_url()) in ("", dead.url):
                await asyncio.sleep(0.1)
        return self._node(url)

    def _node(self, url: str) -> ClusterNode:
        return next(node for node in self.nodes if node.url == url)

    async def _until_all_vote(self) -> None:
        """Wait until an election needs no more than two nodes."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while await self._votes() < len(self.nodes):
                await asyncio.sleep(0.1)

    async def _votes(self) -> int:
        found = await self.nodes[0].ask("GET", "sys/storage/raft/configuration")
        return sum(each["voter"] for each in found["data"]["config"]["servers"])
