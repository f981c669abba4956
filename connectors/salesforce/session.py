"""The session given to simple-salesforce: sends each request over the shared HTTP layer.

simple-salesforce builds its URLs for an origin that exists nowhere, and holds no token. Each request is
checked here: a URL of another origin, or outside the API's path, is not sent. So no record id can lead
a request elsewhere, and the token, the deadline, the size cap, the host check and the handling of a broken
request are the shared layer's, whatever simple-salesforce does.
"""

import asyncio
import concurrent.futures
import json
import math
import re
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

from connectors.sdk.errors import ConnectorError, Sent, Unavailable

if TYPE_CHECKING:
    import httpx

#: The host that simple-salesforce writes into every URL; `.invalid` is reserved, and never resolves.
NOWHERE: Final = "salesforce.invalid"
#: Headers that the shared layer sets, or that are useless.
_DROPPED: Final = frozenset({"authorization", "x-prettyprint"})
_PATH: Final = re.compile(r"[A-Za-z0-9_.~%!$&'()*+,;=:@-]*(/[A-Za-z0-9_.~%!$&'()*+,;=:@-]*)*")


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A checked request of simple-salesforce."""

    method: str
    #: From `/services/data/` on, percent-encoded.
    path: str
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


Send = Callable[[SessionRequest], Coroutine[Any, Any, "httpx.Response"]]


class SessionAnswer:
    """An answer in the form that simple-salesforce expects."""

    def __init__(self, response: "httpx.Response", asked: SessionRequest, url: str) -> None:
        self._may_have_changed = asked.method != "GET"
        self.status_code = response.status_code
        self.headers = response.headers
        self.content = response.content
        self.url = url
        self._is_action = "/actions/" in asked.path

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode(errors="replace")

    def json(self, **_: Any) -> Any:
        """Return the body: an object in every successful answer, a list in that of an action.

        Raises:
            Unavailable: it is not an object, or has numbers that JSON cannot express.
        """
        try:
            answer = json.loads(self.content, parse_float=_finite, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, list if self._is_action else dict):
            # A write may have been done; only its answer is unusable.
            sent = Sent.UNCERTAIN if self._may_have_changed else Sent.ANSWERED
            raise Unavailable("Salesforce did not return a JSON object", sent=sent)
        return answer


class LoopSession:
    """Pass requests from a thread to the event loop, and wait for their answers.

    Args:
        root: the path of the API, `/services/data/v62.0/`.
        send: makes one call on the loop.
    """

    def __init__(self, root: str, send: Send, loop: asyncio.AbstractEventLoop) -> None:
        self.proxies: dict[str, str] = {}
        self._root = root
        self._send = send
        self._loop = loop
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._flight: concurrent.futures.Future[httpx.Response] | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        data: str | bytes | None = None,
    ) -> SessionAnswer:
        """Send one request; called in a thread.

        Raises:
            ConnectorError: there is no answer, or the org refuses.
        """
        asked = SessionRequest(
            method,
            path_of(url, self._root),
            params or None,
            {name: text for name, text in (headers or {}).items() if name.lower() not in _DROPPED},
            data.encode() if isinstance(data, str) else data,
        )
        with self._lock:
            if self._is_cancelled:
                raise concurrent.futures.CancelledError
            flight = self._flight = asyncio.run_coroutine_threadsafe(self._send(asked), self._loop)
        return SessionAnswer(flight.result(), asked, url)

    def cancel(self) -> None:
        """Release the thread: its request ends, and nothing more is sent."""
        with self._lock:
            self._is_cancelled = True
            if self._flight is not None:
                self._flight.cancel()


def path_of(url: str, root: str) -> str:
    """Return the path of a URL that simple-salesforce has built.

    Raises:
        ConnectorError: it leads outside the API; nothing is sent.
    """
    origin = f"https://{NOWHERE}"
    path = url.removeprefix(origin)
    if (
        not url.startswith(origin + root)
        or not _PATH.fullmatch(path)
        or "" in path.split("/")[1:-1]
        or has_dots(unquote(path))
    ):
        raise ConnectorError("the request leads outside the API; it was not sent", sent=Sent.NO)
    return path


def has_dots(path: str) -> bool:
    """Return whether a path has a `.` or `..` segment, encoded or not, which a server may take for a step up."""
    return not {".", ".."}.isdisjoint(unquote(path).split("/"))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number that no double can hold")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
