"""The address of an org's API, which a login returns and which may change at any time.

A My Domain is renamed, a sandbox is refreshed, an instance is migrated: the old host then redirects, answers
URL_NOT_RESET or 404 for everything, or is gone from the DNS. One new login returns the new address.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

from connectors.sdk.auth import Token, TokenAuth
from connectors.sdk.errors import ConnectorError

if TYPE_CHECKING:
    import httpx

#: Seconds for which an address that a login has confirmed is not questioned again.
CONFIRMED_S: Final = 60.0
#: Most confirmed addresses kept; the least recently confirmed is evicted first.
MAX_CONFIRMED: Final = 10_000

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: Resources that every org has: a 404 for one of them is not about a record.
EVERYWHERE: Final = frozenset({"", "query", "search", "limits", "composite"})


class Confirmations:
    """Addresses that a recent login has confirmed, so that a failing org causes no storm of logins."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_kept: int = MAX_CONFIRMED) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._kept: OrderedDict[Hashable, float] = OrderedDict()

    def add(self, account: Hashable, origin: str) -> None:
        """Record that a login returned this address just now."""
        self._kept[account, origin] = self._clock()
        self._kept.move_to_end((account, origin))
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)

    def has(self, account: Hashable, origin: str) -> bool:
        """Return whether a recent login returned this address."""
        at = self._kept.get((account, origin))
        return at is not None and self._clock() - at < CONFIRMED_S


_confirmations: Final = Confirmations()


class Instance:
    """The address of one org, as one credential reaches it."""

    def __init__(
        self, account: Hashable, auth: TokenAuth, *, confirmations: Confirmations = _confirmations
    ) -> None:
        self._account = account
        self._auth = auth
        self._confirmations = confirmations

    async def token(self) -> Token:
        """Return the access token, fetched if there is none."""
        return await self._auth.token()

    async def moved_from(self, used: Token) -> str | None:
        """Return the org's new address after at most one new login; None if it is the same."""
        origin = origin_of(used)
        if self._confirmations.has(self._account, origin):
            return None
        try:
            self._auth.drop(used)
            renewed = origin_of(await self._auth.token())
        except ConnectorError:
            return None  # the failure that led here is the one to report
        if renewed == origin:
            self._confirmations.add(self._account, origin)
            return None
        return renewed

    async def renewed_from(self, used: Token) -> str | None:
        """Return the address of a token that was renewed meanwhile; None if it is the same."""
        current = origin_of(await self._auth.token())
        return None if current == origin_of(used) else current


def origin_of(token: Token) -> str:
    """Return the address that a token is for."""
    return token.facts["instance_url"]


def may_have_moved(response: "httpx.Response", resource: str) -> bool:
    """Return whether an answer suggests that the org's API is at another address.

    Args:
        resource: the path behind the API's root.
    """
    if response.status_code in _REDIRECTS:
        return True
    codes = codes_of(response)
    if response.status_code == 404:
        return codes is None or resource in EVERYWHERE
    return codes is not None and "URL_NOT_RESET" in codes


def codes_of(response: "httpx.Response") -> list[str] | None:
    """Return the codes of an error in Salesforce's own form; None if it has another form."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, list) or not all(isinstance(fault, dict) for fault in body):
        return None
    return [str(fault.get("errorCode")) for fault in body]
