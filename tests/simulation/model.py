"""The protocol as states and steps, small enough to be looked at to the end.

Two workers, of which one may undo, one ledger row, one provider. Two crashes and one stall may befall them, at any
point. What a worker sends lands at any moment while it may: a lease ends only if its holder is dead, stalled or
has let it go; the time in which a call may land ends only when nothing is on its way and no worker that is awake
is about to send. `check_model` visits every state breadth-first.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from tests.simulation.row import Op, Row, apply

Kind = Literal["keyed", "looked", "plain"]
Phase = Literal[
    "idle", "claimed", "beginning", "sending", "sent", "unclear", "storing", "undoing", "beginning undo", "removing",
    "removal sent", "removed", "told", "dead",
]  # fmt: skip
#: What a caller is told: a success, that no one knows, that it was undone, that its undo was refused.
Told = Literal["done", "unknown", "undone", "refused"]
CRASHES: Final = 2
STALLS: Final = 1
MOST_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Worker:
    """One process with one job."""

    undoes: bool
    phase: Phase = "idle"
    fence: int = 0
    #: What the claim told of earlier calls.
    was_in_flight: bool = False
    undo_was_in_flight: bool = False
    stalled: bool = False
    #: It stood still since it began: the call may not leave any more.
    is_late: bool = False
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class World:
    """One state of everything."""

    row: Row | None
    workers: tuple[Worker, ...]
    #: Requests on their way, by worker, and those to take the effect back.
    pending: tuple[bool, ...] = (False, False)
    removing: tuple[bool, ...] = (False, False)
    landed: int = 0
    removed: int = 0
    crashes: int = CRASHES
    stalls: int = STALLS


class Refuted(AssertionError):
    """The protocol reaches a state that it must not."""


@dataclass(frozen=True, slots=True)
class Model:
    """The protocol for one kind of action; its guards can be taken out."""

    kind: Kind
    undoes: bool = True
    #: The stall before a call is noticed.
    notices_stalls: bool = True
    #: Who looks up waits until nothing can land any more.
    waits_for_landing: bool = True
    #: A WRITE that may have happened is looked up before it is repeated.
    looks: bool = True
    #: That an undo leaves is recorded before it does.
    records_undo: bool = True

    def start(self) -> World:
        """Return the first state."""
        return World(None, (Worker(undoes=False), Worker(undoes=self.undoes)))

    def steps(self, world: World) -> Iterator[World]:
        """Yield every state that comes next."""
        yield from self._befall(world)
        for number, worker in enumerate(world.workers):
            if worker.phase != "dead" and not worker.stalled:
                yield from self._work(world, number, worker)
            if world.pending[number]:
                yield from self._land(world, number)
            if world.removing[number]:
                free = replace(world, removing=_with(world.removing, number, False))
                yield free  # lost
                yield replace(free, removed=world.landed)

    def _befall(self, world: World) -> Iterator[World]:
        for number, worker in enumerate(world.workers):
            if worker.phase == "dead":
                yield _set(world, number, Worker(worker.undoes))  # another process takes its job
                continue
            if world.crashes:
                yield _set(replace(world, crashes=world.crashes - 1), number, replace(worker, phase="dead"))
            if world.stalls and not worker.stalled:
                stalled = replace(worker, stalled=True, is_late=True)
                yield _set(replace(world, stalls=world.stalls - 1), number, stalled)
            if worker.stalled:
                yield _set(world, number, replace(worker, stalled=False))
        row = world.row
        if row is not None and row.leased and not self._holder_is_awake(world):
            yield replace(world, row=replace(row, leased=False))
        if row is not None and row.may_land and not any(world.pending) and not self._is_sending(world):
            yield replace(world, row=replace(row, may_land=False))

    def _holder_is_awake(self, world: World) -> bool:
        assert world.row is not None
        return any(
            each.fence == world.row.fence and each.phase not in {"dead", "idle", "told"} and not each.stalled
            for each in world.workers
        )

    def _is_sending(self, world: World) -> bool:
        """Return whether a worker that is awake, or notices nothing, is about to send."""
        return any(each.phase in {"beginning", "sending"} and not each.is_late for each in world.workers)

    def _land(self, world: World, number: int) -> Iterator[World]:
        free = replace(world, pending=_with(world.pending, number, False))
        yield free  # lost
        is_there = world.landed > world.removed
        yield replace(free, landed=world.landed + (not (self.kind == "keyed" and is_there)))

    def _work(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        match worker.phase:
            case "idle":
                yield from self._claim(world, number, worker)
            case "claimed":
                yield from self._look_before(world, number, worker)
            case "beginning":
                yield from self._begin(world, number, worker)
            case "sending":
                yield from self._send(world, number, worker)
            case "sent":
                yield from self._hear(world, number, worker)
            case "unclear":
                yield from self._settle(world, number, worker)
            case "storing":
                yield self._write(
                    world, number, Op("complete", worker.fence), replace(worker, phase="told", told="done")
                )
            case "undoing":
                yield from self._undo(world, number, worker)
            case "beginning undo":
                row, said = apply(world.row, Op("begin_undo", worker.fence))
                yield _set(
                    replace(world, row=row), number, replace(worker, phase="removing" if said else "idle")
                )
            case "removing":
                yield from self._remove(world, number, worker)
            case "removal sent":
                yield from self._hear_undo(world, number, worker)
            case "removed":
                told = replace(worker, phase="told", told="undone")
                yield self._write(world, number, Op("complete_undo", worker.fence), told)
            case _:
                pass

    def _claim(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        fence = 1 + max(0 if world.row is None else world.row.fence, *(each.fence for each in world.workers))
        row, said = apply(world.row, Op("claim_undo" if worker.undoes else "claim", fence))
        if said == "Claimed":
            assert row is not None
            phase: Phase = "undoing" if worker.undoes else "claimed"
            mine = Worker(worker.undoes, phase, fence, row.in_flight, row.undo_in_flight)
            if row.attempts < MOST_ATTEMPTS:
                yield _set(replace(world, row=row), number, mine)
        elif said in {"Done", "Unknown", "Undone"}:
            told: Told = "done" if said == "Done" else "unknown" if said == "Unknown" else "undone"
            if not (
                worker.undoes is False and said == "Undone" and world.row and world.row.state == "undoing"
            ):
                yield _set(world, number, replace(worker, phase="told", told=told))

    def _look_before(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        """Look up what an earlier attempt did, if it may have done something."""
        begin = _set(world, number, replace(worker, phase="beginning", is_late=False))
        if not worker.was_in_flight or self.kind == "keyed" or not self.looks:
            yield begin
        elif self.kind == "plain":
            told = replace(worker, phase="told", told="unknown")
            yield self._write(world, number, Op("mark_unknown", worker.fence), told)
        elif world.landed > world.removed:
            yield _set(world, number, replace(worker, phase="storing"))
        elif self.waits_for_landing and world.row is not None and world.row.may_land:
            yield self._release(world, number, worker, in_flight=True)
        else:
            yield begin

    def _begin(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        row, said = apply(world.row, Op("begin", worker.fence))
        phase: Phase = "sending" if said else "idle"
        yield _set(replace(world, row=row), number, replace(worker, phase=phase))

    def _send(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        if worker.is_late and self.notices_stalls:
            yield self._release(world, number, worker, in_flight=worker.was_in_flight)
            return
        yield self._release(world, number, worker, in_flight=worker.was_in_flight)  # refused at connect
        sent = replace(world, pending=_with(world.pending, number, True))
        yield _set(sent, number, replace(worker, phase="sent"))

    def _hear(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        """Hear the answer, which is a success only if it landed; or hear nothing."""
        if not world.pending[number] and world.landed > world.removed:
            yield _set(world, number, replace(worker, phase="storing"))
        yield _set(world, number, replace(worker, phase="unclear"))

    def _settle(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        if self.kind == "plain":
            told = replace(worker, phase="told", told="unknown")
            yield self._write(world, number, Op("mark_unknown", worker.fence), told)
        elif self.kind == "looked" and world.landed > world.removed:
            yield _set(world, number, replace(worker, phase="storing"))
        else:
            yield self._release(world, number, worker, in_flight=True)

    def _undo(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        row = world.row
        if row is None or row.fence != worker.fence:
            yield _set(world, number, replace(worker, phase="idle"))
        elif row.attempts == 0 and not row.has_result:
            yield _set(world, number, replace(worker, phase="removed"))  # the mark is all
        elif self.kind == "plain" and not row.has_result:
            yield self._write(
                world, number, Op("abort_undo", worker.fence), replace(worker, phase="told", told="unknown")
            )
        elif self.waits_for_landing and row.may_land and self._may_come_back(row, world):
            op = Op("release", worker.fence, row.in_flight, undo_in_flight=worker.undo_was_in_flight)
            yield self._write(world, number, op, Worker(worker.undoes, "idle"))
        else:
            phase: Phase = "beginning undo" if self.records_undo else "removing"
            yield _set(world, number, replace(worker, phase=phase, is_late=False))

    def _remove(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        """Send the undo, unless the lease may be over; or be refused at connect."""
        yield from self._refuse_undo(world, number, worker)
        if worker.is_late and self.notices_stalls:
            return
        if world.row is None or world.row.fence != worker.fence:
            raise Refuted(f"an undo leaves without its claim: {world}")
        sent = replace(world, removing=_with(world.removing, number, True))
        yield _set(sent, number, replace(worker, phase="removal sent"))

    def _hear_undo(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        """Hear that it was undone, or refused; or hear nothing."""
        if world.removing[number]:
            free = replace(world, removing=_with(world.removing, number, False))
            yield from self._refuse_undo(free, number, worker)
        elif world.landed == world.removed:
            yield _set(world, number, replace(worker, phase="removed"))
        yield self._release_undo(world, number, worker)

    def _refuse_undo(self, world: World, number: int, worker: Worker) -> Iterator[World]:
        """End an undo that certainly did nothing; what an earlier one did stays open."""
        if worker.undo_was_in_flight:
            yield self._release_undo(world, number, worker)
            return
        told = replace(worker, phase="told", told="refused")
        yield self._write(world, number, Op("abort_undo", worker.fence), told)

    def _release_undo(self, world: World, number: int, worker: Worker) -> World:
        assert world.row is not None
        op = Op("release", worker.fence, world.row.in_flight, undo_in_flight=True)
        return self._write(world, number, op, Worker(worker.undoes, "idle"))

    def _may_come_back(self, row: Row, world: World) -> bool:
        """Return whether a call of an earlier attempt may have its effect after the undo."""
        if self.kind == "looked":
            return not row.has_result and world.landed <= world.removed
        return row.in_flight or row.attempts > 1

    def _release(self, world: World, number: int, worker: Worker, *, in_flight: bool) -> World:
        return self._write(
            world, number, Op("release", worker.fence, in_flight), Worker(worker.undoes, "idle")
        )

    def _write(self, world: World, number: int, op: Op, then: Worker) -> World:
        """Write the row; a worker that lost its claim asks anew instead of telling."""
        row, said = apply(world.row, op)
        after = then if said else Worker(then.undoes, "idle")
        return _set(replace(world, row=row), number, after)

    def check(self, world: World) -> None:
        """See that a state may be.

        Raises:
            Refuted: it may not.
        """
        run, undo = world.workers
        if world.landed > 1:
            raise Refuted(f"{self.kind} happened {world.landed} times: {world}")
        if run.told == "done" and world.landed == 0:
            raise Refuted(f"told done, nothing is there: {world}")
        if undo.undoes and undo.told == "undone" and (world.landed > world.removed or any(world.pending)):
            raise Refuted(f"undone, and there or about to be: {world}")
        if undo.told == "refused" and (world.removed or any(world.removing)):
            raise Refuted(f"told that the undo was refused, and it may have happened: {world}")
        if run.told == "unknown" and not (world.row and world.row.attempts):
            raise Refuted(f"told unknown though nothing began: {world}")


def _with(flags: tuple[bool, ...], number: int, value: bool) -> tuple[bool, ...]:
    return (*flags[:number], value, *flags[number + 1 :])


def _set(world: World, number: int, worker: Worker) -> World:
    workers = (*world.workers[:number], worker, *world.workers[number + 1 :])
    return replace(world, workers=workers)


def _normal(world: World) -> World:
    """Return the same state with the smallest fences, and without what no longer matters of a worker."""
    workers = tuple(
        Worker(each.undoes, each.phase, told=each.told) if each.phase in {"told", "dead"} else each
        for each in world.workers
    )
    row_fence = 0 if world.row is None else world.row.fence
    ranks = {
        fence: rank for rank, fence in enumerate(sorted({0, row_fence, *(each.fence for each in workers)}))
    }
    row = world.row and replace(world.row, fence=ranks[row_fence])
    return replace(world, row=row, workers=tuple(replace(each, fence=ranks[each.fence]) for each in workers))


def explore(model: Model) -> tuple[int, int]:
    """Visit every state breadth-first; return how many there are, and how far the last is from the first.

    Raises:
        Refuted: one of them may not be.
    """
    first = model.start()
    depths, queue = {first: 0}, deque([first])
    while queue:
        world = queue.popleft()
        model.check(world)
        for after in map(_normal, model.steps(world)):
            if after not in depths:
                depths[after] = depths[world] + 1
                queue.append(after)
    return len(depths), max(depths.values())


def check_model() -> int:
    """Check the protocol for each kind of action, and print how many states it has."""
    print(
        f"2 workers, 1 provider, {CRASHES} crashes, {STALLS} stall, at most {MOST_ATTEMPTS} attempts; to the end"
    )
    print(f"{'action':<10}{'second worker':<16}{'states':>10}{'depth':>8}{'seconds':>10}")
    for kind in ("keyed", "looked", "plain"):
        for undoes in (False, True):
            begun = time.monotonic()
            states, depth = explore(Model(kind, undoes))
            what = "undoes" if undoes else "runs, too"
            print(f"{kind:<10}{what:<16}{states:>10,}{depth:>8}{time.monotonic() - begun:>10.1f}")
    return 0
