"""The HTTP below hvac: answers are checked before hvac sees them, failures reported in our own words."""

import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import requests
import urllib3
from pydantic_core import from_json
from requests.adapters import HTTPAdapter

from worker.credentials.source import NoAnswer, VaultUnavailable, WholeVaultUnavailable
from worker.settings import SettingError
from worker.tls import verifying_context

#: Largest answer that is read; a secret is a few kilobytes.
MAX_ANSWER_BYTES: Final = 1024 * 1024

#: Statuses that mean the whole vault.
_REASONS: Final = {
    429: "the vault's rate limit is reached",
    472: "the vault is a disaster-recovery standby: set CONNECTORS_VAULT_URL to a node that serves reads",
    501: "the vault is not initialized",
    503: "the vault is sealed",
}
_READS: Final = frozenset({"GET", "LIST"})


class VaultRefusal(Exception):
    """The vault answered, in its own form, with a status that is no success."""

    def __init__(self, status: int, answer: Mapping[str, Any]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.answer = answer

    def unavailable(self) -> VaultUnavailable:
        """Return what the status means if it says nothing of one secret or login."""
        reason = _REASONS.get(self.status)
        if reason is not None:
            return WholeVaultUnavailable(reason)
        return VaultUnavailable(f"the vault answered HTTP {self.status}")


class AnswerTooLarge(Exception):
    """The answer is over MAX_ANSWER_BYTES."""


class VaultHttp:
    """The session that every call of hvac to this vault goes through; safe to use from several threads.

    A CA file that is replaced counts from the next call on. Nothing is taken from the environment:
    no proxy, no .netrc, no REQUESTS_CA_BUNDLE. Created and closed by `VaultClient`.

    Raises:
        SettingError: the file of certificates is none.
    """

    def __init__(self, url: str, ca_file: Path | None, *, timeout_s: float, connections: int) -> None:
        self._verifies = url.startswith("https:") or ca_file is not None
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._connections = connections
        self._lock = threading.Lock()
        self._context = self._trust()
        self._session = self._build()

    def session(self) -> requests.Session:
        """Return the session, made anew if the CA file was replaced."""
        with self._lock:
            context = self._trust()
            if context is not self._context:
                self._session.close()
                self._context = context
                self._session = self._build()
            return self._session

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _build(self) -> requests.Session:
        return _session(self._context, self._timeout_s, self._connections)

    def _trust(self) -> ssl.SSLContext | None:
        try:
            return verifying_context(self._ca_file) if self._verifies else None
        except OSError:
            raise SettingError(
                f"CONNECTORS_CA_FILE={self._ca_file} is not a file of PEM certificates"
            ) from None


def _session(context: ssl.SSLContext | None, timeout_s: float, connections: int) -> requests.Session:
    http = requests.Session()
    http.trust_env = False
    http.headers["Accept-Encoding"] = "identity"
    transport = StrictTransport(context, timeout_s, connections)
    http.mount("http://", transport)
    http.mount("https://", transport)
    return http


class StrictTransport(HTTPAdapter):
    """Hand on a JSON object for every success, within a size and a time; raise for all else.

    hvac gives a Response where the body is not JSON, on which its callers then fail with TypeErrors;
    it follows redirects with the token; and a timeout of requests starts anew with every byte.
    """

    def __init__(self, context: ssl.SSLContext | None, timeout_s: float, connections: int) -> None:
        self._context = context
        self._timeout_s = timeout_s
        super().__init__(pool_connections=1, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Trust what the context trusts."""
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send one request and read the whole answer.

        Raises:
            VaultRefusal: the vault's answer has an error status.
            VaultUnavailable: a redirect, or no JSON object: somebody's error page, be it with 200 or 404.
            AnswerTooLarge, TimeoutError, and what requests and urllib3 raise.
        """
        deadline = time.monotonic() + self._timeout_s
        response = self._sent(request, {**options, "stream": True, "timeout": self._timeout_s})
        with response:
            body = _read_body(response, deadline)
        if response.is_redirect:
            raise VaultUnavailable(
                f"CONNECTORS_VAULT_URL answered HTTP {response.status_code}, a redirect, which is not followed: "
                "a standby sends one while it does not reach the active node"
            )
        answer = {} if response.status_code == 204 else json_object(body)
        if answer is None:
            raise VaultUnavailable(_seen(response))
        if not response.ok:
            raise VaultRefusal(response.status_code, answer)
        response._content, response._content_consumed = body, True  # type: ignore[attr-defined]
        return response

    def _sent(self, request: requests.PreparedRequest, options: dict[str, Any]) -> requests.Response:
        """Send it; a read whose connection was cut goes out once more, on a new one."""
        try:
            return super().send(request, **options)
        except requests.ConnectionError as cut:
            self.poolmanager.clear()  # what broke this connection broke the idle ones, too
            is_refused = isinstance(cut, requests.ConnectTimeout | requests.exceptions.SSLError)
            if is_refused or request.method not in _READS:
                raise
        except requests.Timeout:
            self.poolmanager.clear()
            raise
        return super().send(request, **options)


def ask(call: Callable[[], Any]) -> Mapping[str, Any]:
    """Run one call of hvac, and keep what its libraries raise to ourselves.

    Raises:
        VaultRefusal, AnswerTooLarge, VaultUnavailable.
    """
    kind = VaultUnavailable
    try:
        answer = call()
        return answer if isinstance(answer, dict) else {}
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
        kind, reason = NoAnswer, "the vault did not answer in time"
    except requests.exceptions.SSLError:
        reason = "the vault's TLS certificate is not trusted: check CONNECTORS_CA_FILE and the host's name"
    except requests.ConnectionError:
        reason = "the vault cannot be reached"
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError):
        reason = "an answer of CONNECTORS_VAULT_URL broke off, or is not HTTP"
    # Outside of the handler: the other exception carries the token in its request's headers, and so
    # it is not even the context of ours.
    raise kind(reason)


def json_object(body: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None for anything else, however deep or broken."""
    try:
        answer = from_json(body, allow_inf_nan=False)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _seen(response: requests.Response) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    shown = kind if re.fullmatch(r"[\w.+-]{1,40}/[\w.+-]{1,40}", kind, re.ASCII) else "something"
    return (
        f"CONNECTORS_VAULT_URL answered HTTP {response.status_code} with {shown} that is not a JSON object, "
        "which a vault answers with"
    )


def _read_body(response: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    # read1, since read(n) waits for n bytes: a body that drips would never come back here.
    while chunk := response.raw.read1(64 * 1024):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise AnswerTooLarge
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)
