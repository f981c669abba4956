"""Who is answered late, and why: each load under which a deadline was once missed, measured beside what is promised.

`python -m tests.bench.late`, or with the names of some rows. A private broker; a worker of its own for each row.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from tests.support.frames import BAD_FRAMES, FramePublisher
from tests.support.http_servers import serve
from tests.support.provider import Provider
from tests.support.rpc import ExternalClient, job
from tests.support.vault_stub import SEALED, VaultStub
from tests.support.worker_process import WorkerProcess
from worker.dev.rabbitmq import PrivateRabbitMQ

SUPPORT: Final = Path(__file__).parents[1] / "support"
#: An address as the broker writes it, of a connection that never was.
FORGED: Final = "amq.rabbitmq.reply-to.g1hkABByYWJiaXRAbG9jYWxob3N0AAAEmwAAAABnAAAA.bm9ib2R5LWlzLWhlcmU={}"
#: No server listens on it.
NO_DATABASE: Final = "postgresql://nobody:nothing@127.0.0.1:1/none"


@dataclass
class Bench:
    """Where one row is measured; what it starts ends with it."""

    broker: PrivateRabbitMQ
    folder: Path
    ends: AsyncExitStack
    name: str

    async def start(self, *, is_ready: bool = True, **settings: str) -> "Client":
        """Start a worker on a virtual host of its own."""
        url = await self.broker.add_vhost(self.name)
        worker = WorkerProcess(
            {
                "CONNECTORS_RABBITMQ_URL": url,
                "CONNECTORS_ENABLED": "dummy",
                "PYTHONPATH": f"{SUPPORT / 'plugin'}:{SUPPORT / 'misbehaving'}",
                **{
                    name if name.isupper() else f"CONNECTORS_{name.upper()}": value
                    for name, value in settings.items()
                },
            },
            self.folder / self.name,
        )
        self.ends.callback(worker.close)
        worker.start()
        if is_ready:
            await worker.ready(120)
        else:
            await worker.until_logged("queue consumer started", 120, count=3)
        external = await asyncio.to_thread(ExternalClient, url)
        self.ends.callback(external.close)
        return Client(url, worker, external)


@dataclass
class Client:
    """A caller that measures when it is answered."""

    url: str
    worker: WorkerProcess
    external: ExternalClient

    def send(self, *jobs: dict[str, Any], **how: Any) -> list[str]:
        """Publish jobs."""
        return [self.external.send(each, **how) for each in jobs]

    async def took_s(self, *jobs: dict[str, Any], timeout_s: float = 120) -> float:
        """Publish jobs, and return the seconds until all are answered."""
        return await asyncio.to_thread(self._took_s, list(jobs), timeout_s)

    def _took_s(self, jobs: list[dict[str, Any]], timeout_s: float) -> float:
        began = time.monotonic()
        sent = self.send(*jobs)
        missing = set(sent)
        while missing:
            assert time.monotonic() - began < timeout_s, f"{len(missing)} replies are missing"
            self.external._connection.process_data_events(time_limit=0.02)
            missing -= self.external.replies.keys()
        return time.monotonic() - began

    def failures(self) -> int:
        """Return how many replies tell of a failure."""
        return sum(replies[0]["status"] == "failed" for replies in self.external.replies.values())


def soon(seconds: float) -> str:
    """Return a deadline."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def sleep(seconds: float, tenant: str, **more: Any) -> dict[str, Any]:
    """Return a job that takes its time."""
    return job("dummy", "sleep", {"seconds": seconds}, tenant=tenant, **more)


async def slots_busy(bench: Bench) -> str:
    """All slots of a connector busy for 20 s, a third tenant's job with a deadline of 2 s | 2 s ± 0.2"""
    client = await bench.start(concurrency="4")
    client.send(*(sleep(20, tenant) for tenant in "ababab"))
    await asyncio.sleep(1)
    return f"{await client.took_s(job('dummy', 'ping', tenant='c', deadline=soon(2))):.2f} s"


async def lone_20(bench: Bench) -> str:
    """One tenant, 20 slots, 20 jobs of 1.5 s with a deadline of 2.5 s: failures | 0"""
    client = await bench.start(concurrency="20")
    deadline = soon(2.5)
    took_s = await client.took_s(*(sleep(1.5, "a", deadline=deadline) for _ in range(20)))
    return f"{client.failures()} fail, {took_s:.2f} s"


