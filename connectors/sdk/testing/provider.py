"""The other system, scripted: a real HTTP server on loopback that journals what it is asked."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from aiohttp import web

#: Seconds that a hung request is held at most: longer than any test waits.
HANG_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    #: Names in lower case.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    #: What the braces of the route stand for.
    names: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)

    @property
    def is_token_request(self) -> bool:
        """Whether it asks for an access token (a form with a grant_type)."""
        return b"grant_type=" in self.body and "form-urlencoded" in self.headers.get("content-type", "")

    @property
    def is_work(self) -> bool:
        """Whether it may change something: neither reads nor asks for a token."""
        return self.method not in {"GET", "HEAD", "OPTIONS"} and not self.is_token_request


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer, and how well."""

    json: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: In the place of `json`.
    body: bytes | None = None
    #: Close the connection instead, or hold it: the work of the route is done by then.
    instead: Literal["cut", "hang"] | None = None


Handler = Callable[[Asked], Any]


class FakeProvider:
    """An HTTP API of your own making.

    async with FakeProvider() as provider:
        provider.on("GET", "/orders/{id}", lambda asked: {"id": asked.names["id"]})
        provider.script(Answer(status=503))           # the next request gets this, whatever it is
        ...
        assert ["GET /orders/17"] == provider.paths

    A handler gives an `Answer`, or what its JSON is to be. It is called on the test's own loop, so it
    may keep its state in plain variables. What no route knows is answered 404.
    """

    def __init__(self) -> None:
        #: Every request, in order.
        self.journal: list[Asked] = []
        self.url = ""
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._script: deque[Answer] = deque()
        self._runner: web.ServerRunner | None = None
        self._released = asyncio.Event()

    def on(self, method: str, path: str, answer: Handler | Answer) -> None:
        """Set what a route answers; a later one goes before an earlier one.

        Args:
            path: `{name}` stands for one segment.
        """
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
        handler = answer if callable(answer) else lambda _asked: answer
        self._routes.insert(0, (method, re.compile(pattern), handler))

    def script(self, *answers: Answer) -> None:
        """Return these answers to the next requests, before any route is asked."""
        self._script.extend(answers)

    @property
    def paths(self) -> list[str]:
        """The journal in short: `GET /orders/17`."""
        return [f"{asked.method} {asked.path}" for asked in self.journal]

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Close every connection, those that hang too."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await read_request(request)
        if self._script:
            self.journal.append(asked)
            return await self.send(request, self._script.popleft())
        for method, pattern, handler in self._routes:
            if method == asked.method and (found := pattern.fullmatch(asked.path)) is not None:
                asked = Asked(
                    asked.method, asked.path, asked.query, asked.headers, asked.body, found.groupdict()
                )
                self.journal.append(asked)
                given = handler(asked)
                return await self.send(request, given if isinstance(given, Answer) else Answer(given))
        self.journal.append(asked)
        return await self.send(request, Answer({"error": "there is no such route"}, status=404))

    async def send(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        """Answer, or do what is to be done instead."""
        if answer.instead == "hang":
            try:
                async with asyncio.timeout(HANG_S):
                    await self._released.wait()
            except TimeoutError:
                pass
        if answer.instead is not None and request.transport is not None:
            request.transport.abort()
        body = answer.body if answer.body is not None else json.dumps(answer.json).encode()
        headers = {"Content-Type": "application/json", **answer.headers}
        return web.Response(status=answer.status, body=body, headers=headers)


async def read_request(request: web.BaseRequest) -> Asked:
    """Take down a request."""
    return Asked(
        request.method,
        request.rel_url.raw_path,
        dict(request.rel_url.query),
        {name.lower(): value for name, value in request.headers.items()},
        await request.read(),
    )
