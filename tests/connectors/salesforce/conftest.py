"""An org of the sandbox's, and jobs that run on it."""

from collections.abc import AsyncIterator

import pytest

from connectors.sandbox.salesforce.server import SalesforceSandbox
from connectors.sdk.http.client import HttpPool
from tests.support.salesforce import Bench


@pytest.fixture
async def org() -> AsyncIterator[SalesforceSandbox]:
    """An org with what the demo tells of."""
    async with SalesforceSandbox() as sandbox:
        sandbox.seed()
        sandbox.journal.effects.clear()
        yield sandbox


@pytest.fixture
def bench(org: SalesforceSandbox, pool: HttpPool) -> Bench:
    return Bench(org, pool)