async def lone_60(bench: Bench) -> str:
    """One tenant, 100 slots, 60 jobs of 0.3 s | 0.3 s"""
    client = await bench.start()
    return f"{await client.took_s(*(sleep(0.3, 'a') for _ in range(60))):.2f} s"


async def thousand_of_one(bench: Bench) -> str:
    """1,000 jobs of 0.5 s of one tenant on 100 slots | 5.5 s"""
    client = await bench.start()
    return f"{await client.took_s(*(sleep(0.5, 'a') for _ in range(1000))):.1f} s"


async def thousand_of_two(bench: Bench) -> str:
    """1,000 jobs of 0.5 s of two tenants on 100 slots | 5.5 s"""
    client = await bench.start()
    return f"{await client.took_s(*(sleep(0.5, 'ab'[n % 2]) for n in range(1000))):.1f} s"


async def late_writes(bench: Bench) -> str:
    """12 writes that take 25 s, deadline 1 s, on 12 slots: another tenant's read | at once"""
    provider = Provider()
    await provider.start()
    bench.ends.push_async_callback(provider.stop)
    client = await bench.start(enabled="effects", EFFECTS_URL=provider.url, concurrency="12")
    deadline = soon(1)
    writes = (
        job("effects", "linger", {"seconds": 25}, tenant="ab"[n % 2], deadline=deadline) for n in range(12)
    )
    answered_s = await client.took_s(*writes)
    read = job("effects", "find_caller", {"phone": "1"}, tenant="c", deadline=soon(3))
    return f"{await client.took_s(read):.2f} s (writes answered after {answered_s:.2f} s)"


async def vault_sealed(bench: Bench) -> str:
    """Vault sealed, 8 jobs wait for it on 4 slots: a job whose secret is cached | at once"""
    client, stub = await _with_vault(bench)
    stub.script["/data/"] = SEALED
    stub.script["sys/health"] = SEALED
    client.send(*(_get(f"cold-{number}") for number in range(8)))
    await asyncio.sleep(1)
    return f"{await client.took_s(_get('warm')):.2f} s"


async def vault_hangs(bench: Bench) -> str:
    """Vault hangs, cold secret, deadline 1 s | within 1.2 s"""
    client, stub = await _with_vault(bench)
    stub.open.clear()
    return f"{await client.took_s(_get('cold-1', deadline=soon(1))):.2f} s"


async def vault_hangs_for_others(bench: Bench) -> str:
    """Vault hangs, 8 jobs wait for it on 4 slots: a job whose secret is cached | at once"""
    client, stub = await _with_vault(bench)
    stub.open.clear()
    client.send(*(_get(f"cold-{number}") for number in range(8)))
    await asyncio.sleep(0.5)
    return f"{await client.took_s(_get('warm')):.2f} s"


async def ledger_down(bench: Bench) -> str:
    """Ledger down, 8 writes wait for it on 4 slots: a read | at once"""
    client = await bench.start(
        is_ready=False,
        enabled="effects",
        concurrency="4",
        database_url=NO_DATABASE,
        EFFECTS_URL="http://127.0.0.1:1",
    )
    client.send(*(job("effects", "book", tenant="ab"[n % 2]) for n in range(8)))
    await asyncio.sleep(1)
    return f"{await client.took_s(job('effects', 'find_caller', {'phone': '1'}, tenant='c')):.2f} s"


async def over_share(bench: Bench) -> str:
    """A job of a tenant whose jobs fill the room, deadline 0.2 s | 0.2 s ± 0.2"""
    client = await bench.start(concurrency="4")
    client.send(*(sleep(20, "a") for _ in range(40)))
    await asyncio.sleep(2)
    return f"{await client.took_s(job('dummy', 'ping', tenant='a', deadline=soon(0.2))):.2f} s"


async def slow_clean_up(bench: Bench) -> str:
    """A READ that ignores its cancellation, deadline 1 s | within 1.2 s"""
    client = await bench.start(enabled="misbehaving")
    return f"{await client.took_s(job('misbehaving', 'ignore_cancellation', deadline=soon(1))):.2f} s"


