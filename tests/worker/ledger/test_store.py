"""The ledger's contract, on both databases: claims, leases, fences, marks."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.sdk.runtime.ledger import (
    Absent,
    Claimed,
    Done,
    Identity,
    InProgress,
    LedgerUnavailable,
    Undone,
    Unknown,
    fingerprint_of,
)
from worker.dev.postgres import PrivatePostgres
from worker.ledger.policy import DatabasePolicy
from worker.ledger.schema import LedgerFault
from worker.ledger.script import Do, Steps
from worker.ledger.statements import Question, Rows
from worker.ledger.store import SqlLedger

pytestmark = pytest.mark.integration

KEY = Identity("acme", "crm", "create", "k1")
#: A disk that other tests keep busy is no outage.
PATIENT = DatabasePolicy(statement_timeout_s=60.0)
PRINT = fingerprint_of({"a": 1}, "default")


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    return asyncio.run(postgres.create_database(f"test_{uuid4().hex}"))


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(url, database=PATIENT)
    await ledger.start()
    yield ledger
    await ledger.close()


async def _do(ledger: SqlLedger, *texts: str) -> None:
    def script() -> Steps[None]:
        yield Do(texts)

    await ledger._database.transact(script)


async def _claimed(ledger: SqlLedger, identity: Identity = KEY) -> Claimed:
    claimed = await ledger.claim(identity, PRINT)
    assert isinstance(claimed, Claimed)
    return claimed


async def test_of_many_claims_at_once_exactly_one_owns(url: str) -> None:
    ledgers = [SqlLedger(url, database=PATIENT) for _ in range(4)]
    await asyncio.gather(*(ledger.start() for ledger in ledgers))

    claims = await asyncio.gather(*(ledger.claim(KEY, PRINT) for ledger in ledgers * 5))

    await asyncio.gather(*(ledger.close() for ledger in ledgers))
    assert 1 == sum(isinstance(claim, Claimed) for claim in claims)
    assert 1 == len({ledger.id for ledger in ledgers}), "schema and identity are made once"


async def test_an_unknown_outcome_stays_so_until_an_operator_settles_it(ledger: SqlLedger) -> None:
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=30)
    await ledger.mark_unknown(KEY, claimed.fence)

    assert Unknown(attempts=1) == await ledger.claim(KEY, PRINT)
    assert await ledger.resolve(KEY, PRINT, happened=True)
    assert isinstance(await ledger.claim(KEY, PRINT), Done)
    assert not await ledger.resolve(KEY, PRINT, happened=True)


@pytest.mark.parametrize("happened", [True, False])
async def test_a_key_whose_row_is_gone_is_settled_by_a_new_one(ledger: SqlLedger, happened: bool) -> None:
    assert not await ledger.knows(KEY)

    assert await ledger.resolve(KEY, PRINT, happened=happened)

    assert await ledger.knows(KEY)
    assert isinstance(await ledger.claim(KEY, PRINT), Done if happened else Claimed)


async def test_an_unknown_outcome_that_did_not_happen_frees_the_key(ledger: SqlLedger) -> None:
    claimed = await _claimed(ledger)
    await ledger.mark_unknown(KEY, claimed.fence)

    assert await ledger.resolve(KEY, PRINT, happened=False)
    assert isinstance(await ledger.claim(KEY, PRINT), Claimed)


async def test_expired_rows_count_no_more_and_are_swept(url: str) -> None:
    ledger = SqlLedger(url, ttl_hours=0.02 / 3600, database=PATIENT)
    await ledger.start()
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, "old")
    await asyncio.sleep(0.1)

    assert isinstance(await ledger.look_up(KEY, PRINT), Absent)
    assert 1 == await ledger.sweep()
    assert 0 == await ledger.sweep()
    await ledger.close()


async def test_an_expired_row_is_claimed_anew(url: str) -> None:
    ledger = SqlLedger(url, ttl_hours=0.02 / 3600, database=PATIENT)
    await ledger.start()
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=30)
    await ledger.complete(KEY, claimed.fence, "old")
    await asyncio.sleep(0.1)

    anew = await ledger.claim(KEY, fingerprint_of({"other": True}, "default"))

    assert isinstance(anew, Claimed)
    assert (0, False, None) == (anew.attempts, anew.in_flight, anew.result)
    await ledger.close()


async def test_the_result_survives_a_restart_of_the_worker(url: str) -> None:
    first = SqlLedger(url, database=PATIENT)
    await first.start()
    claimed = await _claimed(first)
    await first.complete(KEY, claimed.fence, "kept")
    await first.close()

    second = SqlLedger(url, database=PATIENT)
    await second.start()

    assert Done("kept", attempts=0) == await second.claim(KEY, PRINT)
    assert first.id == second.id
    await second.close()


async def test_a_schema_of_a_later_version_is_refused(url: str) -> None:
    later = SqlLedger(url, database=PATIENT)
    await later.start()
    await _do(later, "UPDATE connectors_ledger_facts SET value = '99' WHERE name = 'schema'")
    await later.close()

    with pytest.raises(LedgerFault, match="version 99"):
        await SqlLedger(url, database=PATIENT).start()


async def test_a_database_that_is_away_is_unavailable_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with PrivatePostgres(tmp_path / "postgres") as postgres:
        ledger = SqlLedger(postgres.url, database=PATIENT)
        await ledger.start()
        await postgres.kill()
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(KEY, PRINT)
        assert ledger.unavailable_reason is not None

        await postgres.restart()

        assert await ledger.wait_available(20)
        assert isinstance(await ledger.claim(KEY, PRINT), Claimed)
        await ledger.close()


async def test_a_wrong_password_is_a_fault_that_names_only_the_setting(
    postgres: PrivatePostgres,
) -> None:
    url = postgres.url.replace("connectors:", "connectors:wrong")

    with pytest.raises(LedgerFault, match="CONNECTORS_DATABASE_URL") as caught:
        await SqlLedger(url, database=PATIENT).start()

    assert "wrong" not in str(caught.value)


async def test_an_older_schema_is_upgraded_once_by_workers_that_start_at_once(url: str) -> None:
    older = SqlLedger(url, database=PATIENT)
    await older.start()
    await _do(older, *VERSION_1)
    await older.close()

    ledgers = [SqlLedger(url, database=PATIENT) for _ in range(4)]
    await asyncio.gather(*(ledger.start() for ledger in ledgers))

    assert [True] * 4 == [await ledger.wait_available(10) for ledger in ledgers]
    assert [Done("kept", attempts=1)] * 4 == [await ledger.claim(KEY, PRINT) for ledger in ledgers]
    assert {older.id} == {ledger.id for ledger in ledgers}
    await asyncio.gather(*(ledger.close() for ledger in ledgers))


#: Turns a new database into what version 0.1.0 left, with one finished key in it.
VERSION_1 = (
    "ALTER TABLE connectors_ledger RENAME COLUMN in_flight TO calling",
    "ALTER TABLE connectors_ledger RENAME COLUMN lands_at TO settles_at",
    "ALTER TABLE connectors_ledger RENAME COLUMN attempts TO starts",
    "ALTER TABLE connectors_ledger DROP COLUMN steps",
    "ALTER TABLE connectors_ledger DROP COLUMN before_undo",
    "ALTER TABLE connectors_ledger DROP COLUMN undo_in_flight",
    "UPDATE connectors_ledger_facts SET value = '1' WHERE name = 'schema'",
    "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, state, fence, lease_until,"
    f" calling, settles_at, starts, result, expires_at) VALUES {repr((*KEY, PRINT))[:-1]},"
    " 'done', 1, 0, false, 0, 1, '\"kept\"', 9e9)",
)


async def test_a_run_that_ends_while_an_undo_looks_at_it_is_no_outage(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = await _claimed(ledger)
    asked = ledger._database.ask

    async def ask(question: Question) -> Rows:
        rows = await asked(question)
        if question.statement is ledger._sql.claim_undo:  # between the two questions of the undo's claim
            await asked(Question(ledger._sql.forget, (*KEY, claimed.fence)))
        return rows

    monkeypatch.setattr(ledger._database, "ask", ask)

    assert isinstance(await ledger.claim_undo(KEY), InProgress)
    assert ledger.unavailable_reason is None


@pytest.mark.parametrize("happened", [True, False])
async def test_an_operator_settles_what_an_undo_could_not_find_out(ledger: SqlLedger, happened: bool) -> None:
    claimed = await _claimed(ledger)
    await ledger.begin(KEY, claimed.fence, lands_within_s=30)
    await ledger.mark_unknown(KEY, claimed.fence)
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Claimed)
    assert undoing.in_flight and not undoing.happened
    await ledger.release(KEY, undoing.fence, in_flight=True)

    assert await ledger.resolve(KEY, PRINT, happened=happened)

    again = await ledger.claim_undo(KEY)
    assert isinstance(again, Claimed) if happened else isinstance(again, Undone)
    assert not isinstance(again, Claimed) or (again.happened and not again.in_flight)
    assert isinstance(await ledger.claim(KEY, PRINT), Undone)


async def test_an_operator_settles_an_uncertain_undo_and_the_result_stays(
    ledger: SqlLedger,
) -> None:
    claimed = await _claimed(ledger)
    await ledger.complete(KEY, claimed.fence, {"id": "e1"})
    undoing = await ledger.claim_undo(KEY)
    assert isinstance(undoing, Claimed)
    await ledger.begin_undo(KEY, undoing.fence)
    await ledger.release(KEY, undoing.fence, in_flight=False, undo_in_flight=True)

    assert await ledger.resolve(KEY, PRINT, happened=True)

    again = await ledger.claim_undo(KEY)
    assert isinstance(again, Claimed)
    assert (False, {"id": "e1"}) == (again.undo_in_flight, again.result)
