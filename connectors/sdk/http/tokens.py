"""Access tokens: fetched once for all who wait, kept until shortly before they expire."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import SecretStr

from connectors.sdk.errors import ConnectorError, CredentialInvalid, Sent, Unavailable

#: A token is renewed so long before it expires, or a tenth of its life before, if that is shorter:
#: it must live until the provider has read it, by a clock that may differ.
RENEW_BEFORE_S: Final = 60.0
#: Seconds a fetch may take, however long its job has: many jobs wait for one fetch.
FETCH_TIMEOUT_S: Final = 30.0
#: Tokens kept; the one unused for longest is forgotten first.
MAX_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """What a token endpoint gave."""

    value: SecretStr
    #: Seconds from now; None: valid until the provider refuses it.
    lifetime_s: float | None = None
    #: What came with it, such as the `instance_url` that it is for. Nothing secret.
    facts: Mapping[str, str] = field(default_factory=dict)


Fetch = Callable[[], Awaitable[Token]]


class TokenCache:
    """Tokens by key, each fetched once at a time.

    Who asks while a fetch is on its way waits for that one; who gives up waiting does not stop it
    for the others. The key must change with the credential's content (put a digest of the document
    in it), so that a rotated secret does not go on with the old token. The worker closes it.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_tokens: int = MAX_TOKENS,
        on_secret: Callable[[str], None] | None = None,
    ) -> None:
        self._clock = clock
        self._on_secret = on_secret
        self._max_tokens = max_tokens
        self._tokens: OrderedDict[Hashable, tuple[Token, float]] = OrderedDict()
        self._fetches: dict[Hashable, asyncio.Task[Token]] = {}
        self._refusals: OrderedDict[Hashable, tuple[CredentialInvalid, float]] = OrderedDict()

    async def get(self, key: Hashable, fetch: Fetch, *, cool_down_s: float = 0.0) -> Token:
        """Return the token of this key, fetched if there is none that lives long enough.

        Args:
            fetch: asks the token endpoint. It runs for all who wait, so it must not end with one
                job's deadline: use `HttpClient.detached()`.
            cool_down_s: seconds for which a refused credential is not tried again: some providers
                lock an account after a few wrong logins.

        Raises:
            ConnectorError: what `fetch` raised, with `sent` NO: the call that needed the token
                never left.
        """
        held = self._tokens.get(key)
        if held is not None and self._clock() < held[1]:
            self._tokens.move_to_end(key)
            return held[0]
        running = self._fetches.get(key)
        if running is None:
            if (refused := self._refusals.get(key)) is not None:
                if (remaining_s := refused[1] - self._clock()) > 0:
                    raise _unsent(refused[0], f"; not tried again for {remaining_s:.0f} s")
                del self._refusals[key]
            running = asyncio.get_running_loop().create_task(self._fetch(key, fetch, cool_down_s))
            self._fetches[key] = running
            running.add_done_callback(lambda done: self._settle(key, done))
        try:
            return await asyncio.shield(running)
        except ConnectorError as error:
            failure = _unsent(error)
        raise failure

    def held(self, key: Hashable) -> Token | None:
        """Return the token of this key if there is one; none is fetched."""
        held = self._tokens.get(key)
        return None if held is None else held[0]

    def drop(self, key: Hashable, refused: Token) -> None:
        """Forget a token that the provider refused; a newer one stays."""
        held = self._tokens.get(key)
        if held is not None and held[0].value == refused.value:
            del self._tokens[key]

    async def close(self) -> None:
        """Stop the fetches that are on their way."""
        fetches = list(self._fetches.values())
        for running in fetches:
            running.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    async def _fetch(self, key: Hashable, fetch: Fetch, cool_down_s: float) -> Token:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                token = await fetch()
        except TimeoutError:
            raise Unavailable(f"no access token within {FETCH_TIMEOUT_S:g} s", sent=Sent.NO) from None
        except CredentialInvalid as refused:
            if cool_down_s:
                self._refusals[key] = refused, self._clock() + cool_down_s
                if len(self._refusals) > self._max_tokens:
                    self._refusals.popitem(last=False)
            raise
        if self._on_secret is not None:
            self._on_secret(token.value.get_secret_value())
        life_s = float("inf") if token.lifetime_s is None else token.lifetime_s
        self._tokens[key] = token, self._clock() + life_s - min(RENEW_BEFORE_S, life_s / 10)
        self._tokens.move_to_end(key)
        if len(self._tokens) > self._max_tokens:
            self._tokens.popitem(last=False)
        return token

    def _settle(self, key: Hashable, running: asyncio.Task[Token]) -> None:
        self._fetches.pop(key, None)
        if not running.cancelled():
            # Looked at here, so that asyncio does not report it if every waiter has gone.
            running.exception()


class TokenAuth:
    """Bearer authentication with a cached token: the `auth=` of a request.

    After a 401 the client drops the token, fetches once more and sends the request once more.

    Args:
        cool_down_s: seconds for which a refused credential is not tried again.
    """

    def __init__(self, tokens: TokenCache, key: Hashable, fetch: Fetch, *, cool_down_s: float = 0.0) -> None:
        self._tokens = tokens
        self._key = key
        self._fetch = fetch
        self._cool_down_s = cool_down_s

    async def token(self) -> Token:
        """Return the token, fetched if there is none."""
        return await self._tokens.get(self._key, self._fetch, cool_down_s=self._cool_down_s)

    def held(self) -> Token | None:
        """Return the token that is held; none is fetched."""
        return self._tokens.held(self._key)

    def drop(self, refused: Token) -> None:
        """Forget a token that the provider refused."""
        self._tokens.drop(self._key, refused)


def _unsent(error: ConnectorError, more: str = "") -> ConnectorError:
    """Copy a fetch's error for one waiter: shared, its traceback would grow with each of them."""
    return type(error)(
        error.message + more,
        code=error.code,
        retry_after_s=error.retry_after_s,
        details=error.details,
        data=error.data,
        sent=Sent.NO,
    )
