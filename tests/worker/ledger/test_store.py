"""The ledger's contract, on both databases: claims, leases, fences, marks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

import worker.ledger.database
import worker.ledger.schema
import worker.ledger.store
from worker.dev.postgres import PrivatePostgres
from worker.ledger.database import LedgerUnavailable
from worker.ledger.schema import LedgerFault, entries
from worker.ledger.store import (
    Absent,
    Busy,
    Done,
    Identity,
    Ledger,
    Mismatch,
    Owned,
    Undone,
    Unknown,
    fingerprint_of,
)

pytestmark = pytest.mark.integration

KEY = Identity("acme", "crm", "create", "k1")
PRINT = fingerprint_of({"a": 1}, "default")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that other tests keep busy is no outage."""
    monkeypatch.setattr(worker.ledger.database, "STATEMENT_TIMEOUT_S", 60.0)


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    return asyncio.run(postgres.create_database(f"test_{uuid4().hex}"))


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(url)
    await ledger.start()
    yield ledger
    await ledger.close()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.ledger.store, "LEASE_S", 0.05)


async def _owned(ledger: Ledger, identity: Identity = KEY) -> Owned:
    claimed = await ledger.claim(identity, PRINT)
    assert isinstance(claimed, Owned)
    return claimed


async def test_the_first_claim_owns_and_the_second_finds_it_busy(ledger: Ledger) -> None:
    first = await _owned(ledger)

    assert (0, False, None) == (first.starts, first.calling, first.result)
    assert isinstance(await ledger.claim(KEY, PRINT), Busy)


async def test_of_many_claims_at_once_exactly_one_owns(url: str) -> None:
    ledgers = [Ledger(url) for _ in range(4)]
    await asyncio.gather(*(ledger.start() for ledger in ledgers))

    claims = await asyncio.gather(*(ledger.claim(KEY, PRINT) for ledger in ledgers * 5))

    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    assert 1 == sum(isinstance(claim, Owned) for claim in claims)
    assert 1 == len({ledger.id for ledger in ledgers}), "schema and identity are made once"


