"""One effect per key, seen from inside: what is told at a deadline, what a stall or an outage may not break."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.registry import Registry
from connectors.sdk import Connector, Context, CredentialInvalid, Effect
from connectors.sdk.http.client import HttpPolicy, HttpPool
from connectors.sdk.runtime.clock import SystemClock
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.idempotency import LATE_LOOK_S
from connectors.sdk.runtime.infrastructure import HoldPolicy
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claimed, Identity, LedgerUnavailable, fingerprint_of
from connectors.sdk.runtime.outcome import Attempt, Outcome, Snooze
from schemas.error import Code
from schemas.job import Job
from worker.credentials.source import VaultUnavailable
from worker.ledger.policy import DatabasePolicy
from worker.ledger.store import SqlLedger

pytestmark = pytest.mark.integration

KEY = "k"


#: A disk that other tests keep busy is no outage.
PATIENT = DatabasePolicy(statement_timeout_s=60.0)


class Secret(BaseModel):
    """What the connector below wants from the vault."""

    token: str


@dataclass
class Vault:
    """A credential source that can be away."""

    away: bool = False
    refused: int = 0

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, str]:
        if self.away:
            raise VaultUnavailable("the vault is sealed")
        return {"token": f"t{self.refused}"}

    async def invalidate(self, *_: Any, refused: Any = None) -> None:
        self.refused += 1

    async def wait_available(self, timeout_s: float) -> bool:
        await asyncio.sleep(min(timeout_s, 0.01 if not self.away else timeout_s))
        return not self.away


@dataclass
class World:
    """Where effects happen: what each action does is set by the test."""

    happened: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    #: Run inside the call, after it has had its effect.
    then: Callable[[], Awaitable[Any]] | None = None
    before: Callable[[], None] = lambda: None


@dataclass
class Bench:
    """Everything that one effect passes, but for the broker."""

    ledger: SqlLedger
    vault: Vault
    world: World
    connector: Connector
    make: Callable[..., Executor]
    executor: Executor

    async def run(
        self, action: str, *, deadline_s: float | None = None, attempts: int = 0, **fields: Any
    ) -> Outcome:
        job = Job(id="j", connector="shop", action=action, idempotency_key=KEY, **fields)
        at = None if deadline_s is None else datetime.now(UTC) + timedelta(seconds=deadline_s)
        return await self.executor.execute(job, Attempt(Deadline(at, SystemClock()), attempts=attempts))

    async def undo(self, action: str, **how: Any) -> Outcome:
        return await self.run(action, mode="undo", **how)

    def identity(self, action: str) -> Identity:
        return Identity("default", "shop", action, KEY)

    async def died_in(self, action: str, *, lands_within_s: float) -> None:
        """Leave what a worker leaves that died while its call was in flight."""
        claimed = await self.ledger.claim(self.identity(action), fingerprint_of({}, "default"))
        assert isinstance(claimed, Claimed)
        await self.ledger.begin(self.identity(action), claimed.fence, lands_within_s=lands_within_s)
        await self.ledger.release(self.identity(action), claimed.fence, in_flight=True)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    world = World()
    shop = Connector("shop", credential=Secret)

    async def happen(ctx: Context[Secret]) -> None:
        world.before()
        world.happened.append(ctx.idempotency_key)
        if world.then is not None:
            await world.then()

    @shop.action(effect=Effect.KEYED, timeout_s=5)
    async def order(ctx: Context[Secret]) -> str:
        await happen(ctx)
        return "ordered"

    @order.undo
    async def cancel(ctx: Context[Secret]) -> None:
        if world.then is not None:
            await world.then()
        world.undone.append(ctx.idempotency_key)

    @shop.action(effect=Effect.WRITE, timeout_s=5)
    async def note(ctx: Context[Secret]) -> None:
        await happen(ctx)

    @note.undo
    async def erase(ctx: Context[Secret], result: None) -> None:
        world.undone.append(ctx.idempotency_key)

    ledger, vault = SqlLedger(f"sqlite:///{tmp_path}/ledger.db", database=PATIENT), Vault()
    await ledger.start()
    http = HttpPool(HttpPolicy())
    executors: list[Executor] = []

    def make(**policies: Any) -> Executor:
        executors.append(Executor(Registry.of(shop), vault, http, ledger, **policies))
        return executors[-1]

    yield Bench(ledger, vault, world, shop, make, make())
    world.then = None
    for executor in executors:
        await executor.close()
    await http.close()
    await ledger.close()


def _told(outcome: Outcome) -> tuple[Code, Any]:
    assert outcome.error is not None
    return outcome.error.code, (outcome.error.data or {}).get("outcome")


async def test_a_write_that_waited_for_the_vault_too_long_was_not_started(bench: Bench) -> None:
    bench.vault.away = True

    outcome = await bench.run("order", deadline_s=0.2)

    assert (Code.DEADLINE_EXCEEDED, "not_started") == _told(outcome)
    assert 0 == outcome.attempts
    assert [] == bench.world.happened


async def test_a_write_under_way_at_its_deadline_is_unknown_and_counted(bench: Bench) -> None:
    finished = asyncio.Event()
    bench.world.then = finished.wait

    outcome = await bench.run("order", deadline_s=0.2)
    finished.set()
    assert outcome.ack_after is not None
    await outcome.ack_after

    assert (Code.DEADLINE_EXCEEDED, "unknown") == _told(outcome)
    assert 1 == outcome.attempts
    assert "ordered" == (await bench.run("order")).data


@pytest.mark.parametrize("attempts", [0, 1])
async def test_with_the_ledger_away_at_the_deadline_no_one_knows_of_copies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    async def away(*_: Any) -> Any:
        raise LedgerUnavailable("no database")

    async def wait(timeout_s: float) -> bool:
        await asyncio.sleep(timeout_s)
        return False

    for name in ("claim", "look_up"):
        monkeypatch.setattr(bench.ledger, name, away)
    monkeypatch.setattr(bench.ledger, "wait_available", wait)

    for deadline_s in (0.2, -1):
        outcome = await bench.run("order", deadline_s=deadline_s, attempts=attempts)
        assert (Code.DEADLINE_EXCEEDED, "unknown") == _told(outcome)
        assert attempts == outcome.attempts


async def test_a_ledger_that_hangs_holds_no_caller_whose_deadline_has_passed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulation forgives what a broken ledger delays, so that this guard needs a test of its own."""
    answered = asyncio.Event()

    async def hang(*_: Any) -> Any:
        await answered.wait()
        raise LedgerUnavailable("no database")

    for name in ("claim", "look_up"):
        monkeypatch.setattr(bench.ledger, name, hang)

    async with asyncio.timeout(3 * LATE_LOOK_S):
        outcome = await bench.run("order", deadline_s=-1)
    answered.set()

    assert (Code.DEADLINE_EXCEEDED, "unknown") == _told(outcome)
    assert [] == bench.world.happened


