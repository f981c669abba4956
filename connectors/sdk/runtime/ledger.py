"""What is known of an idempotency key, and the store that knows it.

claim    ->  Claimed     the effect is ours to execute, as long as the lease holds
             Done        it has happened; here is its result
             InProgress  another worker is at it
             Unknown     it may have happened, and only an operator can tell
             Undone      it was undone, or is to be
             Mismatch    the key stands for other parameters
look_up  ->  the same without Claimed, or Absent
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from connectors.sdk.runtime.infrastructure import InfrastructureUnavailable


class LedgerUnavailable(InfrastructureUnavailable):
    """The ledger's database cannot be asked for now. What was asked may have been done."""


class Identity(NamedTuple):
    """Same identity: the same effect, once."""

    tenant: str
    connector: str
    action: str
    key: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The effect is ours to execute or to undo, as long as the lease holds."""

    #: Grows with each claim of the key; a worker with an older fence writes nothing.
    fence: int
    #: How often the action was started under this key, by any worker.
    attempts: int = 0
    #: An earlier call may have happened.
    in_flight: bool = False
    #: Seconds until that call can no longer land; infinite if no one can say.
    lands_within_s: float = 0.0
    #: What the steps of earlier runs returned, by name.
    steps: Mapping[str, Any] = field(default_factory=dict)
    #: A run has stored what it returned: the effect is certainly there.
    happened: bool = False
    #: What it returned, if this claim is an undo's.
    result: Any = None
    #: The call of an earlier undo may have happened.
    undo_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """The effect has happened."""

    result: Any
    attempts: int


@dataclass(frozen=True, slots=True)
class InProgress:
    """Another worker holds the claim."""

    #: Seconds until its lease ends, unless it is renewed; 0 if it has ended.
    lease_s: float


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened; an operator settles it."""

    attempts: int


@dataclass(frozen=True, slots=True)
class Undone:
    """It was undone, or is to be: it may not happen any more."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key stands for other parameters or another credential."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is known under this key, or nothing happened so far."""


Known = Done | InProgress | Unknown | Undone | Mismatch | Absent
State = Literal["running", "done", "unknown", "undoing", "undone"]
Claim = Claimed | Done | InProgress | Unknown | Undone | Mismatch


class Row(Protocol):
    """What a ledger keeps of one key, whatever its store."""

    fingerprint: str
    state: State
    fence: int
    attempts: int
    in_flight: bool
    undo_in_flight: bool
    #: JSON text, as `result`; None if no part of the action is done.
    steps: str | None
    #: JSON text; None until done.
    result: str | None


def claim_of(row: Row, lands_within_s: float) -> Claimed:
    """Return what a new claim is told of its row."""
    return Claimed(
        fence=row.fence,
        attempts=row.attempts,
        in_flight=bool(row.in_flight),
        lands_within_s=max(0.0, lands_within_s),
        steps={} if row.steps is None else json.loads(row.steps),
        happened=row.result is not None,
        result=None if row.result is None else json.loads(row.result),
        undo_in_flight=bool(row.undo_in_flight),
    )


def known_of(row: Row, fingerprint: str, lease_s: float) -> Known:
    """Return what a row tells a job with this fingerprint; `lease_s` is negative once the lease is over."""
    if row.state in {"undone", "undoing"}:
        return Undone()
    if row.fingerprint != fingerprint:
        return Mismatch()
    if row.state == "done":
        return Done(json.loads(row.result or "null"), row.attempts)
    if row.state == "unknown":
        return Unknown(row.attempts)
    if lease_s <= 0 and not row.in_flight and row.steps is None:
        return Absent()
    return InProgress(max(0.0, lease_s))


class Ledger(Protocol):
    """One row per key, one atomic claim. All but `claim…` and `look_up` are void for an older fence.

    Every method raises `LedgerUnavailable` if the store cannot be asked.
    """

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the store is believed to answer; return whether it is."""
        ...

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Claim the effect, or return what is known of it."""
        ...

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Claim the undo of an effect, known or not; no run of the key begins from here on."""
        ...

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Return what is known, claiming nothing."""
        ...

    async def is_undone(self, identity: Identity) -> bool:
        """Return whether the effect was undone, claiming nothing."""
        ...

    async def begin(self, identity: Identity, fence: int, *, lands_within_s: float) -> bool:
        """Record that a call leaves now; False if the lease is lost, and then nothing may be sent."""
        ...

    async def begin_undo(self, identity: Identity, fence: int) -> bool:
        """Record that the call of an undo leaves now; False if the lease is lost, and then nothing may be sent."""
        ...

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer; False if it is lost."""
        ...

    async def record_step(self, identity: Identity, fence: int, steps: Mapping[str, Any]) -> bool:
        """Store what the steps so far returned."""
        ...

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result: the effect has happened. False if another worker took over."""
        ...

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark that the effect was undone."""
        ...

    async def abort_undo(self, identity: Identity, fence: int) -> bool:
        """Put back what the key was before `claim_undo`: the effect is as it was."""
        ...

    async def release(
        self, identity: Identity, fence: int, *, in_flight: bool, undo_in_flight: bool = False
    ) -> bool:
        """Release the claim for a later attempt, and say which calls may still have happened."""
        ...

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Record that no one can tell; no run of the key begins until an operator can."""
        ...

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim: certainly nothing happened, and the key is free again."""
        ...


def fingerprint_of(params: Mapping[str, Any], credential: str) -> str:
    """Return the digest of what a key stands for: the params as sent, in canonical JSON, and the credential's name."""
    canonical = json.dumps([params, credential], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
