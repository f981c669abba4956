"""The contract holds for a connector that asks for a process of its own; the test kit runs it in the test's."""

import os
from collections.abc import Mapping
from typing import Any

import pytest

from connectors.sdk import Connector, Context, Effect
from connectors.sdk.auth import ApiKey
from connectors.sdk.testing import Answer, Asked, ConnectorContract, FakeProvider, Via, run

pytestmark = pytest.mark.integration

shelf = Connector("shelf", credential=ApiKey, isolation="process")


@shelf.action(effect=Effect.KEYED)
async def put_note(ctx: Context[ApiKey], text: str) -> str:
    """Write a note under the job's key.

    Args:
        text: what to write.
    """
    api = ctx.http.at(ctx.credential.base_url, headers={"X-Api-Key": ctx.credential.key})
    await api.put(f"/notes/{ctx.key_digest}", json={"text": text})
    return ctx.key_digest


@put_note.undo
async def remove_note(ctx: Context[ApiKey]) -> None:
    """Remove the note, if it is there."""
    api = ctx.http.at(ctx.credential.base_url, headers={"X-Api-Key": ctx.credential.key})
    await api.delete(f"/notes/{ctx.key_digest}")


@shelf.action(effect=Effect.READ)
def process_id() -> int:
    """Return the process that it runs in."""
    return os.getpid()


class FakeShelf(FakeProvider):
    """Notes by id."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, str] = {}
        self.on("PUT", "/notes/{id}", self.put)
        self.on("DELETE", "/notes/{id}", self.remove)

    def put(self, asked: Asked) -> Any:
        self.notes[asked.names["id"]] = asked.json()["text"]
        return {}

    def remove(self, asked: Asked) -> Answer:
        self.notes.pop(asked.names["id"], None)
        return Answer(status=200)


class TestShelf(ConnectorContract):
    """All checks of the contract."""

    connector = shelf

    def provider(self) -> FakeShelf:
        return FakeShelf()

    def credential(self, provider: FakeShelf, via: Via) -> Mapping[str, Any]:
        return {"base_url": via(provider.url), "key": "a-secret-of-the-test"}

    def state(self, provider: FakeShelf) -> object:
        return dict(provider.notes)


async def test_the_kit_runs_it_in_the_process_of_the_test() -> None:
    ran = await run(
        shelf, "process_id", credential={"base_url": "https://a.example", "key": "a-secret-of-the-test"}
    )

    assert os.getpid() == ran.data