async def test_a_stored_result_answers_every_later_claim(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.begin(KEY, owned.fence, settles_in_s=30)

    assert await ledger.complete(KEY, owned.fence, {"id": "e1", "nul": "\0", "ünï": "☂"})
    assert Done({"id": "e1", "nul": "\0", "ünï": "☂"}, starts=1) == await ledger.claim(KEY, PRINT)
    assert Done({"id": "e1", "nul": "\0", "ünï": "☂"}, starts=1) == await ledger.look_up(KEY, PRINT)


@pytest.mark.parametrize("params", [{"a": 2}, {"a": 1.0}, {"a": "1"}, {}])
async def test_other_params_under_the_same_key_do_not_match(
    ledger: Ledger, params: dict[str, object]
) -> None:
    owned = await _owned(ledger)
    await ledger.complete(KEY, owned.fence, None)

    assert isinstance(await ledger.claim(KEY, fingerprint_of(params, "default")), Mismatch)
    assert isinstance(await ledger.claim(KEY, fingerprint_of({"a": 1}, "other")), Mismatch)


async def test_the_order_of_params_does_not_matter() -> None:
    assert fingerprint_of({"a": 1, "b": 2}, "x") == fingerprint_of({"b": 2, "a": 1}, "x")


async def test_each_part_of_the_identity_counts(ledger: Ledger) -> None:
    await _owned(ledger)

    for part, value in KEY._asdict().items():
        assert isinstance(await ledger.claim(KEY._replace(**{part: value + "x"}), PRINT), Owned)


async def test_a_dead_lease_is_taken_over_and_the_late_owner_has_nothing_to_say(
    ledger: Ledger, short_lease: None
) -> None:
    late = await _owned(ledger)
    assert await ledger.begin(KEY, late.fence, settles_in_s=30)
    await asyncio.sleep(0.1)

    heir = await _owned(ledger)

    assert (1, True) == (heir.starts, heir.calling)
    assert heir.fence > late.fence
    assert 25 < heir.settles_in_s <= 30
    assert not await ledger.complete(KEY, late.fence, "late")
    assert not await ledger.renew(KEY, late.fence)
    assert not await ledger.release(KEY, late.fence, calling=False)
    assert not await ledger.forget(KEY, late.fence)
    assert await ledger.complete(KEY, heir.fence, "heir")


async def test_nothing_begins_once_the_lease_is_over(ledger: Ledger, short_lease: None) -> None:
    owned = await _owned(ledger)
    await asyncio.sleep(0.1)

    assert not await ledger.begin(KEY, owned.fence, settles_in_s=30)
    assert not await ledger.renew(KEY, owned.fence)


async def test_a_forgotten_key_is_free_and_its_old_owner_never_matches_the_new_row(ledger: Ledger) -> None:
    first = await _owned(ledger)
    await ledger.forget(KEY, first.fence)

    second = await _owned(ledger)

    assert second.fence != first.fence
    assert not await ledger.complete(KEY, first.fence, "late")


async def test_a_released_claim_is_taken_at_once_and_remembers_what_may_have_happened(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.begin(KEY, owned.fence, settles_in_s=30)
    await ledger.release(KEY, owned.fence, calling=True)

    assert isinstance(await ledger.look_up(KEY, PRINT), Busy)
    again = await _owned(ledger)
    assert (1, True) == (again.starts, again.calling)
    await ledger.release(KEY, again.fence, calling=False)
    assert isinstance(await ledger.look_up(KEY, PRINT), Absent)


async def test_an_unknown_outcome_stays_so_until_an_operator_settles_it(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.begin(KEY, owned.fence, settles_in_s=30)
    await ledger.mark_unknown(KEY, owned.fence)

    assert Unknown(starts=1) == await ledger.claim(KEY, PRINT)
    assert await ledger.resolve(KEY, happened=True)
    assert isinstance(await ledger.claim(KEY, PRINT), Done)
    assert not await ledger.resolve(KEY, happened=True)


async def test_an_unknown_outcome_that_did_not_happen_frees_the_key(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.mark_unknown(KEY, owned.fence)

    assert await ledger.resolve(KEY, happened=False)
    assert isinstance(await ledger.claim(KEY, PRINT), Owned)


async def test_an_undo_marks_the_key_for_good(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.complete(KEY, owned.fence, {"id": "e1"})

    undoing = await ledger.claim_undo(KEY)

    assert isinstance(undoing, Owned)
    assert {"id": "e1"} == undoing.result
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)
    assert await ledger.complete_undo(KEY, undoing.fence)
    assert isinstance(await ledger.claim_undo(KEY), Undone)
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_an_undo_that_overtakes_its_run_leaves_a_mark(ledger: Ledger) -> None:
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Owned)
    assert (0, None) == (undoing.starts, undoing.result)
    await ledger.complete_undo(KEY, undoing.fence)

    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_an_undo_waits_for_a_run_that_is_under_way(ledger: Ledger) -> None:
    await _owned(ledger)

    assert isinstance(await ledger.claim_undo(KEY), Busy)


async def test_expired_rows_count_no_more_and_are_swept(url: str) -> None:
    ledger = Ledger(url, ttl_hours=0.02 / 3600)
    await ledger.start()
    owned = await _owned(ledger)
    await ledger.complete(KEY, owned.fence, "old")
    await asyncio.sleep(0.1)

    assert isinstance(await ledger.look_up(KEY, PRINT), Absent)
    assert 1 == await ledger.sweep()
    assert 0 == await ledger.sweep()
    await ledger.close()


async def test_an_expired_row_is_claimed_anew(url: str) -> None:
    ledger = Ledger(url, ttl_hours=0.02 / 3600)
    await ledger.start()
    owned = await _owned(ledger)
    await ledger.begin(KEY, owned.fence, settles_in_s=30)
    await ledger.complete(KEY, owned.fence, "old")
    await asyncio.sleep(0.1)

    anew = await ledger.claim(KEY, fingerprint_of({"other": True}, "default"))

    assert isinstance(anew, Owned)
    assert (0, False, None) == (anew.starts, anew.calling, anew.result)
    await ledger.close()


async def test_the_result_survives_a_restart_of_the_worker(url: str) -> None:
    first = Ledger(url)
    await first.start()
    owned = await _owned(first)
    await first.complete(KEY, owned.fence, "kept")
    await first.close()

    second = Ledger(url)
    await second.start()

    assert Done("kept", starts=0) == await second.claim(KEY, PRINT)
    assert first.id == second.id
    await second.close()


async def test_a_schema_of_a_later_version_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.ledger.schema, "SCHEMA_VERSION", 99)
    later = Ledger(url)
    await later.start()
    await later.close()
    monkeypatch.undo()

    with pytest.raises(LedgerFault, match="version 99"):
        await Ledger(url).start()


@pytest.mark.integration
async def test_a_database_that_is_away_is_unavailable_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as postgres:
        ledger = Ledger(postgres.url)
        await ledger.start()
        await postgres.kill()
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(KEY, PRINT)
        assert ledger.unavailable_reason is not None

        await postgres.restart()

        assert await ledger.wait_available(20)
        assert isinstance(await ledger.claim(KEY, PRINT), Owned)
        await ledger.close()


@pytest.mark.integration
async def test_a_wrong_password_is_a_fault_that_names_the_setting_and_no_password(
    postgres: PrivatePostgres,
) -> None:
    url = postgres.url.replace("connectors:", "connectors:wrong")

    with pytest.raises(LedgerFault, match="CONNECTORS_DATABASE_URL") as caught:
        await Ledger(url).start()

    assert "wrong" not in str(caught.value)


async def test_an_older_schema_is_upgraded_once_by_workers_that_start_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = Ledger(url)
    await older.start()
    owned = await _owned(older)
    await older.complete(KEY, owned.fence, "kept")
    await older.close()
    step = "ALTER TABLE connectors_ledger ADD COLUMN colour varchar(8)"  # a second time, it would fail
    monkeypatch.setattr(worker.ledger.schema, "SCHEMA_VERSION", 2)
    monkeypatch.setitem(worker.ledger.schema.STEPS, 1, (step,))

    ledgers = [Ledger(url) for _ in range(4)]
    await asyncio.gather(*(ledger.start() for ledger in ledgers))

    assert [True] * 4 == [await ledger.wait_available(10) for ledger in ledgers]
    assert [Done("kept", starts=0)] * 4 == [await ledger.claim(KEY, PRINT) for ledger in ledgers]
    assert {older.id} == {ledger.id for ledger in ledgers}
    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    monkeypatch.undo()
    with pytest.raises(LedgerFault, match="version 2"):
        await Ledger(url).start()


async def test_a_run_that_ends_while_an_undo_looks_at_it_is_no_outage(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = await _owned(ledger)
    executed = AsyncConnection.execute

    async def execute(self: AsyncConnection, statement: Any, *more: Any) -> Any:
        result = await executed(self, statement, *more)
        if statement.is_insert:  # between the two statements of the undo's claim
            await executed(self, sa.delete(entries).where(entries.c.fence == owned.fence))
        return result

    monkeypatch.setattr(AsyncConnection, "execute", execute)

    assert isinstance(await ledger.claim_undo(KEY), Busy)
    assert ledger.unavailable_reason is None


@pytest.mark.parametrize("happened", [True, False])
async def test_an_operator_settles_what_an_undo_could_not_find_out(ledger: Ledger, happened: bool) -> None:
    owned = await _owned(ledger)
    await ledger.begin(KEY, owned.fence, settles_in_s=30)
    await ledger.mark_unknown(KEY, owned.fence)
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Owned)
    assert undoing.calling and not undoing.happened
    await ledger.release(KEY, undoing.fence, calling=True)

    assert await ledger.resolve(KEY, happened=happened)

    again = await ledger.claim_undo(KEY)
    assert isinstance(again, Owned) if happened else isinstance(again, Undone)
    assert not isinstance(again, Owned) or (again.happened and not again.calling)
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_a_result_that_is_null_is_a_result(ledger: Ledger) -> None:
    owned = await _owned(ledger)
    await ledger.complete(KEY, owned.fence, None)

    undoing = await ledger.claim_undo(KEY)

    assert isinstance(undoing, Owned)
    assert (True, None) == (undoing.happened, undoing.result)
    assert not await ledger.is_undone(KEY)
    await ledger.complete_undo(KEY, undoing.fence)
    assert await ledger.is_undone(KEY)
