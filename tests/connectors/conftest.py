"""What the tests of connectors share."""

from collections.abc import AsyncIterator

import pytest

from connectors.sdk.http.client import HttpPolicy, HttpPool


@pytest.fixture
async def pool() -> AsyncIterator[HttpPool]:
    """The pool of one worker, which may call this machine."""
    pool = HttpPool(HttpPolicy())
    yield pool
    await pool.close()
