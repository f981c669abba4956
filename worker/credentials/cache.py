"""The cache of secrets: one read per cold secret, old ones while the vault is unavailable."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from loguru import logger
from pydantic import JsonValue

from connectors.sdk.errors import ConnectorError, CredentialDenied, CredentialInvalid, CredentialNotFound
from worker.credentials.source import (
    CredentialName,
    FetchOutcome,
    SecretFields,
    SecretUnavailable,
    VaultUnavailable,
    ignore_outcome,
)

#: Seconds until a refresh that the vault did not answer is tried again behind a fresh secret.
REFRESH_AGAIN_S: Final = 10.0

#: Seconds that a fetch of a secret which alone cannot be had takes to fail, at most.
PACE_S: Final = 1.0

_OUTCOMES: Final = {
    CredentialNotFound: FetchOutcome.NOT_FOUND,
    CredentialDenied: FetchOutcome.DENIED,
    CredentialInvalid: FetchOutcome.INVALID,
}
#: What the vault itself says of a secret; anything else is no answer.
Refusal = CredentialNotFound | CredentialDenied | CredentialInvalid


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long what was read is believed."""

    #: Seconds a secret is given without asking again.
    ttl_s: float = 300.0
    #: Seconds beyond its ttl that a secret is still given while the vault does not answer.
    stale_s: float = 3600.0
    #: Seconds a refusal (not there, forbidden, malformed) is repeated without asking again.
    refusal_s: float = 5.0
    #: Seconds without a read of a secret that alone cannot be had: doubled each time, up to the most.
    pause_s: float = 1.0
    max_pause_s: float = 30.0
    #: Secrets kept, the least used dropped first; as many refusals, apart, so that made-up names
    #: push out no secret.
    size: int = 10_000


@dataclass(slots=True)
class _Kept:
    secret: SecretFields
    refresh_at: float
    fresh_until: float
    stale_until: float


@dataclass(frozen=True, slots=True)
class _Failing:
    reason: str
    failures: int
    until: float


@dataclass(frozen=True, slots=True)
class _Refused:
    kind: type[Refusal]
    message: str
    until: float


