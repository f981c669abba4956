"""The core on a ledger in memory: a shop whose effects are listed, and workers that share its ledger."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from connectors.registry import Registry
from connectors.sdk import Connector, Context, Effect
from connectors.sdk.errors import Code
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.ledger import Identity
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.outcome import Attempt, Outcome
from connectors.sdk.testing import FakeClock
from connectors.sdk.testing.secret import FixedSecret
from schemas.job import Job

KEY = "k"


@dataclass
class Shop:
    """A connector whose effects are listed, and what its next call does."""

    orders: list[str] = field(default_factory=list)
    #: Whether each call was told that it is a repeat.
    repeats: list[bool] = field(default_factory=list)
    #: Called by the action after its effect; may raise.
    then: Callable[[], Any] = lambda: None
    #: Called by the action before its effect; may raise.
    before: Callable[[], Any] = lambda: None
    undo_error: Exception | None = None
    #: Awaited by the undo after it.
    then_undo: Callable[[], Awaitable[None]] | None = None
    connector: Connector[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.connector = shop = Connector("shop")

        async def order(ctx: Context) -> str:
            self.before()
            self.repeats.append(ctx.is_repeat)
            self.orders.append(ctx.idempotency_key)
            self.repeats.append(ctx.is_repeat)
            result = self.then()
            if asyncio.iscoroutine(result):
                await result
            return f"order {len(self.orders)}"

        @shop.action(effect=Effect.KEYED, timeout_s=5)
        async def keyed(ctx: Context) -> str:
            return await order(ctx)

        @keyed.undo
        async def undo_keyed(ctx: Context) -> None:
            if self.undo_error is not None:
                raise self.undo_error
            self.orders.clear()
            if self.then_undo is not None:
                await self.then_undo()

        @shop.action(effect=Effect.WRITE, timeout_s=5)
        async def write(ctx: Context) -> str:
            return await order(ctx)

        @shop.action(effect=Effect.WRITE, timeout_s=5)
        async def found(ctx: Context) -> str:
            return await order(ctx)

        @found.reconcile
        async def find(ctx: Context) -> str | None:
            return "found" if ctx.idempotency_key in self.orders else None

        @shop.action(effect=Effect.WRITE, timeout_s=0.1)
        def blocking(ctx: Context) -> str:
            self.before()
            self.orders.append(ctx.idempotency_key)
            return "blocked"

        @shop.action(effect=Effect.KEYED, timeout_s=0.1)
        def blocking_keyed(ctx: Context) -> str:
            self.before()
            self.orders.append(ctx.idempotency_key)
            return "blocked"

        @blocking_keyed.undo
        async def undo_blocking_keyed(ctx: Context) -> None:
            self.orders.clear()

        @blocking.reconcile
        async def find_blocking(ctx: Context) -> str | None:
            return "found" if ctx.idempotency_key in self.orders else None


class SlowLedger(MemoryLedger):
    """A ledger whose commit of a result takes until it is let go."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.committing = asyncio.Event()
        self.go_on = asyncio.Event()

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        self.committing.set()
        await self.go_on.wait()
        return await super().complete(identity, fence, result)


@dataclass
class Bench:
    """A shop, a ledger, and workers on both."""

    shop: Shop
    clock: FakeClock
    ledger: MemoryLedger
    http: HttpPool
    executors: list[Executor] = field(default_factory=list)

    def worker(self, **how: Any) -> Executor:
        secret = FixedSecret(self.shop.connector, None, set())
        self.executors.append(
            Executor(
                Registry.of(self.shop.connector), secret, self.http, self.ledger, clock=self.clock, **how
            )
        )
        return self.executors[-1]

    async def run(
        self, action: str, worker: Executor | None = None, *, in_s: float | None = None, **fields: Any
    ) -> Outcome:
        job = Job(id="j", connector="shop", action=action, idempotency_key=KEY, **fields)
        at = None if in_s is None else self.clock.now() + timedelta(seconds=in_s)
        executor = worker or (self.executors[0] if self.executors else self.worker())
        return await executor.execute(job, Attempt(Deadline(at, self.clock)))


def said(outcome: Outcome) -> tuple[Code, Any]:
    assert outcome.error is not None
    return outcome.error.code, (outcome.error.data or {}).get("outcome")


@asynccontextmanager
async def open_bench(clock: FakeClock | None = None) -> AsyncIterator[Bench]:
    """Open a bench without workers; those that it makes are closed with it."""
    clock = clock or FakeClock()
    http = HttpPool(HttpPolicy())
    bench = Bench(Shop(), clock, MemoryLedger(clock), http)
    yield bench
    for executor in bench.executors:
        await executor.close()
    await http.close()
