"""A sandbox and a desk for each test."""

from collections.abc import AsyncIterator

import pytest

from connectors.google_calendar import google_calendar
from connectors.sandbox.google.server import GoogleSandbox
from connectors.sdk.http.circuit_breaker import BreakerPolicy
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.desk import OWNER, Desk


@pytest.fixture
async def google(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GoogleSandbox]:
    async with GoogleSandbox() as sandbox:
        sandbox.store.add_account(OWNER, time_zone="Europe/Istanbul")
        monkeypatch.setitem(google_calendar.settings, "api_url", sandbox.url)
        yield sandbox


@pytest.fixture
async def desk(google: GoogleSandbox) -> AsyncIterator[Desk]:
    pool = HttpPool(HttpPolicy())
    yield Desk(google, pool, google.authority.authorized_user(OWNER))
    await pool.close()


@pytest.fixture
async def patient_pool() -> AsyncIterator[HttpPool]:
    """A pool whose breakers never open, for tests that fail calls at random."""
    pool = HttpPool(HttpPolicy(breaker=BreakerPolicy(failures_to_open=10**6)))
    yield pool
    await pool.close()
