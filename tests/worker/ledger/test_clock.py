"""The database's clock is set back by ten minutes: no lease gets out of reach."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from platformdirs import user_data_path

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import Claimed, Identity, InProgress, fingerprint_of
from tests.support.faketime import FakeClock, fake_clock
from worker.dev.postgres import PrivatePostgres, find_programs
from worker.ledger.store import SqlLedger

pytestmark = pytest.mark.integration

KEY = Identity("acme", "crm", "create", "k1")
PRINT = fingerprint_of({"a": 1}, "default")
TEN_MINUTES_BACK = -600


@pytest.fixture
async def clock(tmp_path: Path) -> FakeClock:
    return await fake_clock(tmp_path)


@pytest.fixture
async def server(clock: FakeClock, tmp_path: Path) -> AsyncIterator[PrivatePostgres]:
    programs = await find_programs(user_data_path("connectors-service"))
    faked = dataclasses.replace(programs, env=programs.env | clock.environment)
    async with PrivatePostgres(tmp_path / "postgres", programs=faked) as server:
        yield server


@pytest.fixture
async def ledger(server: PrivatePostgres) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(server.url, policy=LeasePolicy(lease_s=2.0))
    await ledger.start()
    yield ledger
    await ledger.close()


async def step_back(server: PrivatePostgres, clock: FakeClock) -> None:
    clock.step(TEN_MINUTES_BACK)
    connection = await asyncpg.connect(server.url, ssl=False)
    seconds = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
    await connection.close()
    assert abs(seconds - time.time() - TEN_MINUTES_BACK) < 5


async def test_a_dead_workers_claim_is_taken_over_within_a_lease(
    server: PrivatePostgres, clock: FakeClock, ledger: SqlLedger
) -> None:
    assert isinstance(await ledger.claim(KEY, PRINT), Claimed)
    assert isinstance(await ledger.claim(KEY, PRINT), InProgress)

    await step_back(server, clock)
    async with asyncio.timeout(4):
        while not isinstance(await ledger.claim(KEY, PRINT), Claimed):
            await asyncio.sleep(0.1)


async def test_a_live_workers_claim_is_renewed_or_lost_but_never_shared(
    server: PrivatePostgres, clock: FakeClock, ledger: SqlLedger
) -> None:
    held = await ledger.claim(KEY, PRINT)
    assert isinstance(held, Claimed)

    await step_back(server, clock)
    is_renewed = await ledger.renew(KEY, held.fence)
    taken = await ledger.claim(KEY, PRINT)

    assert is_renewed != isinstance(taken, Claimed)
    assert is_renewed == await ledger.begin(KEY, held.fence, lands_within_s=1.0)
