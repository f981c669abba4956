"""The rows of `late`: a load each, what was measured under it, and what is promised (after the bar)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from tests.bench import fairness
from tests.bench.late_bench import Bench, Client, Measured, sleep, soon
from tests.support.frames import BAD_FRAMES, FramePublisher
from tests.support.http_servers import serve
from tests.support.provider import Provider
from tests.support.rpc import job
from tests.support.vault_stub import SEALED, VaultStub

#: An address as the broker writes it, of a connection that never was.
FORGED: Final = "amq.rabbitmq.reply-to.g1hkABByYWJiaXRAbG9jYWxob3N0AAAEmwAAAABnAAAA.bm9ib2R5LWlzLWhlcmU={}"
#: No server listens on it.
NO_DATABASE: Final = "postgresql://nobody:nothing@127.0.0.1:1/none"
#: Seconds within which what is promised at once must come.
AT_ONCE_S: Final = 0.5
#: Seconds promised for 1,000 jobs of 0.5 s on 100 slots.
THOUSAND_S: Final = 5.5
FLOOD: Final = 10_000


async def slots_busy(bench: Bench) -> Measured:
    """All slots of a connector busy for 20 s, a third tenant's job with a deadline of 2 s | 2 s ± 0.2"""
    client = await bench.start(concurrency="4")
    client.send(*(sleep(20, tenant) for tenant in "ababab"))
    await asyncio.sleep(1)
    took_s = await client.took_s(job("dummy", "ping", tenant="c", deadline=soon(2)))
    return Measured(f"{took_s:.2f} s", abs(took_s - 2) <= 0.2)


async def lone_20(bench: Bench) -> Measured:
    """One tenant, 20 slots, 20 jobs of 1.5 s with a deadline of 2.5 s: failures | 0"""
    client = await bench.start(concurrency="20")
    deadline = soon(2.5)
    took_s = await client.took_s(*(sleep(1.5, "a", deadline=deadline) for _ in range(20)))
    return Measured(f"{client.failures()} fail, {took_s:.2f} s", client.failures() == 0)


async def lone_60(bench: Bench) -> Measured:
    """One tenant, 100 slots, 60 jobs of 0.3 s | 0.3 s"""
    client = await bench.start()
    took_s = await client.took_s(*(sleep(0.3, "a") for _ in range(60)))
    return Measured(f"{took_s:.2f} s", took_s < 0.6)


async def thousand_of_one(bench: Bench) -> Measured:
    """1,000 jobs of 0.5 s of one tenant on 100 slots | 5.5 s"""
    client = await bench.start()
    took_s = await client.took_s(*(sleep(0.5, "a") for _ in range(1000)))
    return Measured(f"{took_s:.1f} s", took_s <= THOUSAND_S)


async def thousand_of_two(bench: Bench) -> Measured:
    """1,000 jobs of 0.5 s of two tenants on 100 slots | 5.5 s"""
    client = await bench.start()
    took_s = await client.took_s(*(sleep(0.5, "ab"[n % 2]) for n in range(1000)))
    return Measured(f"{took_s:.1f} s", took_s <= THOUSAND_S)


async def late_writes(bench: Bench) -> Measured:
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
    took_s = await client.took_s(read)
    return Measured(
        f"{took_s:.2f} s (writes answered after {answered_s:.2f} s)", max(took_s, answered_s - 1) < AT_ONCE_S
    )


async def vault_sealed(bench: Bench) -> Measured:
    """Vault sealed, 8 jobs wait for it on 4 slots: a job whose secret is cached | at once"""
    client, stub = await _with_vault(bench)
    stub.script["/data/"] = SEALED
    stub.script["sys/health"] = SEALED
    client.send(*(_get(f"cold-{number}") for number in range(8)))
    await asyncio.sleep(1)
    return _at_once(await client.took_s(_get("warm")))


async def vault_hangs(bench: Bench) -> Measured:
    """Vault hangs, cold secret, deadline 1 s | within 1.2 s"""
    client, stub = await _with_vault(bench)
    stub.open.clear()
    return _within(await client.took_s(_get("cold-1", deadline=soon(1))), 1.2)


async def vault_hangs_for_others(bench: Bench) -> Measured:
    """Vault hangs, 8 jobs wait for it on 4 slots: a job whose secret is cached | at once"""
    client, stub = await _with_vault(bench)
    stub.open.clear()
    client.send(*(_get(f"cold-{number}") for number in range(8)))
    await asyncio.sleep(0.5)
    return _at_once(await client.took_s(_get("warm")))


async def ledger_down(bench: Bench) -> Measured:
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
    return _at_once(await client.took_s(job("effects", "find_caller", {"phone": "1"}, tenant="c")))


async def over_share(bench: Bench) -> Measured:
    """A job of a tenant whose jobs fill the room, deadline 0.2 s | 0.2 s ± 0.2"""
    client = await bench.start(concurrency="4")
    client.send(*(sleep(20, "a") for _ in range(40)))
    await asyncio.sleep(2)
    return _at_deadline(await client.took_s(job("dummy", "ping", tenant="a", deadline=soon(0.2))), 0.2)


