"""The whole core with no broker: a processor, an executor, memory in place of stores, and a shop to run."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from connectors.registry import Registry
from connectors.sdk import Connector, Context, Effect
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.infrastructure import HoldPolicy, InfrastructureUnavailable
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claim, Identity, LedgerUnavailable
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.testing import FakeClock
from schemas.result import Result
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import PublishOutcome
from worker.broker.topology import JobQueue, retry_delay_for
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.headers import JobHeaders
from worker.job.processor import JobProcessor
from worker.job.waiting_room import WaitingRoom
from worker.metrics import Metrics

QUEUE = JobQueue("queue", "shop")
SLOTS = 2


class Token(BaseModel):
    """What the connector wants from the vault."""

    token: str


class Vault:
    """A vault that is sealed for some tenants, and hangs for others."""

    def __init__(self) -> None:
        self.sealed: set[str] = set()
        self.hanging: set[str] = set()
        self.unsealed = asyncio.Event()

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, Any]:
        if tenant in self.hanging:
            await asyncio.Event().wait()
        if tenant in self.sealed and not self.unsealed.is_set():
            raise InfrastructureUnavailable("the vault is sealed")
        return {"token": tenant}

    async def invalidate(self, *_: Any, **__: Any) -> None: ...

    async def wait_available(self, timeout_s: float) -> bool:
        return await self.unsealed.wait()


class Ledger(MemoryLedger):
    """A ledger that can be unavailable for claims."""

    is_down = False

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        if self.is_down:
            raise LedgerUnavailable("the ledger is down")
        return await super().claim(identity, fingerprint)

    async def wait_available(self, timeout_s: float) -> bool:
        return not self.is_down or await asyncio.Event().wait()


class Shop:
    """A connector whose actions do what the test says."""

    def __init__(self) -> None:
        self.connector = Connector("shop", credential=Token)
        self.gate = asyncio.Event()
        self.thread_gate = threading.Event()
        self.started: list[str] = []
        self.on_start: Callable[[], None] = lambda: None
        self._add_actions()

    def start(self, ctx: Context[Token]) -> None:
        self.started.append(ctx.job_id)
        self.on_start()

    def _add_actions(self) -> None:
        @self.connector.action(effect=Effect.READ, timeout_s=600)
        async def look(ctx: Context[Token]) -> str:
            """Wait for the gate."""
            self.start(ctx)
            await self.gate.wait()
            return "seen"

        @self.connector.action(effect=Effect.READ, timeout_s=600)
        async def quick(ctx: Context[Token]) -> str:
            """Return at once."""
            self.start(ctx)
            return "quick"

        @self.connector.action(effect=Effect.READ, timeout_s=600)
        async def tidy(ctx: Context[Token]) -> str:
            """Clean up slowly once cancelled."""
            self.start(ctx)
            try:
                await asyncio.Event().wait()
            finally:
                await self.gate.wait()
            return "never"

        async def never_end(ctx: Context[Token]) -> str:
            """Swallow each cancellation until the gate opens."""
            self.start(ctx)
            while not self.gate.is_set():
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    pass
            return "too late"

        self.connector.action(effect=Effect.READ, timeout_s=600, name="stubborn_read")(never_end)
        self.connector.action(effect=Effect.KEYED, timeout_s=1, name="stubborn_keyed")(never_end)
        self.connector.action(effect=Effect.WRITE, timeout_s=1, name="stubborn_write")(never_end)

        @self.connector.action(effect=Effect.KEYED, timeout_s=600)
        async def order(ctx: Context[Token]) -> str:
            """Have an effect, and wait for the gate."""
            self.start(ctx)
            await self.gate.wait()
            return "ordered"

        @self.connector.action(effect=Effect.KEYED, timeout_s=600)
        async def book(ctx: Context[Token]) -> str:
            """Book under a name that one job holds at a time."""
            self.start(ctx)
            async with ctx.lease("calendar"):
                await self.gate.wait()
            return "booked"

        @self.connector.action(effect=Effect.READ, timeout_s=600)
        def block(ctx: Context[Token]) -> str:
            """Block a thread until the gate opens."""
            self.start(ctx)
            self.thread_gate.wait()
            return "unblocked"


class Bench:
    """A processor with the whole core below it, its clock and its publisher."""

    def __init__(self, slots: int = SLOTS, *, prompt_s: float = 3600.0) -> None:
        self.clock = FakeClock()
        self.vault, self.shop = Vault(), Shop()
        self.ledger = Ledger(self.clock, LeasePolicy(lease_s=1e9))
        self.replies: dict[str, Result] = {}
        self.delays: dict[str, JobHeaders] = {}
        #: The retry queue that each delayed job was sent to.
        self.retry_queues: dict[str, str] = {}
        self.acked: list[str] = []
        self.http = HttpPool(HttpPolicy())
        registry, metrics = Registry.of(self.shop.connector), Metrics(version="0")
        metrics.add_connector("shop", self.shop.connector.actions)
        metrics.add_queue("queue", slots)
        self.executor = Executor(
            registry,
            self.vault,
            self.http,
            self.ledger,
            clock=self.clock,
            lease_policy=LeasePolicy(lease_s=1e9, renew_s=1e9),
            hold_policy=HoldPolicy(hold_s=60, prompt_s=prompt_s),
            threads=slots,
            on_hung=metrics.calls_hung,
        )
        self.metrics = metrics
        self.limiter = ConcurrencyLimiter(slots, tenant_total=max(1, slots // 2), clock=self.clock)
        publisher: Any = self
        self.processor = JobProcessor(
            self.executor,
            publisher,
            registry,
            metrics,
            rooms={QUEUE: WaitingRoom(self.limiter)},
            trusted_users=["us"],
            max_attempts=2,
            max_body_bytes=1000,
            clock=self.clock,
        )

    def send(
        self,
        action: str,
        id: str,
        tenant: str = "a",
        seconds: float | None = None,
        headers: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        """Deliver a job."""
        body = {"id": id, "connector": "shop", "action": action, "tenant": tenant, **more}
        if seconds is not None:
            body["deadline"] = (self.clock.now() + timedelta(seconds=seconds)).isoformat()

        def settle(_tag: int) -> bool:
            self.acked.append(id)
            return True

        channel = SimpleNamespace(is_closed=False, ack=settle, reject=settle)
        properties = Properties(
            reply_to="callers", correlation_id=id, message_id=id, user_id="us", headers=headers or {}
        )
        delivery = Delivery(json.dumps(body).encode(), f"shop.{action}", properties, False, 0, 1, channel)
        self.processor.receive(QUEUE, delivery)
        return id

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.001)

    async def started(self, *ids: str) -> None:
        await self.until(lambda: set(ids) <= set(self.shop.started))

    async def replied(self, *ids: str) -> list[str]:
        """Wait for replies; return their codes and outcomes in words."""
        await self.until(lambda: set(ids) <= self.replies.keys())
        return [said(self.replies[each]) for each in ids]

    async def close(self) -> None:
        self.shop.gate.set()
        self.shop.thread_gate.set()
        await self.processor.abandon()
        await self.executor.close()
        await self.http.close()

    # As the publisher.

    def refusal_of(self, _reply_to: str | None, _publisher: str | None) -> None: ...

    async def delay(self, delivery: Delivery, headers: JobHeaders, now: datetime) -> None:
        assert headers.not_before is not None
        id = json.loads(delivery.body)["id"]
        self.delays[id] = headers
        self.retry_queues[id] = retry_delay_for((headers.not_before - now).total_seconds())

    async def reply(self, _delivery: Delivery, _headers: JobHeaders, result: Result) -> PublishOutcome:
        assert result.id is not None
        self.replies[result.id] = result
        return PublishOutcome.DELIVERED


def said(result: Result) -> str:
    if result.error is None:
        return "succeeded"
    outcome = (result.error.data or {}).get("outcome")
    return f"{result.error.code} {outcome}"
