"""The core with one of its guards taken out: each mutant is killed by an invariant, or is argued to be equivalent."""

import inspect
import multiprocessing
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from connectors.sdk.runtime import action_runner
from connectors.sdk.runtime.action_runner import ActionRunner
from connectors.sdk.runtime.claims import ClaimKeeper
from connectors.sdk.runtime.idempotency import IdempotentRunner
from connectors.sdk.runtime.infrastructure import Infrastructure
from connectors.sdk.runtime.lease import HeldClaim, LeaseRenewer
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from connectors.sdk.runtime.reconcile import Reconciler
from connectors.sdk.runtime.undo import UndoRunner
from tests.simulation.campaign import run_batch, show_progress
from tests.simulation.schedules import token_of
from worker.ledger import statements
from worker.ledger.statements import LedgerStatements

#: Where, what stands there, and what the mutant has instead.
Edit = tuple[Any, str, str, str]


@dataclass(frozen=True, slots=True)
class Mutant:
    """Some guards less."""

    name: str
    edits: tuple[Edit, ...]
    #: Why no schedule can tell it from the core; empty if one must.
    is_equivalent_because: str = ""
    store: str = "memory"


CLOSED: Final[Edit] = (IdempotentRunner, "_begin", "if running.is_closed:", "if False:")
LATE: Final[Edit] = (ActionRunner, "run", "call.attempt.deadline.check()", "pass")
FETCH: Final[Edit] = (ActionRunner, "_by_deadline", "call.attempt.deadline.remaining_s()", "None")
STALL: Final[Edit] = (ClaimKeeper, "_leave", "> self.policy.stall_s", "> 1e9")
LEAVE: Final[Edit] = (
    ActionRunner,
    "run",
    "execution.effects.may_leave = self._is_before(execution.leave_until)",
    "pass",
)
UNDO_LEAVE: Final[Edit] = (UndoRunner, "_call_undo", "effects.may_leave =", "_ =")
BEGIN_LEASE: Final[Edit] = (MemoryLedger, "begin", "or row.lease_until <= self._now()", "")
FENCE: Final[Edit] = (MemoryLedger, "_held", "or row.fence != fence", "")
STEAL: Final[Edit] = (MemoryLedger, "claim", "and row.lease_until < self._now()", "")
SQL_LEASE: Final[Edit] = (LedgerStatements, "_begin", "lease_until > {self._now}", "TRUE")
SQL_FENCE: Final[Edit] = (statements, "_held", "fence = $5", "$5 = $5")
SQL_STEAL: Final[Edit] = (LedgerStatements, "_claim", "AND NOT {self._is_leased()}", "")

