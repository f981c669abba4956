"""One row of the ledger as the protocol has it: a pure function from what it was and what is asked to what it becomes.

The model checks the protocol with it, and the trace of every schedule is held against it, whichever ledger wrote it.
"""

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["running", "done", "unknown", "undoing", "undone"]
#: What the ledger said: a claim's kind, or whether a write was allowed.
Answer = str | bool


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one key."""

    state: State
    fence: int
    #: The lease holds.
    leased: bool
    in_flight: bool = False
    #: A call that left may still land.
    may_land: bool = False
    attempts: int = 0
    has_steps: bool = False
    has_result: bool = False
    before_undo: State | None = None
    undo_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Op:
    """One question to the ledger."""

    name: str
    #: Of the claim that asks; for a claim, the one that it gets.
    fence: int = 0
    #: What `release` says of the call, and of the undo's.
    in_flight: bool = False
    undo_in_flight: bool = False


def apply(row: Row | None, op: Op) -> tuple[Row | None, Answer]:
    """Return what becomes of a row, and what the ledger says."""
    if op.name in {"claim", "claim_undo"}:
        return _claim(row, op.fence) if op.name == "claim" else _claim_undo(row, op.fence)
    if op.name in {"look_up", "is_undone"}:
        return row, known(row) if op.name == "look_up" else (row is not None and row.state == "undone")
    if (
        row is None
        or row.fence != op.fence
        or (op.name != "forget" and row.state not in {"running", "undoing"})
    ):
        return row, False
    return _write(row, op)


def known(row: Row | None) -> str:
    """Return what `look_up` says of a row."""
    if row is None:
        return "Absent"
    if row.state in {"undone", "undoing"}:
        return "Undone"
    if row.state != "running":
        return "Done" if row.state == "done" else "Unknown"
    return "InProgress" if row.leased or row.in_flight or row.has_steps else "Absent"


def _claim(row: Row | None, fence: int) -> tuple[Row | None, Answer]:
    if row is None:
        return Row("running", fence, leased=True), "Claimed"
    if row.state == "running" and not row.leased:
        return replace(row, fence=fence, leased=True), "Claimed"
    said = known(row)
    return row, "InProgress" if said == "Absent" else said


def _claim_undo(row: Row | None, fence: int) -> tuple[Row | None, Answer]:
    if row is None:
        return Row("undoing", fence, leased=True), "Claimed"
    if row.state == "undone":
        return row, "Undone"
    if row.state in {"running", "undoing"} and row.leased:
        return row, "InProgress"
    before = row.before_undo if row.state == "undoing" else row.state
    return replace(row, state="undoing", fence=fence, leased=True, before_undo=before), "Claimed"


def _write(row: Row, op: Op) -> tuple[Row | None, Answer]:
    """Return what a write of the claim's holder does."""
    match op.name:
        case "begin" | "begin_undo" | "renew" if not row.leased:
            return row, False
        case "begin":
            return replace(row, in_flight=True, may_land=True, attempts=row.attempts + 1), True
        case "begin_undo":
            return replace(row, undo_in_flight=True), True
        case "renew":
            return row, True
        case "record_step":
            return replace(row, has_steps=True), True
        case "complete":
            return replace(row, state="done", in_flight=False, leased=False, has_result=True), True
        case "complete_undo":
            ended = replace(row, state="undone", in_flight=False, undo_in_flight=False)
            return replace(ended, leased=False, has_result=False), True
        case "abort_undo":
            if row.state != "undoing":
                return row, False
            if row.before_undo is None:
                return None, True
            put_back = replace(row, state=row.before_undo, before_undo=None)
            return replace(put_back, undo_in_flight=False, leased=False), True
        case "release":
            return replace(row, in_flight=op.in_flight, undo_in_flight=op.undo_in_flight, leased=False), True
        case "mark_unknown":
            return replace(row, state="unknown", leased=False), True
        case "forget":
            return None, True
    raise AssertionError(op.name)
