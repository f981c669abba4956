"""The appointment through the broker and two workers: one event, whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from connectors.sandbox.google.server import DEVELOPER, Fault, GoogleSandbox
from tests.conftest import StartWorker
from tests.support.rpc import ExternalClient, job
from tests.support.worker_process import WorkerProcess
from worker.dev.openbao import PrivateOpenBao
from worker.dev.postgres import PrivatePostgres

pytestmark = pytest.mark.integration

DAY = (datetime.now(UTC) + timedelta(days=30)).date()
VISIT: dict[str, Any] = {
    "summary": "Visit",
    "start": f"{DAY}T10:00",
    "duration_minutes": 30,
    "time_zone": "Europe/Istanbul",
}


@pytest.fixture
async def google() -> AsyncIterator[GoogleSandbox]:
    async with GoogleSandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def settings(
    google: GoogleSandbox, openbao: PrivateOpenBao, postgres: PrivatePostgres, tmp_path: Path
) -> dict[str, str]:
    """What two workers share: the vault with the credential, the ledger, the calendar."""
    await openbao.put_secret("connectors/default/google_calendar/default", google.credential())
    role = await openbao.enable_approle()
    secret_id = tmp_path / "secret-id"
    secret_id.touch(mode=0o600)
    secret_id.write_text(role.secret_id.get_secret_value())
    return {
        "enabled": "google_calendar",
        "vault_url": openbao.url,
        "vault_auth": "approle",
        "vault_role_id": role.role_id,
        "vault_secret_id_file": str(secret_id),
        "database_url": await postgres.create_database(f"test_{uuid4().hex}"),
        **{name.lower(): value for name, value in google.settings.items()},
    }


async def call_at_once(url: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Publish jobs together and wait for their replies, off the loop, which the sandbox needs."""

    def call() -> list[dict[str, Any]]:
        with ExternalClient(url) as client:
            sent = [client.send(each) for each in jobs]
            replies = client.wait(sent, 60)
            assert {1} == {len(replies[each]) for each in sent}
            return [replies[each][0] for each in sent]

    return await asyncio.to_thread(call)


def booked(google: GoogleSandbox) -> list[str]:
    events = google.store.calendars[DEVELOPER].events.values()
    return [event["id"] for event in events if event["status"] == "confirmed"]


def left(google: GoogleSandbox) -> int:
    events = google.store.calendars[DEVELOPER].events.values()
    return sum(event["status"] != "cancelled" for event in events)


async def test_of_fifty_bookings_on_two_workers_exactly_one_gets_the_time(
    google: GoogleSandbox, settings: dict[str, str], broker_url: str, start_worker: StartWorker
) -> None:
    await asyncio.gather(*(start_worker(broker_url, **settings) for _ in range(2)))
    google.delay_s = 0.02

    replies = await call_at_once(
        broker_url, [job("google_calendar", "book_appointment", VISIT) for _ in range(50)]
    )

    won = [reply for reply in replies if reply["status"] == "succeeded"]
    lost = [reply["error"] for reply in replies if reply["status"] == "failed"]
    assert 1 == len(won)
    assert {"CONFLICT"} == {error["code"] for error in lost}
    assert all(error["data"]["alternatives"] for error in lost)
    assert [won[0]["data"]["event_id"]] == booked(google)
    assert 1 == left(google)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("operation", "does_work"),
    # The claim is laid, and nobody was told; the confirmation is on its way, and lands after the death.
    [("events.insert", True), ("events.patch", False)],
)
async def test_a_booking_whose_worker_is_killed_is_one_event_and_one_reply(
    google: GoogleSandbox,
    settings: dict[str, str],
    broker_url: str,
    start_worker: StartWorker,
    operation: str,
    does_work: bool,
) -> None:
    first: WorkerProcess = await start_worker(broker_url, **settings)
    fault = Fault(operation, until=asyncio.Event(), does_work=does_work)
    google.faults.add(fault)
    calling = asyncio.create_task(
        call_at_once(broker_url, [job("google_calendar", "book_appointment", VISIT)])
    )
    await asyncio.wait_for(fault.met.wait(), 20)

    first.kill()
    assert fault.until is not None
    fault.until.set()
    await start_worker(broker_url, **settings)
    (reply,) = await calling

    assert ("succeeded", 2) == (reply["status"], reply["attempts"])
    assert [reply["data"]["event_id"]] == booked(google)
    assert 1 == left(google)


async def test_an_undone_booking_is_gone_and_its_time_free_again(
    google: GoogleSandbox, settings: dict[str, str], broker_url: str, start_worker: StartWorker
) -> None:
    await start_worker(broker_url, **settings)
    book: dict[str, Any] = {"connector": "google_calendar", "action": "book_appointment", "params": VISIT}

    replies = [
        (await call_at_once(broker_url, [job(**{**book, **more})]))[0]
        for more in (
            {"idempotency_key": "a"},
            {"idempotency_key": "a", "mode": "undo"},
            {"idempotency_key": "b"},
            {"idempotency_key": "a"},
        )
    ]

    assert ["succeeded", "succeeded", "succeeded", "failed"] == [reply["status"] for reply in replies]
    assert "undone" == replies[3]["error"]["data"]["outcome"]
    assert [replies[2]["data"]["event_id"]] == booked(google)