MUTANTS: Final = (
    Mutant("commit in flight is forgotten", ((
        IdempotentRunner, "_complete", "complete = partial", "claim.in_flight = False; complete = partial"),)),
    Mutant("a later failure erases an uncertain one", ((
        IdempotentRunner, "_record", "claim.is_repeat and not outcome.settles_key", "False"),)),
    Mutant(
        "any answer settles earlier attempts",
        ((action_runner, "_settles_key", "and error.code in _DEFINITE", ""),),
    ),
    Mutant("an uncertain WRITE is released as done with", ((
        IdempotentRunner, "_settle_write", "await self._keeper.release(claim)",
        "claim.in_flight = False; await self._keeper.release(claim)"),)),
    Mutant("a WRITE is repeated blindly", ((
        IdempotentRunner, "_execute", "if claim.in_flight and effect is Effect.WRITE:", "if False:"),)),
    Mutant("a lookup ignores what may land yet", ((
        Reconciler, "find", "claim.claimed.lands_within_s > 0", "False"),)),
    Mutant("an undo ignores what may land yet", ((
        UndoRunner, "_undo", "elif may_come_back and", "elif False and"),)),
    Mutant("an undo trusts the last call alone", ((
        UndoRunner, "_undo", "or (claimed.attempts > 1 and not is_write)", ""),)),
    Mutant("a refused undo erases an uncertain one", ((
        UndoRunner, "_claim_and_undo", "claim.undo_in_flight or call.attempt.is_uncertain", "False"),)),
    Mutant("an undo leaves no word that it left", ((
        UndoRunner, "_call_undo", "await self._keeper.begin_undo(claim, call)", "pass"),)),
    Mutant("a late undo was never begun", ((
        UndoRunner, "_claim_and_undo", "is_uncertain=isinstance(known, Undone)", "is_uncertain=False"),)),
    Mutant("an undo does not look", ((
        UndoRunner, "_undo", "if found is None and not claimed.steps:", "if True:"),)),
    Mutant("an undo that may have left is aborted", ((
        UndoRunner, "_refused", "claim.undo_in_flight or", "False or"),)),
    Mutant("an undo that came first gives its mark back", ((
        UndoRunner, "_refused", "(came_first and error.code.facts.retryable)", "False"),)),
    Mutant("an undo leaves after its lease", (UNDO_LEAVE,)),
    Mutant("begin stall and late undo", (STALL, UNDO_LEAVE)),
    Mutant("an unreachable ledger means not started", ((
        ClaimKeeper, "ask", "is_uncertain=True", "is_uncertain=False"),)),
    Mutant("a recorded step is no effect", ((HeldClaim, "may_have_effect", "or self.has_steps", ""),)),
    Mutant("a lease that ran out is trusted", ((
        HeldClaim, "may_have_effect", "or now >= self.holds_until", ""),)),
    Mutant("a call in flight is not started", ((
        HeldClaim, "may_have_effect", "self.in_flight or", ""),)),
    Mutant("a refused secret leaves doubt", ((
        IdempotentRunner, "_execute", "on_refused=claim.forget_call", "on_refused=lambda: None"),)),
    Mutant("begin ignores that the process stood still", (STALL,)),
    Mutant("a write may leave at any time", (LEAVE,)),
    Mutant("begin stall and late write", (STALL, LEAVE)),
    Mutant("a closed job may begin", (CLOSED,),
        "`ActionRunner.run` checks the deadline in the same step; only a clock set back right then would tell"),
    Mutant("a late job may begin", (LATE,),
        "`is_closed`, and `unknown` in its place, cover it; see the pair below"),
    Mutant("neither closed nor late matters", (CLOSED, LATE)),
    Mutant("nothing ends a job at its deadline", (CLOSED, LATE, FETCH)),
    Mutant("a failed ledger costs an attempt", ((
        Infrastructure, "ask", "raise Snooze(unavailable.reason) from None",
        "raise __import__('connectors.sdk.errors').sdk.errors.Unavailable(unavailable.reason) from None"),)),
    Mutant("an attempt counts twice", ((IdempotentRunner, "_begin", "claim.attempts += 1", "claim.attempts += 2"),)),
    Mutant("the deadline ends no waiting", ((
        IdempotentRunner, "run", "self._clock.wait({running.task, running.given_up}, limit_s)",
        "self._clock.wait({running.task, running.given_up}, None)"),)),
    Mutant("copies of one deadline ask twice", ((
        IdempotentRunner, "run", " or call.attempt.deadline.has_passed", ""),)),
    Mutant("a stall before the answer is forgotten", ((
        IdempotentRunner, "run", "if self._clock.monotonic() >= running.current_until:", "if False:"),)),
    Mutant("what ended is kept", ((
        IdempotentRunner, "_register", "self._running.pop(identity, None)", "None"),)),
    Mutant("a late result counts", ((IdempotentRunner, "_complete", "if is_ours:", "if True:"),),
        "its effect is there, so that the success is true; who took over stores the same"),
    Mutant("copies in one process do not meet", ((
        IdempotentRunner, "run", "running = self._running.get(identity)", "running = None"),)),
    Mutant("leases are not renewed", ((LeaseRenewer, "_renew", "while True:", "while False:"),)),
    Mutant("an abandoned claim is not released", ((
        ClaimKeeper, "hold", "await self.release(claim)", "pass"),)),
    Mutant("memory: begin without a lease", (BEGIN_LEASE,)),
    Mutant("memory: writes without a fence", (FENCE,)),
    Mutant("memory: neither lease nor fence", (BEGIN_LEASE, FENCE)),
    Mutant("memory: a living claim is stolen", (STEAL,)),
    Mutant("memory: stolen, and begin without a lease", (STEAL, BEGIN_LEASE)),
    Mutant("memory: stolen, and no fence", (STEAL, FENCE)),
    Mutant("memory: an undo begins without a lease", ((
        MemoryLedger, "begin_undo", "if not await self.renew(identity, fence):", "if False:"),)),
    Mutant("memory: a living run is undone", ((
        MemoryLedger, "claim_undo", "and row.lease_until >= self._now()", "and False"),)),
    Mutant("memory: fences repeat", ((MemoryLedger, "_fence", "next(_FENCES)", "1"),)),
    Mutant("memory: a removed key is known", ((MemoryLedger, "forget", "del self._rows[identity]", "pass"),)),
    Mutant("sql: begin without a lease", (SQL_LEASE,), store="sqlite"),
    Mutant("sql: writes without a fence", (SQL_FENCE,), store="sqlite"),
    Mutant("sql: a living claim is stolen", (SQL_STEAL,), store="sqlite"),
    Mutant("sql: neither lease nor fence", (SQL_LEASE, SQL_FENCE), store="sqlite"),
    Mutant("sql: stolen, and no fence", (SQL_STEAL, SQL_FENCE), store="sqlite"),
    Mutant("sql: an undo begins without a lease", ((
        LedgerStatements, "_begin_undo", "lease_until > {self._now}", "TRUE"),), store="sqlite"),
    Mutant("sql: a takeover forgets the call in flight", ((
        LedgerStatements, "_claiming", "entry.in_flight AND NOT {expired}", "FALSE"),), store="sqlite"),
    Mutant("sql: a living run is undone", ((
        LedgerStatements, "_claim_undo", "NOT {alive} AND NOT {undone}", "NOT {undone}"),),
        store="sqlite"),
)  # fmt: skip

