"""A ledger in memory: what the test kit runs on, and the simulation. The SQL ledger passes the same tests."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from connectors.sdk.runtime.clock import Clock, SystemClock
from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import (
    Absent,
    Claim,
    Claimed,
    Identity,
    InProgress,
    Known,
    State,
    Undone,
    claim_of,
    known_of,
)

#: One order for all claims of the process: a fence of a row that was removed never comes again.
_FENCES: Final = itertools.count(1)


@dataclass(slots=True)
class _Row:
    """What is known of one key."""

    fingerprint: str
    state: State
    fence: int
    lease_until: float
    in_flight: bool = False
    lands_at: float = 0.0
    attempts: int = 0
    #: JSON text, as a database keeps it; so is the result.
    steps: str | None = None
    result: str | None = None
    #: What `abort_undo` puts back; None if the undo came before its run.
    before_undo: State | None = None
    undo_in_flight: bool = False


class MemoryLedger:
    """Rows of one process, with the leases and fences of the real one."""

    def __init__(self, clock: Clock | None = None, policy: LeasePolicy | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lease_s = (policy or LeasePolicy()).lease_s
        self._rows: dict[Identity, _Row] = {}

    def clear(self) -> None:
        """Forget every key."""
        self._rows.clear()

    async def wait_available(self, timeout_s: float) -> bool:
        """Return at once: memory is never unavailable."""
        return True

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Claim the effect, or return what is known of it."""
        row = self._rows.get(identity)
        if row is None:
            row = self._rows[identity] = _Row(fingerprint, "running", self._fence(), self._lease())
            return self._claimed(row)
        is_free = row.state == "running" and row.lease_until < self._now()
        if is_free and row.fingerprint == fingerprint:
            row.fence, row.lease_until = self._fence(), self._lease()
            return self._claimed(row)
        known = self._known(row, fingerprint)
        return InProgress(0.0) if isinstance(known, Absent) else known

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Claim the undo of an effect, known or not."""
        row = self._rows.get(identity)
        if row is None:
            row = self._rows[identity] = _Row("", "undoing", self._fence(), self._lease())
            return self._claimed(row)
        if row.state == "undone":
            return Undone()
        if row.state in {"running", "undoing"} and row.lease_until >= self._now():
            return InProgress(row.lease_until - self._now())
        if row.state != "undoing":
            row.before_undo = row.state
        row.state, row.fence, row.lease_until = "undoing", self._fence(), self._lease()
        return self._claimed(row)

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Return what is known, claiming nothing."""
        row = self._rows.get(identity)
        return Absent() if row is None else self._known(row, fingerprint)

    async def is_undone(self, identity: Identity) -> bool:
        """Return whether the effect was undone, claiming nothing."""
        row = self._rows.get(identity)
        return row is not None and row.state == "undone"

    async def begin(self, identity: Identity, fence: int, *, lands_within_s: float) -> bool:
        """Record that a call leaves now; False if the lease is lost."""
        row = self._held(identity, fence)
        if row is None or row.lease_until <= self._now():
            return False
        row.attempts += 1
        row.in_flight, row.lands_at = True, self._now() + lands_within_s
        row.lease_until = self._lease()
        return True

    async def begin_undo(self, identity: Identity, fence: int) -> bool:
        """Record that the call of an undo leaves now; False if the lease is lost."""
        if not await self.renew(identity, fence):
            return False
        return self._write(identity, fence, undo_in_flight=True)

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer; False if it is lost."""
        row = self._held(identity, fence)
        if row is None or row.lease_until <= self._now():
            return False
        row.lease_until = self._lease()
        return True

    async def record_step(self, identity: Identity, fence: int, steps: Mapping[str, Any]) -> bool:
        """Store what the steps so far returned."""
        return self._write(identity, fence, steps=json.dumps(dict(steps)))

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result: the effect has happened."""
        return self._write(
            identity, fence, state="done", in_flight=False, lease_until=0.0, result=json.dumps(result)
        )

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark that the effect was undone."""
        return self._write(
            identity,
            fence,
            state="undone",
            in_flight=False,
            undo_in_flight=False,
            lease_until=0.0,
            result=None,
        )

    async def abort_undo(self, identity: Identity, fence: int) -> bool:
        """Put back what the key was before `claim_undo`."""
        row = self._held(identity, fence)
        if row is None or row.state != "undoing":
            return False
        if row.before_undo is None:
            del self._rows[identity]
            return True
        return self._write(
            identity, fence, state=row.before_undo, before_undo=None, undo_in_flight=False, lease_until=0.0
        )

    async def release(
        self, identity: Identity, fence: int, *, in_flight: bool, undo_in_flight: bool = False
    ) -> bool:
        """Release the claim for a later attempt."""
        return self._write(
            identity, fence, in_flight=in_flight, undo_in_flight=undo_in_flight, lease_until=0.0
        )

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Record that no one can tell."""
        return self._write(identity, fence, state="unknown", lease_until=0.0)

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim: certainly nothing happened."""
        row = self._rows.get(identity)
        if row is None or row.fence != fence:
            return False
        del self._rows[identity]
        return True

    def _known(self, row: _Row, fingerprint: str) -> Known:
        return known_of(row, fingerprint, row.lease_until - self._now())

    def _claimed(self, row: _Row) -> Claimed:
        return claim_of(row, row.lands_at - self._now())

    def _held(self, identity: Identity, fence: int) -> _Row | None:
        row = self._rows.get(identity)
        if row is None or row.fence != fence or row.state not in {"running", "undoing"}:
            return None
        return row

    def _write(self, identity: Identity, fence: int, **values: Any) -> bool:
        row = self._held(identity, fence)
        if row is None:
            return False
        for name, value in values.items():
            setattr(row, name, value)
        return True

    def _now(self) -> float:
        return self._clock.monotonic()

    def _lease(self) -> float:
        return self._now() + self._lease_s

    def _fence(self) -> int:
        return next(_FENCES)
