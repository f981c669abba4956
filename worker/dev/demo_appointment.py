"""The appointment: found, booked, its worker killed in the middle of the call; one event, one answer."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from connectors.sandbox.google.server import DEVELOPER, DEVELOPER_ZONE, Fault, GoogleSandbox
from schemas.job import Job
from schemas.result import Result
from worker.client import ConnectorsClient
from worker.dev.narrator import Narrator
from worker.dev.stack import Stack

_TIMEOUT_S: Final = 30.0
#: Callers who want one time at once.
CROWD: Final = 10


async def tell_appointment(stack: Stack, client: ConnectorsClient, tell: Narrator) -> bool:
    """Tell the story on the sandbox's calendar; True where it ended as it should."""
    google = next(each for each in stack.sandboxes if isinstance(each, GoogleSandbox))

    async def send(job: Job) -> Result:
        return await client.send(job, timeout_s=_TIMEOUT_S)

    day = (datetime.now(UTC) + timedelta(days=1)).date()
    find = _job(
        "find_available_slots",
        range_start=f"{day}T09:00",
        range_end=f"{day}T12:00",
        duration_minutes=30,
        limit=4,
        time_zone=DEVELOPER_ZONE,
    )
    tell.step("A caller asks when there is time tomorrow morning", find)
    found = await send(find)
    if found.error is not None:
        tell.answer(found)
        return False
    slots = found.data["slots"]
    tell.answer(found, ", ".join(_clock(slot["start"]) for slot in slots))
    return all(
        [
            await _killed_in_the_middle(stack, google, send, tell, slots[0]["start"]),
            await _too_late(send, tell, slots[0]["start"]),
            await _crowd(google, send, tell, slots[1]["start"]),
        ]
    )


async def _killed_in_the_middle(
    stack: Stack, google: GoogleSandbox, send: Callable[[Job], Any], tell: Narrator, start: str
) -> bool:
    assert stack.worker is not None
    book = _booking(start, "Check-up, Ada Lovelace")
    tell.step(f"She takes {_clock(start)}, and the worker dies in the middle of the call", book)
    # The calendar confirms the appointment, and keeps its answer to itself.
    fault = Fault("events.patch", until=asyncio.Event(), does_work=True)
    google.faults.add(fault)
    waiting = asyncio.create_task(send(book))
    await asyncio.wait(
        {waiting, met := asyncio.create_task(fault.met.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    met.cancel()
    if waiting.done():
        tell.answer(waiting.result())
        return False
    tell.fact("calendar", "has the appointment; its answer is on the way")
    await stack.worker.kill()
    tell.fact("worker", "killed with -9: it never hears that answer")
    await stack.start_worker()
    tell.fact("worker", "restarted; the broker delivers the job again")
    tell.fact("", "(the dead worker's lease runs out first: 15 s, 2 s in this demo)")
    booked: Result = await waiting
    tell.answer(booked, _told(booked))
    again: Result = await send(book)
    tell.fact("sent again", "the same job, as a careful caller would")
    tell.answer(again, _told(again))
    events = _events(google)
    tell.fact("calendar", f"{_count(len(events), 'event')}: {', '.join(events)}")
    return booked.status == "succeeded" and again.data == booked.data and len(events) == 1


async def _too_late(send: Callable[[Job], Any], tell: Narrator, start: str) -> bool:
    late = _booking(start, "Kontrol, Barış Manço").model_copy(update={"locale": "tr"})
    tell.step("Another caller, who speaks Turkish, wants the same time", late)
    refused: Result = await send(late)
    tell.answer(refused, _told(refused))
    alternatives = [] if refused.error is None else (refused.error.data or {}).get("alternatives", [])
    tell.fact("instead", ", ".join(_clock(each["start"]) for each in alternatives))
    return bool(alternatives)


async def _crowd(google: GoogleSandbox, send: Callable[[Job], Any], tell: Narrator, start: str) -> bool:
    tell.title(f"{CROWD} callers want {_clock(start)} at the same moment")
    before = len(_events(google))
    replies = await asyncio.gather(*(send(_booking(start, f"Caller {n}")) for n in range(1, CROWD + 1)))
    won = [reply for reply in replies if reply.status == "succeeded"]
    lost = [reply for reply in replies if reply.error is not None and reply.error.code == "CONFLICT"]
    new = len(_events(google)) - before
    tell.fact("answered", f"{len(won)} succeeded, {len(lost)} CONFLICT, each with other times")
    tell.fact("calendar", f"{_count(new, 'new event')}")
    return (len(won), len(lost), new) == (1, CROWD - 1, 1)


def _booking(start: str, summary: str) -> Job:
    return _job(
        "book_appointment", summary=summary, start=start, duration_minutes=30, time_zone=DEVELOPER_ZONE
    )


def _job(action: str, **params: Any) -> Job:
    return Job(id=f"demo-{uuid4().hex[:8]}", connector="google_calendar", action=action, params=params)


def _told(result: Result) -> str | None:
    return None if result.error is not None else f"{_clock(result.data['start'])}, {result.data['status']}"


def _events(google: GoogleSandbox) -> list[str]:
    stored = google.store.calendars[DEVELOPER].events.values()
    return [event["summary"] for event in stored if event["status"] != "cancelled"]


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%H:%M")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