#: Schedules for each mutant, unless it is said otherwise: several times what the hardest one takes.
MOST_SCHEDULES: Final = 20_000
#: What an error that no check named stands for.
_INVARIANTS: Final = {
    "NotInModel": "the trace is a path of the model",
    "StuckError": "every schedule ends",
    "AssertionError": "nothing is lost",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant."""

    #: Run until it was killed, that one included.
    schedules: int
    #: The token that killed it, and the invariant that it broke; empty if none did.
    token: str = ""
    invariant: str = ""


#: The mutants that this process and those it forks run.
_chosen: Sequence[Mutant] = MUTANTS


def run_mutants(schedules: int, seed: int, mutants: Sequence[Mutant] = MUTANTS) -> int:
    """Run each mutant until it is killed, print the table, and return 1 if one survives that should not."""
    global _chosen  # noqa: PLW0603  # what is forked inherits it; a mutant cannot be pickled
    _chosen = mutants
    work = [(number, schedules, seed) for number in range(len(mutants))]
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        verdicts = list(show_progress(pool.imap(_run_mutant, work, chunksize=1), len(work)))
    print(f"{'mutant':<46} {'killed by':<36} {'after':>6}  token")
    killed = survived = 0
    for mutant, verdict in zip(mutants, verdicts, strict=True):
        killed += bool(verdict.token)
        survived += not verdict.token and not mutant.is_equivalent_because
        print(_line(mutant, verdict))
    equivalent = len(mutants) - killed - survived
    print(f"{len(mutants)} mutants: {killed} killed, {equivalent} equivalent, {survived} survived")
    return int(survived > 0)


def _line(mutant: Mutant, verdict: Verdict) -> str:
    if verdict.token:
        return f"{mutant.name:<46} {verdict.invariant:<36} {verdict.schedules:>6,}  {verdict.token}"
    because = mutant.is_equivalent_because
    why = f"equivalent: {because}" if because else "SURVIVED"
    return f"{mutant.name:<46} {why} ({verdict.schedules:,})"


def _run_mutant(work: tuple[int, int, int]) -> Verdict:
    """Break this process's core, and run schedules until one tells."""
    number, schedules, seed = work
    for edit in _chosen[number].edits:
        apply_edit(*edit)
    return judge(_chosen[number].store, schedules, seed)


def judge(store: str, schedules: int, seed: int) -> Verdict:
    """Run schedules on a core that is broken already, until one tells."""
    for number in range(schedules):
        for token, broken in run_batch([token_of(store, seed, number)]).broken.items():
            kind, _, what = broken.partition(": ")
            return Verdict(number + 1, token, _INVARIANTS.get(kind) or what.partition(": ")[0])
    return Verdict(schedules)


def apply_edit(owner: Any, name: str, old: str, new: str) -> None:
    """Compile a function anew with a part of it replaced.

    Raises:
        LookupError: the core has changed, and the mutant must follow.
    """
    function: Callable[..., Any] = inspect.unwrap(getattr(owner, name))
    source = textwrap.dedent(inspect.getsource(function))
    if old not in source:
        raise LookupError(f"{name} has no {old!r} any more")
    module = sys.modules[function.__module__]
    found: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source.replace(old, new), f"<{name}>", "exec")
    exec(code, module.__dict__, found)
    setattr(owner, name, found[name])
