"""The ledger's contract, in memory and on both databases: claims, leases, fences, marks."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import (
    Absent,
    Claimed,
    Done,
    Identity,
    InProgress,
    Ledger,
    Mismatch,
    Undone,
    fingerprint_of,
)
from connectors.sdk.runtime.memory_ledger import MemoryLedger
from worker.dev.postgres import PrivatePostgres
from worker.ledger.policy import DatabasePolicy
from worker.ledger.store import SqlLedger

KEY = Identity("acme", "crm", "create", "k1")
PRINT = fingerprint_of({"a": 1}, "default")
#: A lease that is over at once.
OVER = LeasePolicy(lease_s=0.0)

#: A disk that other tests keep busy is no outage.
PATIENT = DatabasePolicy(statement_timeout_s=60.0)

MakeLedger = Callable[..., Ledger]


@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.integration),
        pytest.param("postgresql", marks=pytest.mark.integration),
    ]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    return asyncio.run(postgres.create_database(f"test_{uuid4().hex}"))


@pytest.fixture
async def make(url: str | None) -> AsyncIterator[MakeLedger]:
    """Make ledgers that share their rows, each with a lease policy of its own."""
    if url is None:
        shared = MemoryLedger()

        def memory(policy: LeasePolicy | None = None) -> Ledger:
            ledger = MemoryLedger(policy=policy)
            ledger._rows = shared._rows
            return ledger

        yield memory
        return
    ledgers: list[SqlLedger] = []

    async def started(policy: LeasePolicy | None) -> SqlLedger:
        ledger = SqlLedger(url, policy=policy, database=PATIENT)
        await ledger.start()
        ledgers.append(ledger)
        return ledger

    plain, short = await started(None), await started(OVER)
    yield lambda policy=None: short if policy is OVER else plain
    for ledger in ledgers:
        await ledger.close()


@pytest.fixture
def ledger(make: MakeLedger) -> Ledger:
    return make()


@pytest.fixture
def over(make: MakeLedger) -> Ledger:
    """The same rows, seen by a worker whose leases are over at once."""
    return make(OVER)


async def _claimed(ledger: Ledger, identity: Identity = KEY) -> Claimed:
    claimed = await ledger.claim(identity, PRINT)
    assert isinstance(claimed, Claimed)
    return claimed


async def test_the_first_claim_wins_and_the_second_finds_it_in_progress(ledger: Ledger) -> None:
    first = await _claimed(ledger)

    assert (0, False, None) == (first.attempts, first.in_flight, first.result)
    assert isinstance(await ledger.claim(KEY, PRINT), InProgress)


async def test_a_stored_result_answers_every_later_claim(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=30)

    assert await ledger.complete(KEY, claimed.fence, {"id": "e1", "nul": "\0", "ünï": "☂"})
    assert Done({"id": "e1", "nul": "\0", "ünï": "☂"}, attempts=1) == await ledger.claim(KEY, PRINT)
    assert Done({"id": "e1", "nul": "\0", "ünï": "☂"}, attempts=1) == await ledger.look_up(KEY, PRINT)


@pytest.mark.parametrize("params", [{"a": 2}, {"a": 1.0}, {"a": "1"}, {}])
async def test_other_params_under_the_same_key_do_not_match(
    ledger: Ledger, params: dict[str, object]
) -> None:
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, None)

    assert isinstance(await ledger.claim(KEY, fingerprint_of(params, "default")), Mismatch)
    assert isinstance(await ledger.claim(KEY, fingerprint_of({"a": 1}, "other")), Mismatch)


async def test_the_order_of_params_does_not_matter() -> None:
    assert fingerprint_of({"a": 1, "b": 2}, "x") == fingerprint_of({"b": 2, "a": 1}, "x")


async def test_each_part_of_the_identity_counts(ledger: Ledger) -> None:
    await _claimed(ledger)

    for part, value in KEY._asdict().items():
        assert isinstance(await ledger.claim(KEY._replace(**{part: value + "x"}), PRINT), Claimed)


async def test_a_worker_past_its_lease_cannot_overwrite_the_next_one(ledger: Ledger, over: Ledger) -> None:
    late = await _claimed(ledger)
    assert await ledger.begin(KEY, late.fence, lands_within_s=30)
    assert await over.renew(KEY, late.fence)

    heir = await _claimed(ledger)

    assert (1, True) == (heir.attempts, heir.in_flight)
    assert heir.fence > late.fence
    assert 25 < heir.lands_within_s <= 30
    assert not await ledger.complete(KEY, late.fence, "late")
    assert not await ledger.renew(KEY, late.fence)
    assert not await ledger.record_step(KEY, late.fence, {"order": 1})
    assert not await ledger.release(KEY, late.fence, in_flight=False)
    assert not await ledger.forget(KEY, late.fence)
    assert await ledger.complete(KEY, heir.fence, "heir")


async def test_nothing_begins_once_the_lease_is_over(ledger: Ledger, over: Ledger) -> None:
    claimed = await _claimed(over)

    assert not await ledger.begin(KEY, claimed.fence, lands_within_s=30)
    assert not await ledger.renew(KEY, claimed.fence)


async def test_a_call_that_may_land_at_any_time_is_never_over(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=math.inf)
    await ledger.release(KEY, claimed.fence, in_flight=True)

    assert math.inf == (await _claimed(ledger)).lands_within_s


async def test_steps_are_kept_for_the_next_claim(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.record_step(KEY, claimed.fence, {"order": {"id": 17}})
    await ledger.release(KEY, claimed.fence, in_flight=False)

    assert isinstance(await ledger.look_up(KEY, PRINT), InProgress), "a part has happened"
    assert {"order": {"id": 17}} == (await _claimed(ledger)).steps


@pytest.mark.parametrize("state", ["done", "unknown", "absent"])
async def test_an_undo_that_failed_leaves_the_key_as_it_was(ledger: Ledger, state: str) -> None:
    if state != "absent":
        claimed = await _claimed(ledger)
        if state == "done":
            await ledger.complete(KEY, claimed.fence, {"id": "e1"})
        else:
            await ledger.mark_unknown(KEY, claimed.fence)
    before = await ledger.look_up(KEY, PRINT)

    undo = await ledger.claim_undo(KEY)
    assert isinstance(undo, Claimed)
    assert await ledger.abort_undo(KEY, undo.fence)

    assert before == await ledger.look_up(KEY, PRINT)
    assert not await ledger.abort_undo(KEY, undo.fence)


async def test_a_forgotten_key_is_free_and_its_old_owner_writes_nothing(ledger: Ledger) -> None:
    first = await _claimed(ledger)
    await ledger.forget(KEY, first.fence)

    second = await _claimed(ledger)

    assert second.fence != first.fence
    assert not await ledger.complete(KEY, first.fence, "late")


async def test_a_released_claim_is_free_and_remembers_what_may_have_happened(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=30)
    await ledger.release(KEY, claimed.fence, in_flight=True)

    assert isinstance(await ledger.look_up(KEY, PRINT), InProgress)
    again = await _claimed(ledger)
    assert (1, True) == (again.attempts, again.in_flight)
    await ledger.release(KEY, again.fence, in_flight=False)
    assert isinstance(await ledger.look_up(KEY, PRINT), Absent)


async def test_an_undo_marks_the_key_for_good(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, {"id": "e1"})

    undoing = await ledger.claim_undo(KEY)

    assert isinstance(undoing, Claimed)
    assert {"id": "e1"} == undoing.result
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)
    assert await ledger.complete_undo(KEY, undoing.fence)
    assert isinstance(await ledger.claim_undo(KEY), Undone)
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_an_undo_whose_call_has_left_is_known_to_the_next_one(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, {"id": "e1"})
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Claimed)
    assert not undoing.undo_in_flight
    assert await ledger.begin_undo(KEY, undoing.fence)
    await ledger.release(KEY, undoing.fence, in_flight=False, undo_in_flight=True)

    again = await ledger.claim_undo(KEY)

    assert isinstance(again, Claimed)
    assert (True, {"id": "e1"}) == (again.undo_in_flight, again.result)
    assert not await ledger.begin_undo(KEY, undoing.fence), "another has taken over"
    assert await ledger.abort_undo(KEY, again.fence), "a proof that nothing was undone"
    last = await ledger.claim_undo(KEY)
    assert isinstance(last, Claimed)
    assert not last.undo_in_flight


async def test_no_undo_leaves_after_its_lease(over: Ledger) -> None:
    undoing = await over.claim_undo(KEY)
    assert isinstance(undoing, Claimed)

    assert not await over.begin_undo(KEY, undoing.fence)


async def test_an_undo_that_overtakes_its_run_leaves_a_mark(ledger: Ledger) -> None:
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Claimed)
    assert (0, None) == (undoing.attempts, undoing.result)
    await ledger.complete_undo(KEY, undoing.fence)

    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_an_undo_waits_for_a_run_that_is_under_way(ledger: Ledger) -> None:
    await _claimed(ledger)

    assert isinstance(await ledger.claim_undo(KEY), InProgress)


@pytest.mark.integration
async def test_a_result_that_is_null_is_a_result(ledger: Ledger) -> None:
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, None)

    undoing = await ledger.claim_undo(KEY)

    assert isinstance(undoing, Claimed)
    assert (True, None) == (undoing.happened, undoing.result)
    assert not await ledger.is_undone(KEY)
    await ledger.complete_undo(KEY, undoing.fence)
    assert await ledger.is_undone(KEY)
