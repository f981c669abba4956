"""What can go wrong between a connector and a provider, on demand."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp import web
from multidict import CIMultiDict

from connectors.sdk.testing.provider import HANG_S, Asked, read_request

#: Text that stands for a provider's own words in faulty answers; none of it may reach a caller.
CANARY: Final = "third-party-canary"
_HOP: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})

Kind = Literal[
    "cut_before",
    "cut_after",
    "hang_before",
    "hang_after",
    "refuse",
    "fail_after",
    "redirect",
    "garble",
    "empty",
]
#: By these the provider does its work.
_WORKS: Final = frozenset({"cut_after", "hang_after", "fail_after", "garble", "empty"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail.

    `cut_before` and `hang_before`: the provider never hears of it. `cut_after` and `hang_after`: it has
    done the work. `refuse`: `status`, with everything that was sent in the body; `fail_after`: the same, once the
    work is done. `redirect`: 302 to another path. `garble`: the work is done, its answer is not JSON. `empty`: the
    work is done, and the answer empty.
    """

    kind: Kind
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Requests that it hits; None: all.
    times: int | None = None
    #: Requests that pass before the first one is hit.
    skip: int = 0
    #: Which requests it may hit.
    hits: Callable[[Asked], bool] = lambda asked: not asked.is_token_request


class FaultProxy:
    """An HTTP proxy that a connector takes for its provider.

    `via(url)` gives the address to use in the place of a provider's URL.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        #: Requests that a fault has hit.
        self.hit = 0
        self._passed = 0
        #: Set by the first of them, once its work is done where the fault lets it be.
        self.first_hit = asyncio.Event()
        #: Every request, in order.
        self.journal: list[Asked] = []
        self._upstream = ""
        self._origin = ""
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None
        self._released = asyncio.Event()

    def via(self, url: str) -> str:
        """Return the address that leads to this URL through the proxy; all must be of one origin."""
        parts = urlsplit(url)
        self._upstream = f"{parts.scheme}://{parts.netloc}"
        return self._origin + url.removeprefix(self._upstream)

    def fail(self, fault: Fault | None) -> None:
        """Fail this way from now on; None: no more."""
        self.fault, self.hit, self._passed = fault, 0, 0
        self.first_hit.clear()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar())
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await read_request(request)
        self.journal.append(asked)
        fault = self._fault_for(asked)
        if fault is None:
            return await self._forward(request, asked)
        self.hit += 1
        answer = await self._forward(request, asked) if fault.kind in _WORKS else None
        self.first_hit.set()
        if fault.kind == "redirect":
            return web.Response(status=302, headers={"Location": f"{self._origin}/moved-elsewhere"})
        if fault.kind in {"refuse", "fail_after"}:
            # As providers do that quote what they were sent.
            quoted = f"{CANARY} {dict(asked.headers)} {asked.body.decode('utf-8', 'replace')}"
            return web.json_response(
                {"error": quoted, "message": quoted}, status=fault.status, headers=fault.headers
            )
        if fault.kind == "garble":
            return web.Response(text=f"<html>{CANARY}", content_type="text/html")
        if fault.kind == "empty" and answer is not None:
            return web.Response(status=answer.status)
        if fault.kind in {"hang_before", "hang_after"}:
            try:
                async with asyncio.timeout(HANG_S):
                    await self._released.wait()
            except TimeoutError:
                pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    def _fault_for(self, asked: Asked) -> Fault | None:
        fault = self.fault
        if fault is None or not fault.hits(asked) or (fault.times is not None and self.hit >= fault.times):
            return None
        if self._passed < fault.skip:
            self._passed += 1
            return None
        return fault

    async def _forward(self, request: web.BaseRequest, asked: Asked) -> web.Response:
        assert self._session is not None
        url = yarl.URL(self._upstream + str(request.rel_url.raw_path_qs), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with self._session.request(
            asked.method, url, headers=headers, data=asked.body or None, allow_redirects=False
        ) as answer:
            body = await answer.read()
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in _HOP]
        return web.Response(status=answer.status, body=body, headers=CIMultiDict(kept))
