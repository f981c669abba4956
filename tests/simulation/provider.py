"""The provider: where effects happen, and the way to it. A request that has left lands though its sender died."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Timeout,
    Unavailable,
)
from connectors.sdk.http.job_effects import JobEffects
from tests.simulation.choices import Choices
from tests.simulation.loop import Host

#: Seconds until a connection stands.
CONNECT_S: Final = (0.01, 0.3)
#: Parts of the time that is left of the action, after which a request lands.
LANDINGS: Final = (0.005, 0.2, 0.7, 0.97)
#: Seconds until an answer arrives.
ANSWERS_S: Final = (0.02, 0.5)
#: Seconds until a client gives up waiting for an answer.
CLIENT_TIMEOUT_S: Final = 2.0


@dataclass(slots=True)
class KeyState:
    """What is true of one key, and of its requests, by the journal."""

    #: Effects that happened, and that were taken back.
    landed: int = 0
    removed: int = 0
    #: An object under this key is there: what a repeated KEYED request finds.
    is_there: bool = False
    #: When and from which process requests left of which no answer proved that they did nothing.
    open: list[tuple[float, str]] = field(default_factory=list)
    #: How many requests left that were not answered by a refusal.
    unproven: int = 0
    #: Requests that are on their way.
    pending: int = 0
    #: Connections that are being made.
    connecting: int = 0
    #: When effects were taken back.
    removals: list[float] = field(default_factory=list)
    #: Requests to take it back: when and from which process each left, and those that may have done so.
    removals_sent: list[tuple[float, str]] = field(default_factory=list)
    removals_open: list[tuple[float, str]] = field(default_factory=list)
    #: How often a worker turned to the provider because of this key.
    asked: int = 0
    #: Times at which an effect happened.
    times: list[float] = field(default_factory=list)


class Provider:
    """The provider's machine and its journal."""

    def __init__(self, host: Host, choices: Choices, *, rate: float) -> None:
        self.host = host
        self.keys: defaultdict[str, KeyState] = defaultdict(KeyState)
        self.choices = choices
        self.rare = rate
        self.rejects: set[str] = set()
        self.refused_tokens: set[str] = set()
        self.away_until = 0.0
        self.counts: Counter[str] = Counter()

    @property
    def is_away(self) -> bool:
        """Whether it refuses connections."""
        return self.host.loop.time() < self.away_until

    def receive(
        self, key: str, token: str, sender: tuple[float, str], *, keyed: bool, within_s: float
    ) -> "asyncio.Future[int]":
        """Take a request that has left, and return the future of its status."""
        answer: asyncio.Future[int] = self.host.loop.create_future()
        self.keys[key].open.append(sender)
        self.keys[key].unproven += 1
        self.host.loop.note(sender[1], f"a request for {key} has left, to land within {within_s:.3f} s")
        self.host.spawn(self._process(answer, key, token, keyed=keyed, within_s=within_s))
        return answer

    async def _process(
        self, answer: "asyncio.Future[int]", key: str, token: str, *, keyed: bool, within_s: float
    ) -> None:
        pick, rare, state = self.choices.pick, self.rare, self.keys[key]
        state.pending += 1
        await asyncio.sleep(pick(LANDINGS, rare * 2) * within_s)
        state.pending -= 1
        if token in self.refused_tokens:
            await self._answer(answer, 401)
        elif key in self.rejects:
            await self._answer(answer, 422)
        elif pick((False, True), rare):
            await self._answer(answer, 429)
        elif pick((False, True), rare / 3):
            self.counts["lost requests"] += 1
        else:
            self._happen(key, keyed=keyed)
            await self._answer(answer, pick((201, 503), rare))

    def _happen(self, key: str, *, keyed: bool) -> None:
        state = self.keys[key]
        if not (keyed and state.is_there):
            state.landed += 1
            state.is_there = True
            state.times.append(self.host.loop.time())
        self.host.loop.note("provider", f"{key} landed, {state.landed} in all")

    async def _answer(self, answer: "asyncio.Future[int]", status: int) -> None:
        await asyncio.sleep(self.choices.pick(ANSWERS_S, self.rare))
        if not answer.done() and not self.choices.pick((False, True), self.rare):
            answer.set_result(status)

    def prove_unprocessed(self, key: str, sender: tuple[float, str], status: int) -> None:
        """Take note that a sender has learnt that its request did nothing; a rejected key never did anything."""
        state = self.keys[key]
        if sender in state.removals_open:
            state.removals_open.remove(sender)
        elif sender in state.open:
            state.open.remove(sender)
            state.unproven -= 1
        if status == 422:
            state.open.clear()

    def look_up(self, key: str) -> bool:
        """Return whether an effect is there; if not, and none is on its way, that is a proof."""
        state = self.keys[key]
        if not state.landed and not state.pending:
            state.open.clear()
        return state.is_there

    def receive_removal(
        self, key: str, sender: tuple[float, str], *, within_s: float
    ) -> "asyncio.Future[int]":
        """Take a request to take an effect back, and return the future of its status."""
        answer: asyncio.Future[int] = self.host.loop.create_future()
        self.keys[key].removals_sent.append(sender)
        self.keys[key].removals_open.append(sender)
        self.host.loop.note(sender[1], f"a request to remove {key} has left")
        self.host.spawn(self._remove(answer, key, within_s))
        return answer

    async def _remove(self, answer: "asyncio.Future[int]", key: str, within_s: float) -> None:
        await asyncio.sleep(self.choices.pick(LANDINGS, self.rare) * within_s)
        if self.choices.pick((False, True), self.rare / 2):
            await self._answer(answer, 403)
            return
        state = self.keys[key]  # the key is free again
        state.removed, state.is_there = state.landed, False
        state.removals.append(self.host.loop.time())
        self.host.loop.note("provider", f"{key} removed")
        await self._answer(answer, self.choices.pick((204, 503), self.rare))


