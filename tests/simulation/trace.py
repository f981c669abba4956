"""What was asked of the ledger in a schedule, held step by step against the protocol's own rows."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claimed, Identity
from tests.simulation.row import Answer, Op, Row, apply

#: Seconds by which two clocks read the same instant differently: a database counts in its own precision.
SLACK_S: Final = 0.001
LEASE_S: Final = LeasePolicy().lease_s
_LEASING: Final = frozenset({"claim", "claim_undo", "begin", "begin_undo", "renew"})


class NotInModel(AssertionError):
    """The ledger did what the protocol does not know."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered question."""

    at: float
    #: The process that asked.
    who: str
    name: str
    identity: Identity
    fence: int
    answer: Answer


class LedgerTrace:
    """Every question in the order of its commits; raises at the first that is no step of the model."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rows: dict[Identity, Row | None] = {}
        self._lease_until: dict[Identity, float] = {}
        self._fences: set[tuple[Identity, int]] = set()
        self.entries: list[Entry] = []
        #: Keys that were claimed because a lease ran out, and the processes that had held them.
        self.expired: list[tuple[Identity, str]] = []

    def record(
        self,
        who: str,
        name: str,
        identity: Identity,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        said: Any,
    ) -> None:
        """Take one step of the model, and see that the ledger took the same."""
        answer: Answer = said if isinstance(said, bool) else type(said).__name__
        fence = (
            said.fence if isinstance(said, Claimed) else args[0] if args and isinstance(args[0], int) else 0
        )
        told = {name: bool(options.get(name)) for name in ("in_flight", "undo_in_flight")}
        row = self._step(Op(name, fence, **told), identity, answer)
        self.entries.append(Entry(self._now(), who, name, identity, fence, answer))
        if isinstance(said, Claimed) and row is not None:
            seen = (said.in_flight, said.undo_in_flight, said.attempts, bool(said.steps), said.happened)
            if seen != (row.in_flight, row.undo_in_flight, row.attempts, row.has_steps, row.has_result):
                raise NotInModel(f"{name} told {seen} of {row}")

    def _step(self, op: Op, identity: Identity, answer: Answer) -> Row | None:
        before, now = self._rows.get(identity), self._now()
        row = before
        if answer == "Claimed":
            if (identity, op.fence) in self._fences or (before is not None and op.fence <= before.fence):
                raise NotInModel(f"{op.name} gave the fence {op.fence} again, or after a later one")
            self._fences.add((identity, op.fence))
            if before is not None and before.leased:
                self.expired.append((identity, self.holder(identity, now) or ""))
        after, expected = before, answer
        until = self._lease_until.get(identity, 0.0)
        for leased in {until > now, until > now - SLACK_S, until > now + SLACK_S}:
            row = before and replace(before, leased=before.leased and leased)
            after, expected = apply(row, op)
            if expected == answer:
                break
        else:
            raise NotInModel(
                f"{op.name} with fence {op.fence} said {answer}, the model {expected} of {before}"
            )
        if before is not None and after is not None and row is not None and after.leased == row.leased:
            after = replace(after, leased=before.leased)  # at its last moment a lease may be over, or not yet
        self._rows[identity] = after
        if op.name in _LEASING and answer in {True, "Claimed"}:
            self._lease_until[identity] = now + LEASE_S
        return after

    def count(self, name: str, identity: Identity, *, answer: Answer = True) -> int:
        """Return how often a question about a key was answered so."""
        return len(self.times(name, identity, answer))

    def times(self, name: str, identity: Identity, answer: Answer = True) -> list[float]:
        """Return when a question about a key was answered so."""
        return [
            e.at for e in self.entries if e.name == name and e.identity == identity and e.answer == answer
        ]

    def holder(self, identity: Identity, at: float) -> str | None:
        """Return which process had claimed a key last at that time."""
        claims = (
            e.who for e in self.entries if e.at <= at and e.identity == identity and e.answer == "Claimed"
        )
        return next(iter(deque(claims, maxlen=1)), None)

    def first_claim(self, identity: Identity) -> str | None:
        """Return by which question a key was claimed first."""
        claims = (e.name for e in self.entries if e.identity == identity and e.answer == "Claimed")
        return next(claims, None)

    @property
    def takeovers(self) -> int:
        """How often a claim was given that another had before."""
        return sum(
            entry.answer == "Claimed" and any(e.identity == entry.identity for e in self.entries[:number])
            for number, entry in enumerate(self.entries)
        )