class CredentialCache:
    """Answer fetches from memory, and read what is missing once.

    One fetch:
    1. A fresh secret is given; past its jittered refresh time a read is started behind it.
    2. A refusal of the last seconds is repeated.
    3. A secret that alone cannot be had is not read again for a while; its fetches are slowed down.
    4. Otherwise the fetch joins the read under way for this name, or starts it. The cache owns the
       read: a job that is cancelled leaves it running for the others.
    5. The vault's answer, good or bad, replaces what was there. Without an answer the old secret is
       returned within its stale time; after a refusal there is no old one.

    Keys are checked names, so two spellings of one path cannot be two entries, and no tenant meets
    another's. `VaultCredentials` builds and closes it.
    """

    def __init__(
        self,
        read: Callable[[CredentialName], Awaitable[SecretFields]],
        policy: CachePolicy,
        *,
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._policy = policy
        self._on_fetch = on_fetch
        self._clock = clock
        self._kept: OrderedDict[CredentialName, _Kept] = OrderedDict()
        self._refused: OrderedDict[CredentialName, _Refused] = OrderedDict()
        self._failing: OrderedDict[CredentialName, _Failing] = OrderedDict()
        self._reads: dict[CredentialName, asyncio.Task[SecretFields]] = {}
        self._superseded: set[asyncio.Task[SecretFields]] = set()

    async def fetch(self, name: CredentialName) -> SecretFields:
        """Return a secret from memory or from the vault."""
        now = self._clock()
        kept = self._kept.get(name)
        if kept is not None and now < kept.fresh_until:
            self._kept.move_to_end(name)
            if now >= kept.refresh_at and name not in self._reads:
                self._start_read(name)
            self._on_fetch(FetchOutcome.CACHED)
            return kept.secret
        refused = self._refused.get(name)
        if refused is not None and now < refused.until:
            self._on_fetch(_OUTCOMES[refused.kind])
            raise refused.kind(refused.message)
        failing = self._failing.get(name)
        if failing is not None and now < failing.until:
            return await self._withheld(name, failing)
        joined = self._reads.get(name)
        return await self._outcome(name, joined or self._start_read(name), joined=joined is not None)

    async def _withheld(self, name: CredentialName, failing: _Failing) -> SecretFields:
        """Return the stale secret, or fail without a read; slowly, because its callers will ask again."""
        kept, now = self._kept.get(name), self._clock()
        if kept is not None and now < kept.stale_until:
            self._on_fetch(FetchOutcome.STALE)
            return kept.secret
        self._on_fetch(FetchOutcome.UNAVAILABLE)
        await asyncio.sleep(min(PACE_S, failing.until - now))
        raise SecretUnavailable(failing.reason)

    async def _outcome(
        self, name: CredentialName, read: asyncio.Task[SecretFields], *, joined: bool
    ) -> SecretFields:
        # Not awaited itself: a cancelled waiter would cancel it, a cancelled read its waiters.
        await asyncio.wait({read})
        failure = VaultUnavailable("the worker is stopping") if read.cancelled() else read.exception()
        if failure is None:
            if joined:  # the read itself was counted where it ran
                self._on_fetch(FetchOutcome.CACHED)
            return read.result()
        if isinstance(failure, VaultUnavailable):
            kept = self._kept.get(name)
            if kept is not None and self._clock() < kept.stale_until:
                self._on_fetch(FetchOutcome.STALE)
                return kept.secret
        if joined:
            self._count(failure)
        raise _again(failure)

    def invalidate(self, name: CredentialName, refused: Mapping[str, JsonValue] | None) -> None:
        """Drop a secret, unless another was read since the one that was refused."""
        kept = self._kept.get(name)
        if refused is not None and kept is not None and kept.secret is not refused:
            return
        self._kept.pop(name, None)
        read = self._reads.get(name)
        if read is not None and (refused is None or kept is not None):
            # It may have left before the secret was changed: its waiters take it, the cache does not.
            self._superseded.add(self._reads.pop(name))

    async def close(self) -> None:
        """Stop the reads under way and forget everything."""
        reads = [*self._reads.values(), *self._superseded]
        for read in reads:
            read.cancel()
        if reads:
            await asyncio.wait(reads)
        self._kept.clear()
        self._refused.clear()
        self._failing.clear()

    def _start_read(self, name: CredentialName) -> asyncio.Task[SecretFields]:
        read = asyncio.create_task(self._reading(name), name=f"read {name.path}")
        self._reads[name] = read
        read.add_done_callback(lambda done: self._land(name, done))
        return read

    async def _reading(self, name: CredentialName) -> SecretFields:
        return await self._read(name)

    def _land(self, name: CredentialName, read: asyncio.Task[SecretFields]) -> None:
        """Store the vault's answer; called once for each read, even if no one waits."""
        self._superseded.discard(read)
        is_current = self._reads.get(name) is read
        if is_current:
            del self._reads[name]
        if read.cancelled():
            return
        failure = read.exception()
        self._count(failure)
        if not is_current:
            return
        now = self._clock()
        if isinstance(failure, SecretUnavailable):
            self._slow_down(name, failure.reason, now)
        else:
            self._failing.pop(name, None)
        if failure is None:
            self._keep(name, read.result(), now)
        elif isinstance(failure, Refusal):
            self._kept.pop(name, None)  # never stale after a refusal
            self._refused[name] = _Refused(type(failure), failure.message, now + self._policy.refusal_s)
            _bound(self._refused, self._policy.size)
        elif (kept := self._kept.get(name)) is not None:
            kept.refresh_at = now + REFRESH_AGAIN_S

    def _slow_down(self, name: CredentialName, reason: str, now: float) -> None:
        before = self._failing.pop(name, None)
        failures = 1 if before is None else before.failures + 1
        pause_s = min(self._policy.max_pause_s, self._policy.pause_s * 2.0 ** min(failures - 1, 30))
        pause_s *= random.uniform(0.5, 1.0)  # noqa: S311  # jitter, not a secret
        self._failing[name] = _Failing(reason, failures, now + pause_s)
        _bound(self._failing, self._policy.size)

    def _keep(self, name: CredentialName, secret: SecretFields, now: float) -> None:
        ttl_s = self._policy.ttl_s
        self._refused.pop(name, None)
        self._kept[name] = _Kept(
            secret,
            # Jittered, so that secrets read together at the start are not read together ever after.
            refresh_at=now + ttl_s * random.uniform(0.7, 0.9),  # noqa: S311  # jitter, not a secret
            fresh_until=now + ttl_s,
            stale_until=now + ttl_s + self._policy.stale_s,
        )
        self._kept.move_to_end(name)
        _bound(self._kept, self._policy.size)

    def _count(self, failure: BaseException | None) -> None:
        if failure is None:
            self._on_fetch(FetchOutcome.FETCHED)
        elif isinstance(failure, Refusal):
            self._on_fetch(_OUTCOMES[type(failure)])
        else:
            self._on_fetch(FetchOutcome.UNAVAILABLE)
            if not isinstance(failure, VaultUnavailable):
                logger.error("credential read failed unexpectedly", error=type(failure).__name__)


def _bound(
    entries: OrderedDict[CredentialName, _Kept]
    | OrderedDict[CredentialName, _Refused]
    | OrderedDict[CredentialName, _Failing],
    size: int,
) -> None:
    while len(entries) > size:
        entries.popitem(last=False)


def _again(failure: BaseException) -> BaseException:
    """Return a copy of a failure: several waiters of one read do not share one traceback."""
    if isinstance(failure, ConnectorError):
        return type(failure)(failure.message)
    if isinstance(failure, VaultUnavailable):
        return type(failure)(failure.reason)
    return failure