class SimulatedHttp:
    """One worker's connections: the pool that its executor is given."""

    def __init__(self, provider: Provider, host: Host) -> None:
        self._provider = provider
        self._host = host

    def client(self, *, effects: JobEffects | None = None, **_account: Any) -> "SimulatedClient":
        """Create the client of one run."""
        return SimulatedClient(self._provider, self._host, effects or JobEffects())


class SimulatedClient:
    """`ctx.http`, as far as the simulation's actions use it; its doubts are counted as the real one counts them."""

    def __init__(self, provider: Provider, host: Host, effects: JobEffects) -> None:
        self._provider = provider
        self._host = host
        self._effects = effects

    async def write(self, key: str, part: str, token: str, *, keyed: bool, within_s: float) -> None:
        """Have the effect of a key, or a part of it.

        Args:
            within_s: of the beginning of the call; by then it has landed, or never will.
        """
        ends_at = self._host.begun_at[key] + within_s
        await self._send(key + part, partial(self._provider.receive, key + part, token, keyed=keyed), ends_at)

    async def remove(self, key: str, *, ends_at: float) -> None:
        """Take the effect of a key back."""
        await self._send(key, partial(self._provider.receive_removal, key), ends_at)

    async def is_there(self, key: str) -> bool:
        """Look up whether the effect of a key is there."""
        provider = self._provider
        await self._connect(key)
        if provider.choices.pick((False, True), provider.rare):
            raise Timeout("the provider did not answer", sent=Sent.NO)
        return provider.look_up(key)

    async def _send(self, key: str, receive: Callable[..., "asyncio.Future[int]"], ends_at: float) -> None:
        try:
            effect = self._effects.track()
            await self._connect(key)
            effect.record_sent()
            sender = (self._provider.host.loop.time(), self._host.name)
            answer = receive(sender, within_s=max(0.0, ends_at - sender[0]))
            await asyncio.wait({answer}, timeout=CLIENT_TIMEOUT_S)
            if not answer.done():
                raise Timeout("the provider did not answer", sent=Sent.UNCERTAIN)
            status = answer.result()
            if status >= 500:
                raise Unavailable("the provider failed", sent=Sent.UNCERTAIN)
            if status >= 400:
                effect.prove_unprocessed()
                self._provider.prove_unprocessed(key, sender, status)
                raise _REFUSALS[status]("refused", sent=Sent.ANSWERED)
        except ConnectorError as error:
            self._effects.cover(error, is_safe=False)
            raise

    async def _connect(self, key: str) -> None:
        provider = self._provider
        state = provider.keys[key]
        state.asked, state.connecting = state.asked + 1, state.connecting + 1
        await asyncio.sleep(provider.choices.pick(CONNECT_S, provider.rare))
        state.connecting -= 1
        if provider.is_away or provider.choices.pick((False, True), provider.rare / 2):
            raise Unavailable("the connection was refused", sent=Sent.NO)


_REFUSALS: Final[dict[int, type[ConnectorError]]] = {
    401: CredentialInvalid,
    403: PermissionDenied,
    422: Rejected,
    429: RateLimited,
}
