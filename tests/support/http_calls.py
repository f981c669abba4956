"""Clients, names and answers for tests of calls on the wire."""

import asyncio
from typing import Any

from aiohttp import web

from connectors.sdk.http.client import HttpClient, HttpPool
from tests.support.http_servers import Served

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def client_of(pool: HttpPool, **options: Any) -> HttpClient:
    return pool.client(tenant="acme", connector="http", credential="default", **options)


def api_of(pool: HttpPool, served: Served, **options: Any) -> HttpClient:
    return client_of(pool).at(served.url, **options)


async def hello(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"hello": "world"})


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


class Names:
    """A DNS that gives what the test says, one answer after the other."""

    def __init__(self, *answers: list[str] | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer
