"""How the sandbox refuses, goes wrong when asked to, and what it writes down."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from aiohttp import web


class Refusal(Exception):
    """An error as Salesforce answers it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = None if fields is None else list(fields)
        self.more = dict(more or {})

    def body(self) -> list[dict[str, Any]]:
        """Write the error as the REST API does: a list."""
        fault: dict[str, Any] = {"message": self.message, "errorCode": self.code}
        if self.fields is not None:
            fault["fields"] = self.fields
        return [fault | self.more]


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with a call.

    A `cut` closes the connection, `before` or `after` the work is done; `truncate` and `drip_s` spoil
    an answer whose work is done; `body` stands in for it.
    """

    #: Such as `query`, `search`, `create`, `upsert`, `token`; `*` for any.
    operation: str = "*"
    #: How many calls it spoils; None: all of them.
    times: int | None = 1
    #: Calls that it lets pass before.
    skip: int = 0
    status: int | None = None
    code: str = "UNKNOWN_EXCEPTION"
    message: str = "as asked"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the work is done before a `status` is answered.
    does_work: bool = False
    delay_s: float = 0.0
    #: Held until this is set.
    until: asyncio.Event | None = None
    cut: Literal["before", "after"] | None = None
    #: How many bytes of the answer are sent before the connection closes.
    truncate: int | None = None
    #: Seconds between one byte of the answer and the next.
    drip_s: float | None = None
    body: bytes | None = None


class Faults:
    """The faults that were asked for, in order."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Ask for one."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Let everything go well again."""
        self._faults.clear()

    def take(self, operation: str) -> Fault | None:
        """Give the fault that this call meets, and use it up."""
        for fault in self._faults:
            if fault.operation not in {"*", operation}:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
            return fault
        return None


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that has changed."""

    at: str
    #: `created`, `changed`, `deleted` or `login`.
    kind: str
    object: str
    record_id: str
    detail: Mapping[str, Any]


class Journal:
    """The list of effects, and the count of calls.

    Args:
        file: effects are appended here, one JSON object a line, each on disk before it is answered:
            a test that kills workers judges by it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.effects: list[Effect] = []
        #: Calls by operation, failed ones included.
        self.calls: Counter[str] = Counter()
        self._file = file

    def write(
        self, at: datetime, kind: str, object_name: str = "", record_id: str = "", **detail: Any
    ) -> None:
        """Write an effect down."""
        effect = Effect(at.isoformat(), kind, object_name, record_id, detail)
        self.effects.append(effect)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(effect)) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def of(self, kind: str, object_name: str | None = None) -> list[Effect]:
        """List the effects of a kind, on an object."""
        return [
            effect for effect in self.effects if effect.kind == kind and object_name in {None, effect.object}
        ]


async def spoil(  # noqa: PLR0911  # one return a way to go wrong
    request: web.BaseRequest, fault: Fault, work: Callable[[], web.Response]
) -> web.StreamResponse:
    """Let a call go wrong in the way that was asked for."""
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.until is not None:
        await fault.until.wait()
    if fault.cut == "before":
        return _cut(request)
    if fault.status is not None and not fault.does_work:
        return _refused(fault)
    response = work()
    if fault.cut == "after":
        return _cut(request)
    if fault.status is not None:
        return _refused(fault)
    if fault.body is not None:
        return web.Response(body=fault.body, content_type="application/json", headers=fault.headers)
    content = response.body if isinstance(response.body, bytes) else b""
    if fault.truncate is not None:
        return await _write(request, response, [content[: fault.truncate]], len(content), 0.0)
    if fault.drip_s is not None:
        pieces = [content[at : at + 1] for at in range(len(content))]
        return await _write(request, response, pieces, len(content), fault.drip_s)
    return response


def _refused(fault: Fault) -> web.Response:
    assert fault.status is not None
    refusal = Refusal(fault.status, fault.code, fault.message)
    return web.json_response(refusal.body(), status=fault.status, headers=fault.headers)


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _write(
    request: web.BaseRequest, response: web.Response, pieces: list[bytes], size_bytes: int, pause_s: float
) -> web.StreamResponse:
    """Write an answer in pieces; where they are fewer than announced, close the connection."""
    stream = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    stream.content_length = size_bytes
    await stream.prepare(request)
    for piece in pieces:
        await stream.write(piece)
        if pause_s:
            await asyncio.sleep(pause_s)
    if sum(map(len, pieces)) < size_bytes:
        return _cut(request)
    return stream
