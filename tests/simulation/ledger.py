"""The ledger as a worker reaches it: questions take time, answers get lost, and who asked may be dead by then."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from connectors.sdk.runtime.ledger import (
    Claim,
    Claimed,
    Identity,
    InProgress,
    Known,
    Ledger,
    LedgerUnavailable,
    Undone,
)
from tests.simulation.choices import Choices
from tests.simulation.loop import Host
from tests.simulation.trace import LedgerTrace
from worker.ledger.schema import TABLES
from worker.ledger.sqlite import answer
from worker.ledger.statements import LedgerStatements, Question, Rows, Statement
from worker.ledger.store import SqlLedger

#: Seconds in which a question is answered or given up, as the worker's database has it.
STATEMENT_TIMEOUT_S: Final = 5.0
#: Seconds on the way to the database, and until its commit has been heard of.
LATENCIES_S: Final = (0.002, 0.02, 0.6, 2.4, 4.6, 9.0)
#: Whether a connection breaks.
LOSSES: Final[tuple[bool, ...]] = (False, True)
#: What is asked right before something leaves, and the steps of a worker that it takes.
HOT: Final = frozenset({"begin", "begin_undo", "claim_undo"})
HOT_STEPS: Final = 8
#: Seconds between two looks at a ledger that is away.
LOOK_S: Final = 0.5


class Database:
    """The machine of the ledger: a store that all workers share, and what may happen on the way to it."""

    def __init__(self, host: Host, store: Ledger, choices: Choices, *, rate: float) -> None:
        self.host = host
        self.store = store
        self.trace = LedgerTrace(host.loop.time)
        #: How often what was asked, whether it arrived or not.
        self.asked: Counter[tuple[str, Identity]] = Counter()
        #: Questions about a key whose answer reached no one, or has not yet.
        self.unheard: Counter[Identity] = Counter()
        self.away_until = 0.0
        self._choices = choices
        self._rare = rate

    @property
    def is_away(self) -> bool:
        """Whether it refuses connections."""
        return self.host.loop.time() < self.away_until

    def send(
        self, who: str, name: str, identity: Identity, args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Any:
        """Take a question, and return the future of its answer."""
        answer: asyncio.Future[Any] = self.host.loop.create_future()
        self.asked[(name, identity)] += 1
        self.unheard[identity] += 1
        self.host.loop.note("ledger", f"is asked to {name} {identity.key} {args}")
        self.host.spawn(self._serve(answer, who, name, identity, args, options))
        return answer

    async def _serve(
        self,
        answer: "asyncio.Future[Any]",
        who: str,
        name: str,
        identity: Identity,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
    ) -> None:
        await asyncio.sleep(self._choices.pick(LATENCIES_S[:-1], self._rare * 2))
        breaks = self._choices.pick(LOSSES, self._rare)
        if breaks or self.is_away:
            _fail(answer, "the connection broke before the commit")
            return
        said = await getattr(self.store, name)(identity, *args, **options)
        self.host.loop.note("ledger", f"{name} {identity.key} {args} {dict(options)}: {said}")
        try:
            self.trace.record(who, name, identity, args, options, said)
        except AssertionError as broken:
            self.host.loop.failure = broken
        await asyncio.sleep(self._choices.pick(LATENCIES_S, self._rare * 2))
        breaks = self._choices.pick(LOSSES, self._rare)
        if breaks or self.is_away:
            _fail(answer, "the connection broke after the commit")
        elif not answer.done():
            answer.set_result(said)


def _fail(answer: "asyncio.Future[Any]", reason: str) -> None:
    if not answer.done():
        answer.set_exception(LedgerUnavailable(reason))


class SimulatedLedger:
    """One worker's way to the database."""

    def __init__(self, database: Database, host: Host) -> None:
        self._database = database
        self._host = host

    async def _ask(self, name: str, identity: Identity, *args: Any, **options: Any) -> Any:
        self._host.hot_steps = HOT_STEPS if name in HOT else 0
        answer = self._database.send(self._host.name, name, identity, args, options)
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT_S):
                said = await answer
        except TimeoutError:
            raise LedgerUnavailable(f"no answer within {STATEMENT_TIMEOUT_S:g} s") from None
        self._database.unheard[identity] -= 1
        return said

    async def wait_available(self, timeout_s: float) -> bool:
        """Look now and then whether it is back."""
        ends_at = self._database.host.loop.time() + timeout_s
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._database.is_away:
                return True
            if self._database.host.loop.time() >= ends_at:
                return False

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Ask for the claim."""
        answer: Claim = await self._ask("claim", identity, fingerprint)
        return answer

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Ask for the claim of an undo."""
        answer: Claimed | InProgress | Undone = await self._ask("claim_undo", identity)
        return answer

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Ask what is known."""
        answer: Known = await self._ask("look_up", identity, fingerprint)
        return answer

    async def is_undone(self, identity: Identity) -> bool:
        """Ask whether it was taken back."""
        return bool(await self._ask("is_undone", identity))

    async def begin(self, identity: Identity, fence: int, *, lands_within_s: float) -> bool:
        """Record that a call leaves now."""
        held = bool(await self._ask("begin", identity, fence, lands_within_s=lands_within_s))
        self._host.begun_at[identity.key] = self._host.loop.time()
        return held

    async def begin_undo(self, identity: Identity, fence: int) -> bool:
        """Record that the call of an undo leaves now."""
        return bool(await self._ask("begin_undo", identity, fence))

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer."""
        return bool(await self._ask("renew", identity, fence))

    async def record_step(self, identity: Identity, fence: int, steps: Mapping[str, Any]) -> bool:
        """Store what the steps returned."""
        return bool(await self._ask("record_step", identity, fence, dict(steps)))

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result."""
        return bool(await self._ask("complete", identity, fence, result))

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark."""
        return bool(await self._ask("complete_undo", identity, fence))

    async def abort_undo(self, identity: Identity, fence: int) -> bool:
        """Put back what was."""
        return bool(await self._ask("abort_undo", identity, fence))

    async def release(
        self, identity: Identity, fence: int, *, in_flight: bool, undo_in_flight: bool = False
    ) -> bool:
        """Give the claim back."""
        told = {"in_flight": in_flight, "undo_in_flight": undo_in_flight}
        return bool(await self._ask("release", identity, fence, **told))

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Record that no one can tell."""
        return bool(await self._ask("mark_unknown", identity, fence))

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim."""
        return bool(await self._ask("forget", identity, fence))


class SqliteStore(SqlLedger):
    """The worker's own SQL ledger on SQLite in memory, whose clock is the simulation's."""

    def __init__(self, epoch_s: Callable[[], float], lease_s: float) -> None:
        self._sql = LedgerStatements("simulated_now()", lease_s=lease_s, ttl_s=720 * 3600.0)
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.create_function("simulated_now", 0, epoch_s)
        for statements in TABLES.values():
            for statement in statements:
                self._connection.execute(statement)

    async def _ask(self, statement: Statement, *values: Any) -> Rows:
        return answer(self._connection, Question(statement, values))

    def dispose(self) -> None:
        """Throw the database away."""
        self._connection.close()
