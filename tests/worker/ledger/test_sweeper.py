"""Removal of expired rows: by index, step by step, on both databases."""

import asyncio
import sqlite3
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from worker.dev.postgres import PrivatePostgres
from worker.ledger.script import Ask, Do, Steps
from worker.ledger.store import SqlLedger
from worker.ledger.sweeper import POSTGRESQL_SWEEP, SQLITE_SWEEP, SWEEP_ROWS

pytestmark = pytest.mark.integration

ROW = (
    "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, state, fence, lease_until,"
    " in_flight, lands_at, attempts, expires_at) SELECT '', '', '', 'k' || i, '', 'done', 0, 0.0, FALSE, 0.0, 0,"
)
OLD, KEPT = 2 * SWEEP_ROWS + 7, 3000


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    return asyncio.run(postgres.create_database(f"test_{uuid4().hex}"))


async def fill(ledger: SqlLedger) -> None:
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD + KEPT})"

    def script() -> Steps[None]:
        yield Do(
            (
                f"{numbers} {ROW} CASE WHEN i <= {OLD} THEN 1.0 * i ELSE 9e9 END FROM n",
                "ANALYZE connectors_ledger",
            )
        )

    await ledger._database.transact(script)


async def test_a_sweep_goes_in_small_steps_and_keeps_what_is_not_old(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = SqlLedger(url)
    await ledger.start()
    await fill(ledger)
    steps: list[int] = []
    transact = ledger._database.transact

    async def counted(script: object) -> int:
        steps.append(await transact(script))  # type: ignore[arg-type]
        return steps[-1]

    monkeypatch.setattr(ledger._database, "transact", counted)

    assert OLD == await ledger.sweep()
    assert [SWEEP_ROWS, SWEEP_ROWS, 7] == steps
    monkeypatch.undo()
    assert KEPT == await left(ledger)
    await ledger.close()


async def left(ledger: SqlLedger) -> int:
    def count() -> Steps[int]:
        return int((yield Ask("SELECT count(*) FROM connectors_ledger"))[0][0])

    return await ledger._database.transact(count)


async def test_a_sweep_reads_old_rows_by_their_index(url: str, tmp_path: Path) -> None:
    ledger = SqlLedger(url)
    await ledger.start()
    await fill(ledger)
    await ledger.close()

    if url.startswith("sqlite"):
        file = sqlite3.connect(tmp_path / "ledger.db")
        plan = str(file.execute(f"EXPLAIN QUERY PLAN {SQLITE_SWEEP}").fetchall())
        file.close()
    else:
        connection = await asyncpg.connect(url, ssl=False)
        plan = str(await connection.fetch(f"EXPLAIN {POSTGRESQL_SWEEP}"))
        await connection.close()

    assert "ix_connectors_ledger_expires_at" in plan
    assert "Seq Scan" not in plan and "SCAN connectors_ledger" not in plan


async def test_two_sweeps_at_once_wait_for_neither_and_remove_each_row_once(
    postgres: PrivatePostgres,
) -> None:
    url = await postgres.create_database(f"test_{uuid4().hex}")
    one, other = SqlLedger(url), SqlLedger(url)
    await one.start()
    await other.start()
    await fill(one)

    removed = await asyncio.gather(one.sweep(), other.sweep())

    assert OLD == sum(removed)
    await one.close()
    await other.close()
