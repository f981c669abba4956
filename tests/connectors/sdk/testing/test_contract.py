"""The contract finds what is wrong: for each check a connector that breaks it."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import httpx
import pytest
from pydantic import Field

from connectors.sdk import Connector, ConnectorError, Context, Effect, Unavailable
from connectors.sdk.auth import ApiKey
from connectors.sdk.errors import Code, Sent
from connectors.sdk.testing import Answer, Asked, ConnectorContract, FakeProvider, Via

pytestmark = pytest.mark.integration

SECRET = "a-secret-of-the-test"


class Notes(FakeProvider):
    """Notes that anybody may write, each time anew; and rooms that know keys."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.on("POST", "/notes", self.write)
        self.on("GET", "/notes", lambda _asked: list(self.notes))
        self.on("DELETE", "/notes", self.clear)

    def write(self, asked: Asked) -> Any:
        self.notes.append(asked.json()["text"])
        return {"count": len(self.notes)}

    def clear(self, _asked: Asked) -> Answer:
        if not self.notes:
            return Answer({"error": "nothing is there"}, status=404)
        self.notes.clear()
        return Answer(status=200)


def findings(build: Callable[[Connector[ApiKey]], Any], check: str) -> str:
    """Make one check of one bad connector, and give what it found."""
    bad = Connector("bad", credential=ApiKey)
    build(bad)

    class Contract(ConnectorContract):
        connector = bad

        def provider(self) -> Notes:
            return Notes()

        def credential(self, provider: Notes, via: Via) -> Mapping[str, Any]:
            return {"base_url": via(provider.url), "key": SECRET}

        def failures(self, action: str, provider: Notes) -> Mapping[Code, Mapping[str, Any]]:
            return {Code.NOT_FOUND: self.example(action, provider)}

        def state(self, provider: Notes) -> object:
            return list(provider.notes)

    contract = Contract()
    function = getattr(contract, check)
    contract.setup_method(function)
    try:
        function()
    except AssertionError as found:
        return str(found)
    return ""


def without_docs(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look() -> str:
        return ""


def without_return(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look():  # type: ignore[no-untyped-def]
        """Look."""


def without_types(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look(thing: Any) -> str:
        """Look."""
        return ""


def reading_that_writes(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look(ctx: Context[ApiKey], text: str) -> Any:
        """Look."""
        return (await ctx.credential.api(ctx).post("/notes", json={"text": text})).json()


def writing_again(effect: Effect) -> Callable[[Connector[ApiKey]], None]:
    def build(bad: Connector[ApiKey]) -> None:
        @bad.action(effect=effect)
        async def write(ctx: Context[ApiKey], text: str) -> Any:
            """Write."""
            return (await ctx.credential.api(ctx).post("/notes", json={"text": text})).json()

        @write.undo
        async def clear(ctx: Context[ApiKey]) -> None:
            await ctx.credential.api(ctx).delete("/notes")

    return build


def leaking(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look(ctx: Context[ApiKey]) -> str:
        """Look."""
        ctx.log.info("calling", header=f"X-Api-Key {ctx.credential.key.get_secret_value()}")
        return "fine"


def quoting(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look(ctx: Context[ApiKey]) -> str:
        """Look."""
        response = await ctx.credential.api(ctx).get("/notes", raise_for_status=False)
        if response.status_code >= 400:
            raise ConnectorError(response.text, code=Code.REJECTED)
        return json.dumps(json.loads(response.content))


def lying_about_what_was_sent(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.WRITE)
    async def write(ctx: Context[ApiKey], text: str) -> Any:
        """Write through a client of its own, of which the runtime knows nothing."""
        try:
            async with httpx.AsyncClient(base_url=str(ctx.credential.base_url)) as client:
                return (await client.post("/notes", json={"text": text})).json()
        except httpx.HTTPError:
            raise Unavailable("refused", sent=Sent.NO) from None


def swallowing(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look(ctx: Context[ApiKey]) -> str:
        """Look."""
        for _ in range(40):
            try:
                await ctx.credential.api(ctx).get("/notes")
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)
        return ""


def without_example(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.KEYED)
    async def write(day: Annotated[str, Field(pattern="^[0-9]+$")]) -> str:
        """Write."""
        return day


def blocking(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.READ)
    async def look() -> str:
        """Look."""
        time.sleep(1.2)
        return ""


def breaking_on_odd_keys(bad: Connector[ApiKey]) -> None:
    @bad.action(effect=Effect.KEYED)
    async def write(ctx: Context[ApiKey]) -> str:
        """Write."""
        await ctx.credential.api(ctx).get(f"/notes/{ctx.idempotency_key}")
        return ""


@pytest.mark.parametrize(
    ("build", "check", "said"),
    [
        (without_docs, "test_every_action_says_what_it_does", "has no docstring"),
        (without_return, "test_every_action_says_what_it_returns", "does not say what it returns"),
        (without_types, "test_every_parameter_has_a_closed_and_typed_schema", "of any type"),
        (reading_that_writes, "test_every_action_does_its_work", "is declared READ, and changes something"),
        (writing_again(Effect.KEYED), "test_the_same_key_has_one_effect", "has a second effect"),
        (
            writing_again(Effect.KEYED),
            "test_a_connection_cut_after_the_work_has_one_effect",
            "another effect",
        ),
        (
            writing_again(Effect.KEYED),
            "test_an_undo_takes_the_effect_back_and_may_come_twice",
            "fails to undo what is not there any more: NotFound",
        ),
        (leaking, "test_secrets_never_come_out", "lets a secret out in: log"),
        (quoting, "test_secrets_never_come_out", "lets a secret out in: error"),
        (quoting, "test_whatever_the_provider_refuses_with_becomes_a_declared_code", "own words"),
        (
            quoting,
            "test_whatever_the_provider_refuses_with_becomes_a_declared_code",
            "REJECTED at status 403",
        ),
        (quoting, "test_an_answer_that_is_no_answer_is_an_error_and_no_bug", "breaks on a garble answer"),
        (lying_about_what_was_sent, "test_a_connection_cut_after_the_work_has_one_effect", "another effect"),
        (swallowing, "test_a_cancelled_run_ends_at_once", "goes on for 2 s"),
        (
            writing_again(Effect.WRITE),
            "test_each_failure_has_the_code_that_is_declared",
            "is to fail with NOT_FOUND, and ends in None",
        ),
        (
            writing_again(Effect.WRITE),
            "test_each_failure_has_the_code_that_is_declared",
            "fails with NOT_FOUND; declare it in errors=",
        ),
        (without_example, "test_every_action_has_an_example_that_fits", "refuses its own example"),
        (
            without_example,
            "test_the_same_key_has_one_effect",
            "does not take its own example: INVALID_PARAMS",
        ),
        (blocking, "test_the_loop_is_never_held_up", "holds the loop"),
        (breaking_on_odd_keys, "test_every_printable_key_is_taken", "a key of odd characters"),
    ],
)
def test_what_is_wrong_is_found(build: Callable[[Connector[ApiKey]], Any], check: str, said: str) -> None:
    assert said in findings(build, check)


def test_an_honest_write_passes_the_cut() -> None:
    assert "" == findings(writing_again(Effect.WRITE), "test_a_connection_cut_after_the_work_has_one_effect")