async def slow_clean_up(bench: Bench) -> Measured:
    """A READ that ignores its cancellation, deadline 1 s | within 1.2 s"""
    client = await bench.start(enabled="misbehaving")
    return _within(await client.took_s(job("misbehaving", "ignore_cancellation", deadline=soon(1))), 1.2)


async def hung_threads(bench: Bench) -> Measured:
    """32 synchronous calls hang: a synchronous job | runs, and the hung are named"""
    client = await bench.start(enabled="misbehaving,dummy", concurrency="32")
    hung = [job("dummy", "block", {"seconds": 600}, tenant=f"t{n}", deadline=soon(2)) for n in range(32)]
    await client.took_s(*hung)
    took_s = await client.took_s(job("dummy", "block", {"seconds": 0.01}, deadline=soon(5)))
    ready = (await client.worker.get("readyz")).json()
    failed = client.failures() - 32
    return Measured(
        f"{took_s:.2f} s, {failed} fail; readyz: {ready['hung_calls']}", not failed and ready["hung_calls"]
    )


async def undecodable(bench: Bench) -> Measured:
    """One undecodable message among 60 jobs with a deadline of 8 s: failures | 0 (issue 13, item 4)"""
    client = await bench.start()
    name, (flags, properties) = next(iter(BAD_FRAMES.items()))
    deadline = soon(8)
    jobs = [sleep(0.3, "a", deadline=deadline) for _ in range(60)]
    with FramePublisher(client.url) as raw:
        raw.publish("connectors.jobs", "dummy.ping", b"{}", flags, properties)
    took_s = await client.took_s(*jobs)
    return Measured(f"{client.failures()} fail, {took_s:.2f} s ({name})", client.failures() == 0)


async def forged_replies(bench: Bench) -> Measured:
    """300 forged direct reply addresses: 100 honest callers | within 1 s"""
    client = await bench.start()
    for number in range(300):
        client.send(job("dummy", "ping", tenant="forger"), reply_to=FORGED.format(number))
    return _within(await client.took_s(*(job("dummy", "ping", tenant="honest") for _ in range(100))), 1.0)


async def dead_letters_full(bench: Bench) -> Measured:
    """The dead-letter queue takes none: 20 jobs that are dead-lettered, then a good one | 1 s, then at once"""
    client = await bench.start()
    host = bench.name
    limit = '{"max-length":1,"overflow":"reject-publish"}'
    await bench.broker.ctl("set_policy", "-p", host, "full", r"^connectors\.dead", limit)
    bad = [job("dummy", "fail", {"code": "INTERNAL_ERROR"}) for _ in range(20)]
    failed_s = await client.took_s(*bad)
    took_s = await client.took_s(job("dummy", "ping"))
    return Measured(f"{failed_s:.2f} s, then {took_s:.2f} s", failed_s < 2.5 and took_s < AT_ONCE_S)


async def blocked_loop(bench: Bench) -> Measured:
    """A connector blocks the loop for 8 s: another's call | named with its stack (others go on if it is isolated)"""
    client = await bench.start(enabled="misbehaving,dummy")
    client.send(job("misbehaving", "block_the_loop", {"seconds": 8}))
    await asyncio.sleep(0.5)
    took_s = await client.took_s(job("dummy", "ping"))
    named = [line for line in client.worker.logged("event loop blocked") if "block_the_loop" in line["stack"]]
    return Measured(f"{took_s:.2f} s; the stack is {'named' if named else 'not named'}", bool(named))


async def flood_beside(bench: Bench) -> Measured:
    """10,000 jobs of 0.5 s of one tenant beside another's calls: p95, throughput | 1.5 x quiet, 0.9 x alone"""
    client = await bench.start()
    found = await asyncio.to_thread(fairness.flood, client.url, FLOOD)
    said = f"p95 {found.p95_ratio:.2f} x quiet, throughput {found.throughput_ratio:.2f} x alone"
    return Measured(said, found.p95_ratio <= 1.5 and found.throughput_ratio >= 0.9)


async def queue_behind_flood(bench: Bench) -> Measured:
    """2,000 jobs of 5 s of one tenant on 100 slots, then another's call with a deadline of 3 s | stated"""
    client = await bench.start()
    client.send(*(sleep(5, "a") for _ in range(2000)))
    first_s = await client.took_s(job("dummy", "ping", tenant="b", deadline=soon(3)))
    await asyncio.sleep(5)
    then_s = await client.took_s(job("dummy", "ping", tenant="b", deadline=soon(3)))
    return Measured(f"{first_s:.2f} s at once, {then_s:.2f} s five seconds later", then_s < AT_ONCE_S)


def _at_once(took_s: float) -> Measured:
    return _within(took_s, AT_ONCE_S)


def _within(took_s: float, most_s: float) -> Measured:
    return Measured(f"{took_s:.2f} s", took_s <= most_s)


def _at_deadline(took_s: float, deadline_s: float) -> Measured:
    return Measured(f"{took_s:.2f} s", abs(took_s - deadline_s) <= 0.2)


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


ROWS: Final[dict[str, Callable[[Bench], Awaitable[Measured]]]] = {
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
        dead_letters_full,
        blocked_loop,
        flood_beside,
        queue_behind_flood,
    )
}
