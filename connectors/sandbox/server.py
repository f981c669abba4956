"""What every sandbox is: a server on the loopback interface whose calls meet the faults that were asked for."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, Self, TypeVar

from aiohttp import web

from connectors.sandbox.faults import BaseJournal, Faults, FaultT, spoil

JournalT = TypeVar("JournalT", bound=BaseJournal[Any])


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class BaseSandbox(ABC, Generic[JournalT, FaultT]):
    """A provider of one's own; each sandbox adds its API.

    Args:
        port: 0 takes a free one.
        delay_s: how long each call takes, beyond the work.
        tls: a certificate, to serve TLS.
    """

    #: The longest line of a request that is read: a longer URL is refused.
    max_line_bytes: ClassVar[int] = 8_190

    def __init__(
        self,
        journal: JournalT,
        *,
        host: str,
        port: int,
        delay_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.delay_s = delay_s
        self.journal = journal
        self.faults: Faults[FaultT] = Faults()
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Listen; credential documents can be made from now on."""
        server = web.Server(self._answer, max_line_size=self.max_line_bytes)
        # Who stops a sandbox does not wait for calls that it holds.
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port, backlog=1024, ssl_context=self._tls).start()
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection; what is stored stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @abstractmethod
    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a call of the API."""

    async def _do(
        self, request: web.BaseRequest, operation: str, work: Callable[[], web.Response]
    ) -> web.StreamResponse:
        """Count a call and do its work, unless it meets a fault."""
        self.journal.calls[operation] += 1
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        fault = self.faults.take(operation)
        return work() if fault is None else await spoil(request, fault, work)