async def test_an_undo_that_comes_too_late_is_not_begun_and_marks_nothing(bench: Bench) -> None:
    await bench.run("order")

    outcome = await bench.undo("order", deadline_s=-1)
    again = await bench.run("order")

    assert (Code.DEADLINE_EXCEEDED, "not_started") == _told(outcome)
    assert [] == bench.world.undone
    assert ("ordered", True) == (again.data, again.replayed)


async def test_an_undo_that_happened_is_told_however_late_it_is_asked_again(bench: Bench) -> None:
    await bench.run("order")
    await bench.undo("order")

    outcome = await bench.undo("order", deadline_s=-1)

    assert ({"undone": True}, True) == (outcome.data, outcome.replayed)


async def test_a_slow_undo_is_answered_at_its_deadline_and_finished_all_the_same(bench: Bench) -> None:
    await bench.run("order")
    finished = asyncio.Event()
    bench.world.then = finished.wait

    outcome = await bench.undo("order", deadline_s=0.2)
    finished.set()
    assert outcome.ack_after is not None
    await outcome.ack_after

    assert (Code.DEADLINE_EXCEEDED, "unknown") == _told(outcome)
    assert 1 == outcome.attempts
    assert [KEY] == bench.world.undone
    assert await bench.ledger.is_undone(bench.identity("order"))


async def test_an_undo_waits_until_the_call_of_a_dead_worker_can_no_longer_land(bench: Bench) -> None:
    await bench.died_in("order", lands_within_s=1.5)

    with pytest.raises(Snooze):
        await bench.undo("order")
    assert [] == bench.world.undone
    while not bench.world.undone:
        with suppress(Snooze):
            await bench.undo("order")

    assert [KEY] == bench.world.undone
    outcome = await bench.run("order")
    assert (Code.CONFLICT, "undone") == _told(outcome)


async def test_the_undo_of_a_write_that_returned_nothing_is_no_riddle(bench: Bench) -> None:
    await bench.run("note")

    outcome = await bench.undo("note")

    assert {"undone": True} == outcome.data
    assert [KEY] == bench.world.undone


async def test_a_worker_that_stood_still_before_its_call_does_not_send_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SIGSTOP does, or a machine that sleeps: by now another worker may have taken over."""
    bench.executor = bench.make(lease_policy=LeasePolicy(stall_s=0.05))
    begin = bench.ledger.begin

    async def stalling(*args: Any, **kwargs: Any) -> bool:
        held = await begin(*args, **kwargs)
        time.sleep(0.1)  # the whole process, so no await
        return held

    monkeypatch.setattr(bench.ledger, "begin", stalling)

    with pytest.raises(Snooze):
        await bench.run("note")
    assert [] == bench.world.happened

    monkeypatch.setattr(bench.ledger, "begin", begin)
    assert (await bench.run("note")).error is None, "it is known that nothing was sent"


async def test_a_call_that_was_refused_before_the_vault_went_away_is_not_unknown(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.executor = bench.make(hold_policy=HoldPolicy(hold_s=0.1))

    def refuse() -> None:
        bench.vault.away = True
        raise CredentialInvalid("401")

    bench.world.before = refuse
    with pytest.raises(Snooze):
        await bench.run("note")
    bench.vault.away = False
    bench.world.before = lambda: None

    outcome = await bench.run("note")

    assert outcome.error is None
    assert [KEY] == bench.world.happened


async def test_a_result_is_stored_once_a_long_outage_of_the_ledger_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.executor = bench.make(hold_policy=HoldPolicy(hold_s=0.05))
    complete, back = bench.ledger.complete, asyncio.Event()

    async def away(*args: Any) -> bool:
        if not back.is_set():
            raise LedgerUnavailable("no database")
        return await complete(*args)

    async def wait_available(timeout_s: float) -> bool:
        await asyncio.sleep(0.02)
        return back.is_set()

    monkeypatch.setattr(bench.ledger, "complete", away)
    monkeypatch.setattr(bench.ledger, "wait_available", wait_available)

    outcome = await bench.run("note")
    assert outcome.error is None and outcome.ack_after is not None
    await asyncio.sleep(0.2)  # longer than a job is held
    back.set()
    await outcome.ack_after

    again = await bench.run("note")
    assert (None, True) == (again.error, again.replayed)
    assert [KEY] == bench.world.happened
