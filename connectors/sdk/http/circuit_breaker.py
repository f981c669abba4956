"""How much an account may ask of a host now: pauses the host asked for, and a circuit breaker.

One `HostBreaker` per tenant, connector, credential and host: what one account used up or broke holds
back no one else. A breaker learns from each answer and refuses in advance what would be refused
anyway; a refused call sent nothing (`Sent.NO`) and says when to retry.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from connectors.sdk.errors import ConnectorError, RateLimited, Sent, Unavailable
from connectors.sdk.http.adaptive_limit import AdaptiveLimit


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long."""

    #: Failures in a row that open the breaker. More than a job's own tries (5), so that one unlucky job
    #: does not hold up its account.
    failures_to_open: int = 10
    #: Failures further apart than this are not in a row.
    failure_gap_s: float = 60.0
    #: How long the breaker stays open at first, doubled each time its probe fails.
    open_s: float = 5.0
    open_max_s: float = 60.0
    #: A 429 that names no wait: none at first (the job's own delay will do), then 1 s, doubled.
    unnamed_pause_max_s: float = 30.0
    #: Calls that one account may have in flight at one host.
    most_in_flight: int = 128
    #: A pause this close to its end is over: clocks differ by more.
    pause_slack_s: float = 0.05
    #: Accounts remembered; the one unused for longest is forgotten first.
    max_accounts: int = 10_000


DEFAULT_POLICY: Final = BreakerPolicy()

BreakerKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """One call let through, to be handed back with its outcome."""

    started_at: float
    is_probe: bool


class HostBreaker:
    """What one account may ask of one host.

    Each call: `enter` (or be refused), then exactly one of `answered`, `failed`, `release`.
    """

    def __init__(
        self,
        host: str,
        clock: Callable[[], float] = time.monotonic,
        policy: BreakerPolicy = DEFAULT_POLICY,
    ) -> None:
        self._host = host
        self._policy = policy
        self._clock = clock
        self._resume_at = 0.0
        self._is_paused_by_limit = False
        self._limited_at = 0.0
        self._limits_in_a_row = 0
        self._failures = 0
        self._failed_at = 0.0
        self._open_until: float | None = None
        self._open_s = policy.open_s
        self._is_probing = False
        #: How many calls the account may have in flight; it learns from the same outcomes.
        self.limit = AdaptiveLimit(policy.most_in_flight)

    def enter(self, *, is_compensation: bool = False) -> BreakerPermit:
        """Admit a call.

        Args:
            is_compensation: admit it in any state: it undoes what an admitted call did.

        Raises:
            RateLimited: a wait that the host asked for still runs.
            Unavailable: the breaker is open, or the host asked for a pause with a 503.
        """
        now = self._clock()
        if is_compensation:
            return BreakerPermit(now, is_probe=False)
        if (remaining_s := self._resume_at - now) > self._policy.pause_slack_s:
            raise self._paused(remaining_s)
        if self._open_until is None:
            return BreakerPermit(now, is_probe=False)
        if now < self._open_until or self._is_probing:
            raise Unavailable(
                f"{self._host} has failed {self._policy.failures_to_open} times in a row"
                " and is not called for now",
                retry_after_s=round(max(self._open_until - now, 1.0), 3),
                sent=Sent.NO,
            )
        self._is_probing = True
        return BreakerPermit(now, is_probe=True)

    def answered(self, permit: BreakerPermit, *, is_limited: bool, wait_s: float | None) -> None:
        """Record an answer below 500.

        Args:
            is_limited: the host refused the call for its rate (429).
            wait_s: seconds the host asks to wait, on a success, too, if a limit is used up.
        """
        self._close(permit)
        if is_limited:
            self.limit.lower(permit.started_at, self._clock())
        else:
            self.limit.raise_()
        if is_limited and permit.started_at >= self._limited_at:
            # Answers to calls that were on their way together count once.
            self._limited_at = self._clock()
            self._limits_in_a_row += 1
            if wait_s is None and self._limits_in_a_row > 1:
                wait_s = min(2.0 ** (self._limits_in_a_row - 2), self._policy.unnamed_pause_max_s)
        elif not is_limited:
            self._limits_in_a_row = 0
        if wait_s:
            self.pause(wait_s)

    def failed(self, permit: BreakerPermit, *, wait_s: float | None = None) -> None:
        """Record a 5xx, a cut connection or a timeout."""
        now = self._clock()
        self.limit.lower(permit.started_at, now)
        if wait_s:
            self.pause(wait_s, is_limit=False)
        is_open = self._open_until is not None
        if permit.is_probe:
            self._is_probing = False
            self._open_s = min(self._open_s * 2, self._policy.open_max_s)
            self._open_until = now + self._open_s
        elif not is_open:
            is_in_a_row = now - self._failed_at <= self._policy.failure_gap_s
            self._failures = self._failures + 1 if is_in_a_row else 1
            self._failed_at = now
            if self._failures >= self._policy.failures_to_open:
                self._open_until = now + self._open_s

    def release(self, permit: BreakerPermit) -> None:
        """Hand a permit back without an outcome: the call was cancelled, or refused by our own rules."""
        if permit.is_probe:
            self._is_probing = False

    def pause(self, wait_s: float, *, is_limit: bool = True) -> None:
        """Refuse every call for `wait_s` seconds."""
        resume_at = self._clock() + wait_s
        if resume_at > self._resume_at:
            self._resume_at, self._is_paused_by_limit = resume_at, is_limit

    def _close(self, permit: BreakerPermit) -> None:
        self._failures = 0
        self._open_until, self._open_s = None, self._policy.open_s
        if permit.is_probe:
            self._is_probing = False

    def _paused(self, remaining_s: float) -> ConnectorError:
        remaining_s = round(remaining_s, 3)
        if self._is_paused_by_limit:
            return RateLimited(
                f"{self._host} asked this account to wait; {remaining_s:g} s are left",
                retry_after_s=remaining_s,
                sent=Sent.NO,
            )
        return Unavailable(
            f"{self._host} is unavailable and asked to wait; {remaining_s:g} s are left",
            retry_after_s=remaining_s,
            sent=Sent.NO,
        )


@dataclass(frozen=True, slots=True)
class HostLoad:
    """The calls of one connector, all its accounts and hosts together."""

    in_flight: int
    #: Calls that wait for a connection, or for a call of their account to end.
    waiting: int
    #: The lowest limit of an account that has calls now.
    lowest_limit: int


class HostBreakers:
    """The breakers of all accounts, bounded."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, policy: BreakerPolicy = DEFAULT_POLICY
    ) -> None:
        self._clock = clock
        self._policy = policy
        self._breakers: OrderedDict[BreakerKey, HostBreaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._breakers)

    def loads(self) -> dict[str, HostLoad]:
        """Return what the calls of each connector do now; any thread may ask."""
        loads: dict[str, HostLoad] = {}
        for (_, connector, _, _), breaker in self._breakers.copy().items():
            limit = breaker.limit
            if limit.in_flight or limit.waiting:
                before = loads.get(connector, HostLoad(0, 0, limit.value))
                loads[connector] = HostLoad(
                    before.in_flight + limit.in_flight,
                    before.waiting + limit.waiting,
                    min(before.lowest_limit, limit.value),
                )
        return loads

    def of(self, key: BreakerKey) -> HostBreaker:
        """Return the breaker of (tenant, connector, credential, host)."""
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = HostBreaker(key[3], self._clock, self._policy)
            if len(self._breakers) > self._policy.max_accounts:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return breaker
