"""An API that wants one secret, which is then looked for wherever it must not be."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
from aiohttp import web

from tests.support.http_servers import Served, serve

CANARY: Final = "canary-4f9c1d7e2b8a6035"


@pytest.fixture
async def shop() -> AsyncIterator[Served]:
    """An API that wants the canary for a token."""

    async def answer(request: web.Request) -> web.Response:
        known = request.headers.get("Authorization") == f"Bearer {CANARY}"
        return web.json_response({"known": known}, status=200 if known else 401)

    async with serve(answer) as served:
        yield served
