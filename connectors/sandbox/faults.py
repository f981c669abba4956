"""How a sandbox fails when a test asks for it, and the journal of what it changed."""

import asyncio
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(slots=True)
class BaseFault(ABC):
    """A fault that calls meet; each sandbox adds the error that it answers with.

    A `cut` closes the connection, `before` or `after` the work is done; `truncate` and `drip_s` damage
    an answer whose work is done; `body` replaces it.
    """

    #: The operation as the journal counts it, `token` for the token endpoint, `*` for any.
    operation: str = "*"
    #: How many calls meet it; None: all of them.
    times: int | None = 1
    #: Calls that pass before the first one meets it.
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Whether the work is done first: before a `status` is answered, or the call is held.
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
    #: Set once a call meets it; if it does the work, once that is done.
    met: asyncio.Event = field(default_factory=asyncio.Event)

    @abstractmethod
    def refuse(self, status: int) -> web.Response:
        """Return the provider's own error."""


FaultT = TypeVar("FaultT", bound=BaseFault)


class Faults(Generic[FaultT]):
    """The faults that were asked for, in order."""

    def __init__(self) -> None:
        self._faults: list[FaultT] = []

    def add(self, fault: FaultT) -> None:
        """Add a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Remove every fault."""
        self._faults.clear()

    def take(self, operation: str) -> FaultT | None:
        """Return the fault that this call meets, and count it down."""
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


EffectT = TypeVar("EffectT", bound="DataclassInstance")


class BaseJournal(Generic[EffectT]):
    """The list of effects, and the count of calls.

    Args:
        file: effects are appended here, one JSON object a line, each on disk before it is answered:
            a test that kills workers judges by it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.effects: list[EffectT] = []
        #: Calls by operation, failed ones included.
        self.calls: Counter[str] = Counter()
        self._file = file

    def append(self, effect: EffectT) -> None:
        """Record an effect."""
        self.effects.append(effect)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(effect)) + "\n")
                file.flush()
                os.fsync(file.fileno())


async def spoil(  # noqa: PLR0911  # one return a way to fail
    request: web.BaseRequest, fault: BaseFault, work: Callable[[], web.Response]
) -> web.StreamResponse:
    """Answer a call as its fault says."""
    done = work() if fault.does_work else None
    fault.met.set()
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.until is not None:
        await fault.until.wait()
    if fault.cut == "before":
        return _cut(request)
    if fault.status is not None and not fault.does_work:
        return fault.refuse(fault.status)
    response = work() if done is None else done
    if fault.cut == "after":
        return _cut(request)
    if fault.status is not None:
        return fault.refuse(fault.status)
    if fault.body is not None:
        return web.Response(body=fault.body, content_type="application/json", headers=fault.headers)
    content = response.body if isinstance(response.body, bytes) else b""
    if fault.truncate is not None:
        return await _write(request, response, [content[: fault.truncate]], len(content), 0.0)
    if fault.drip_s is not None:
        pieces = [content[at : at + 1] for at in range(len(content))]
        return await _write(request, response, pieces, len(content), fault.drip_s)
    return response


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _write(
    request: web.BaseRequest, response: web.Response, pieces: list[bytes], size_bytes: int, pause_s: float
) -> web.StreamResponse:
    """Write an answer in pieces; close the connection if they are fewer than announced."""
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
