"""The test kit: one action run as a worker would."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, SecretStr

from connectors.sdk import (
    Connector,
    Context,
    Effect,
    NotFound,
    Personal,
    RateLimited,
    Timeout,
    Unavailable,
)
from connectors.sdk.errors import Code, Sent
from connectors.sdk.testing import Answer, FakeClock, FakeProvider, Kit, run


class Secret(BaseModel):
    password: SecretStr


shop = Connector("shop", credential=Secret)
DOCUMENT = {"password": "hunter2-of-the-test"}

#: What the next runs of `do` raise, one after the other; then it succeeds.
failures: list[Exception] = []
done: list[str] = []
#: Set by the action that hangs.
hanging = asyncio.Event()


@shop.action(effect=Effect.READ)
async def look(ctx: Context[Secret], phone: Personal[str] = "") -> str:
    """Look."""
    ctx.progress("half way")
    ctx.log.info(f"looking for {phone}", password=ctx.credential.password.get_secret_value())
    if failures:
        raise failures.pop(0)
    return "seen"


@shop.action(effect=Effect.WRITE)
async def do(ctx: Context[Secret]) -> str:
    """Do."""
    done.append(ctx.idempotency_key)
    if failures:
        raise failures.pop(0)
    return "done"


@shop.action(effect=Effect.WRITE, timeout_s=0.2)
async def found_again(ctx: Context[Secret]) -> str:
    """Do what can be found again."""
    return await do(ctx)


@found_again.reconcile
async def find(ctx: Context[Secret]) -> str | None:
    return "found" if ctx.idempotency_key in done else None


@found_again.undo
async def take_back(ctx: Context[Secret], result: str | None) -> None:
    while ctx.idempotency_key in done:
        done.remove(ctx.idempotency_key)


@shop.action(effect=Effect.READ, timeout_s=0.1)
async def dawdle() -> None:
    """Take too long."""
    await asyncio.sleep(60)


@shop.action(effect=Effect.READ)
async def hang_once(ctx: Context[Secret]) -> str:
    """Hang at the first try."""
    if ctx.attempt == 1:
        hanging.set()
        await asyncio.sleep(60)
    return "there"


@shop.action(effect=Effect.READ)
def block() -> str:
    """Block."""
    time.sleep(0.01)
    return "blocked"


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    failures.clear()
    done.clear()


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with Kit(shop, credential=DOCUMENT) as kit:
        yield kit


async def test_one_action_runs_in_one_line() -> None:
    assert "seen" == (await run(shop, look, credential=DOCUMENT)).data


async def test_parameters_are_checked_as_the_worker_checks_them(kit: Kit) -> None:
    assert Code.INVALID_PARAMS is (await kit.run(look, {"phone": 1})).code
    assert Code.ACTION_NOT_FOUND is (await kit.run("nothing")).code
    assert {"valid": True} == (await kit.run(look, mode="validate")).data


async def test_a_credential_that_does_not_fit_is_named() -> None:
    wrong = await run(shop, look, credential={"pass": "x"})
    none = await run(shop, look)

    assert (Code.CREDENTIAL_INVALID, Code.CREDENTIAL_NOT_FOUND) == (wrong.code, none.code)
    assert "password: is required" in wrong.message


async def test_retries_are_counted_and_their_waits_skipped(kit: Kit) -> None:
    failures.extend([RateLimited("slow down", retry_after_s=20), Unavailable("down")])

    ran = await kit.run(look)

    assert ("seen", 3, (20.0, 5.0)) == (ran.data, ran.attempts, ran.waits_s)


async def test_tries_that_are_used_up_dead_letter_the_job(kit: Kit) -> None:
    failures.extend([Unavailable("down")] * 5)

    ran = await kit.run(look)

    assert (Code.UNAVAILABLE, 5, True) == (ran.code, ran.attempts, ran.dead_lettered)


async def test_what_the_caller_can_fix_is_not_tried_again(kit: Kit) -> None:
    failures.append(NotFound("there is none"))

    ran = await kit.run(look)

    assert (Code.NOT_FOUND, 1, False) == (ran.code, ran.attempts, ran.dead_lettered)


async def test_an_uncertain_write_is_unknown_and_stays_so(kit: Kit) -> None:
    failures.append(Timeout("no answer"))

    first, second = await kit.run(do, key="k"), await kit.run(do, key="k")

    assert (Code.OUTCOME_UNKNOWN, Code.OUTCOME_UNKNOWN) == (first.code, second.code)
    assert ["k"] == done


async def test_a_write_that_certainly_never_left_is_retried(kit: Kit) -> None:
    failures.append(Unavailable("refused", sent=Sent.NO))

    assert ("done", 2) == ((ran := await kit.run(do)).data, ran.attempts)


async def test_an_uncertain_write_is_found_by_its_reconcile(kit: Kit) -> None:
    failures.append(Timeout("no answer"))

    ran = await kit.run(found_again, key="k")

    assert ("found", ["k"]) == (ran.data, done)


async def test_a_key_has_one_effect_and_one_meaning(kit: Kit) -> None:
    first, again = await kit.run(do, key="k"), await kit.run(do, key="k")

    assert (False, True, ["k"]) == (first.replayed, again.replayed, done)


async def test_an_undo_takes_back_and_nothing_runs_under_its_key(kit: Kit) -> None:
    await kit.run(found_again, key="k")
    undone = await kit.run(found_again, key="k", mode="undo")
    again = await kit.run(found_again, key="k")

    assert ({"undone": True}, []) == (undone.data, done)
    assert (Code.CONFLICT, {"outcome": "undone"}) == (
        again.code,
        again.result.error and again.result.error.data,
    )


async def test_too_long_is_a_timeout_and_a_bug_is_a_bug(kit: Kit) -> None:
    failures.append(ZeroDivisionError("a secret in a text"))

    late, bug = await kit.run(dawdle), await kit.run(look)

    assert (Code.TIMEOUT, Code.CONNECTOR_ERROR) == (late.code, bug.code)
    assert "a secret in a text" not in bug.message


async def test_a_call_is_ended_before_its_time_and_the_next_try_is_not(kit: Kit) -> None:
    running = asyncio.create_task(kit.run(hang_once))
    await hanging.wait()
    kit.end_calls()

    ran = await running

    assert ("there", 2) == (ran.data, ran.attempts)


async def test_deadlines_are_kept_by_the_clock() -> None:
    clock = FakeClock(datetime(2026, 11, 1, tzinfo=UTC))
    async with Kit(shop, credential=DOCUMENT, clock=clock) as kit:
        failures.extend([Unavailable("down")] * 5)
        deadline = clock.now() + timedelta(seconds=3)

        ran = await kit.run(look, deadline=deadline)
        late = await kit.run(look, deadline=clock.now())

    assert (Code.DEADLINE_EXCEEDED, 2) == (ran.code, ran.attempts)
    assert (Code.DEADLINE_EXCEEDED, 0) == (late.code, late.attempts)


async def test_secrets_and_personal_data_are_masked_and_leaks_named(kit: Kit) -> None:
    ran = await kit.run(look, {"phone": "+905321112233"})

    assert ("looking for ***", "***") == (ran.logs[0]["event"], ran.logs[0]["password"])
    assert {"phone": "***"} == ran.params
    assert ("log",) == ran.leaks
    assert ("half way",) == ran.notes


async def test_a_blocking_function_runs_in_a_thread(kit: Kit) -> None:
    assert "blocked" == (await kit.run(block)).data


@pytest.mark.integration
async def test_the_fake_provider_answers_scripts_routes_and_journals() -> None:
    async with FakeProvider() as provider, Kit(shop, credential=DOCUMENT) as kit:
        provider.on("GET", "/orders/{id}", lambda asked: {"id": asked.names["id"]})
        provider.script(Answer({"wait": True}, status=503), Answer(instead="cut"))
        api = kit.context(look, {}, key="k").http.at(provider.url)

        codes = []
        for _ in range(2):
            try:
                await api.get("/orders/17")
            except Unavailable as error:
                codes.append(error.sent)
        found = (await api.get("/orders/17")).json()
        missing = await api.get("/nothing", raise_for_status=False)

    assert [Sent.NO, Sent.NO] == codes
    assert ({"id": "17"}, 404) == (found, missing.status_code)
    assert ["GET /orders/17"] * 3 + ["GET /nothing"] == provider.paths


@pytest.mark.integration
async def test_an_answer_that_is_no_json_is_the_providers_failure() -> None:
    async with FakeProvider() as provider, Kit(shop, credential=DOCUMENT) as kit:
        provider.on("GET", "/", Answer(body=b"<html>"))
        response = await kit.context(look, {}, key="k").http.at(provider.url).get("/")

    with pytest.raises(Unavailable, match="did not return JSON"):
        response.json()