async def hung_threads(bench: Bench) -> str:
    """32 synchronous calls hang: a synchronous job | runs, and the hung are named"""
    client = await bench.start(enabled="misbehaving,dummy", concurrency="32")
    hung = [job("dummy", "block", {"seconds": 600}, tenant=f"t{n}", deadline=soon(2)) for n in range(32)]
    await client.took_s(*hung)
    took_s = await client.took_s(job("dummy", "block", {"seconds": 0.01}, deadline=soon(5)))
    ready = (await client.worker.get("readyz")).json()
    return f"{took_s:.2f} s, {client.failures() - 32} fail; readyz: {ready['hung_calls']}"


async def undecodable(bench: Bench) -> str:
    """One undecodable message among 60 jobs with a deadline of 8 s: failures | 0 (issue 13, item 4)"""
    client = await bench.start()
    name, (flags, properties) = next(iter(BAD_FRAMES.items()))
    deadline = soon(8)
    jobs = [sleep(0.3, "a", deadline=deadline) for _ in range(60)]
    with FramePublisher(client.url) as raw:
        raw.publish("connectors.jobs", "dummy.ping", b"{}", flags, properties)
    took_s = await client.took_s(*jobs)
    return f"{client.failures()} fail, {took_s:.2f} s ({name})"


async def forged_replies(bench: Bench) -> str:
    """300 forged direct reply addresses: 100 honest callers | nobody notices"""
    client = await bench.start()
    for number in range(300):
        client.send(job("dummy", "ping", tenant="forger"), reply_to=FORGED.format(number))
    return f"{await client.took_s(*(job('dummy', 'ping', tenant='honest') for _ in range(100))):.2f} s"


async def queue_behind_flood(bench: Bench) -> str:
    """2,000 jobs of 5 s of one tenant on 100 slots, then another's call with a deadline of 3 s | stated"""
    client = await bench.start()
    client.send(*(sleep(5, "a") for _ in range(2000)))
    first_s = await client.took_s(job("dummy", "ping", tenant="b", deadline=soon(3)))
    await asyncio.sleep(5)
    then_s = await client.took_s(job("dummy", "ping", tenant="b", deadline=soon(3)))
    return f"{first_s:.2f} s at once, {then_s:.2f} s five seconds later"


async def _with_vault(bench: Bench) -> tuple[Client, VaultStub]:
    """Start a worker whose vault is ours, with the secret of the tenant `warm` cached."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    served = await bench.ends.enter_async_context(serve(answer))
    stub = bench.ends.enter_context(VaultStub().running())
    for tenant in ["warm", *(f"cold-{number}" for number in range(8))]:
        stub.secrets[f"{tenant}/http/default"] = {"base_url": served.url}
    stub.tokens.add("s.bench")
    client = await bench.start(
        enabled="http",
        concurrency="4",
        egress_allow="127.0.0.1",
        vault_url=stub.url,
        vault_auth="token",
        vault_token="s.bench",
    )
    await client.took_s(_get("warm"))
    return client, stub


def _get(tenant: str, **more: Any) -> dict[str, Any]:
    return job("http", "request", {"method": "GET", "path": "/"}, tenant=tenant, **more)


ROWS: Final[dict[str, Callable[[Bench], Awaitable[str]]]] = {
    row.__name__: row
    for row in (
        slots_busy,
        lone_20,
        lone_60,
        thousand_of_one,
        thousand_of_two,
        late_writes,
        vault_sealed,
        vault_hangs,
        vault_hangs_for_others,
        ledger_down,
        over_share,
        slow_clean_up,
        hung_threads,
        undecodable,
        forged_replies,
        queue_behind_flood,
    )
}


async def _measure(rows: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with PrivateRabbitMQ(folder / "rabbitmq") as broker:
            for row in rows:
                what, _, promised = (ROWS[row].__doc__ or "").partition(" | ")
                async with AsyncExitStack() as ends:
                    try:
                        measured = await ROWS[row](Bench(broker, folder, ends, row))
                    except AssertionError as failure:
                        measured = f"not measured: {failure}"
                print(f"{row}: {what}\n    measured {measured}; should be {promised}", flush=True)


def main() -> None:
    """Measure the rows that were named, or all."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    asyncio.run(_measure(options.parse_args().rows or list(ROWS)))


if __name__ == "__main__":
    main()
