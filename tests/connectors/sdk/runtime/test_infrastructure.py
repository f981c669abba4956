"""Waiting for vault and ledger: the job waits, another has its slot, and no attempt is used up."""

import asyncio
from datetime import timedelta

import pytest

from connectors.sdk import ConnectorError
from connectors.sdk.runtime.deadline import Deadline
from connectors.sdk.runtime.infrastructure import HoldPolicy, Infrastructure, InfrastructureUnavailable
from connectors.sdk.runtime.outcome import Attempt, Snooze
from connectors.sdk.testing import FakeClock
from schemas.error import Code


class Vault:
    """A vault that is sealed until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.asked = 0
        self.waited_for = asyncio.Event()

    async def ask(self) -> str:
        self.asked += 1
        if not self.opened.is_set():
            raise InfrastructureUnavailable("the vault is sealed")
        return "secret"

    async def wait_available(self, timeout_s: float) -> bool:
        self.waited_for.set()
        return await self.opened.wait()


class Slots:
    """A slot that notes what its job does with it."""

    def __init__(self, *, has_room: bool = True) -> None:
        self.has_room = has_room
        self.events: list[str] = []

    def pause(self) -> bool:
        self.events.append("pause")
        return self.has_room

    async def resume(self) -> None:
        self.events.append("resume")

    def release(self) -> None: ...


def _attempt(clock: FakeClock, slot: Slots, *, in_s: float | None = None) -> Attempt:
    at = None if in_s is None else clock.now() + timedelta(seconds=in_s)
    return Attempt(Deadline(at, clock), slot=slot)


async def test_an_answer_at_once_keeps_the_slot() -> None:
    clock, vault, slot = FakeClock(), Vault(), Slots()
    vault.opened.set()

    answer = await Infrastructure(HoldPolicy(), clock).ask(
        vault.ask, vault.wait_available, _attempt(clock, slot)
    )

    assert ("secret", []) == (answer, slot.events)


async def test_a_job_waits_without_a_slot_and_asks_again() -> None:
    clock, vault, slot = FakeClock(), Vault(), Slots()
    infrastructure = Infrastructure(HoldPolicy(), clock)

    asking = asyncio.create_task(infrastructure.ask(vault.ask, vault.wait_available, _attempt(clock, slot)))
    await vault.waited_for.wait()
    paused = list(slot.events)
    vault.opened.set()

    assert "secret" == await asking
    assert (["pause"], ["pause", "resume"], 2) == (paused, slot.events, vault.asked)


async def test_a_hold_that_is_over_snoozes_the_job() -> None:
    clock, vault = FakeClock(), Vault()
    asking = asyncio.create_task(
        Infrastructure(HoldPolicy(hold_s=60), clock).ask(
            vault.ask, vault.wait_available, _attempt(clock, Slots())
        )
    )
    await vault.waited_for.wait()

    clock.skip(61)

    with pytest.raises(Snooze, match="the vault is sealed"):
        await asking


async def test_a_deadline_ends_the_waiting() -> None:
    clock, vault = FakeClock(), Vault()
    asking = asyncio.create_task(
        Infrastructure(HoldPolicy(hold_s=60), clock).ask(
            vault.ask, vault.wait_available, _attempt(clock, Slots(), in_s=5)
        )
    )
    await vault.waited_for.wait()

    clock.skip(6)

    with pytest.raises(ConnectorError) as caught:
        await asking
    assert Code.DEADLINE_EXCEEDED is caught.value.code


async def test_a_worker_that_stops_lets_no_job_wait() -> None:
    clock, vault = FakeClock(), Vault()
    infrastructure = Infrastructure(HoldPolicy(), clock)
    asking = asyncio.create_task(
        infrastructure.ask(vault.ask, vault.wait_available, _attempt(clock, Slots()))
    )
    await vault.waited_for.wait()

    infrastructure.stop()

    with pytest.raises(Snooze):
        await asking
    assert infrastructure.is_stopping


async def test_a_job_is_snoozed_if_too_many_wait_already() -> None:
    clock, vault = FakeClock(), Vault()

    with pytest.raises(Snooze):
        await Infrastructure(HoldPolicy(), clock).ask(
            vault.ask, vault.wait_available, _attempt(clock, Slots(has_room=False))
        )

    assert 1 == vault.asked


@pytest.mark.parametrize("has_room", [True, False])
async def test_a_question_without_an_answer_gives_up_slot_or_question(has_room: bool) -> None:
    clock, slot = FakeClock(), Slots(has_room=has_room)
    paused = asyncio.Event()
    go_on = asyncio.Event()

    def pause() -> bool:
        paused.set()
        return has_room

    slot.pause = pause  # type: ignore[method-assign]

    async def hang() -> str:
        await go_on.wait()
        return "late"

    async def wait_available(_timeout_s: float) -> bool:
        return True

    asking = asyncio.create_task(
        Infrastructure(HoldPolicy(prompt_s=0.001), clock).ask(
            hang, wait_available, _attempt(clock, slot), may_abandon=True
        )
    )
    await paused.wait()
    if has_room:
        go_on.set()
        assert "late" == await asking
    else:
        with pytest.raises(Snooze, match="too many jobs wait"):
            await asking
