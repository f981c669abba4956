"""A provider that journals every effect: the oracle of how often something happened."""

import asyncio
from collections import Counter
from collections.abc import Callable

from aiohttp import web


class Provider:
    """An HTTP service with bookings, which have a key, and notes, which have none it cares about.

    `PUT /bookings/{key}` refuses nothing and changes nothing the second time; `POST /notes` writes
    each time. `GET` finds either by key, `DELETE` takes either back.
    """

    def __init__(self) -> None:
        #: Every effect in order: (kind, key).
        self.journal: list[tuple[str, str]] = []
        self.requests = 0
        #: Seconds before each answer, after the work is done.
        self.delay_s = 0.0
        #: Asked after the work and before the answer: is the connection to be cut?
        self.is_cut: Callable[[str], bool] = lambda key: False
        #: Asked before the work: the status of a refusal, or None.
        self.refuses: Callable[[str, str], int | None] = lambda kind, key: None
        #: Asked after the work: the status of a failure, or None.
        self.fails: Callable[[str, str], int | None] = lambda kind, key: None
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free loopback port."""
        app = web.Application()
        app.router.add_put("/bookings/{key}", self._book)
        app.router.add_post("/{kind}/{key}", self._note)
        app.router.add_get("/alive", self._alive)
        app.router.add_get("/{kind}/{key}", self._find)
        app.router.add_delete("/{kind}/{key}", self._remove)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

    def effects(self) -> Counter[tuple[str, str]]:
        """Count the effects by kind and key."""
        return Counter(self.journal)

    def undo(self, kind: str, key: str) -> None:
        """Take one effect back."""
        while (kind, key) in self.journal:
            self.journal.remove((kind, key))

    async def _book(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if ("bookings", key) not in self.journal:
            self.journal.append(("bookings", key))
        return await self._answer(request, key, kind="bookings")

    async def _note(self, request: web.Request) -> web.Response:
        kind, key = request.match_info["kind"], request.match_info["key"]
        if (status := self.refuses(kind, key)) is not None:
            return web.json_response({}, status=status)
        self.journal.append((kind, key))
        return await self._answer(request, key, kind=kind)

    async def _alive(self, request: web.Request) -> web.Response:
        return await self._answer(request, "alive")

    async def _find(self, request: web.Request) -> web.Response:
        found = (request.match_info["kind"], request.match_info["key"]) in self.journal
        return web.json_response({"key": request.match_info["key"]}, status=200 if found else 404)

    async def _remove(self, request: web.Request) -> web.Response:
        self.undo(request.match_info["kind"], request.match_info["key"])
        return web.json_response({})

    async def _answer(self, request: web.Request, key: str, *, kind: str = "") -> web.Response:
        self.requests += 1
        if self.is_cut(key) and request.transport is not None:
            request.transport.abort()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return web.json_response({"key": key}, status=self.fails(kind, key) or 200)
