"""The appointment: found and booked while its worker is killed in the middle of the call; one event, one reply."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from connectors.sandbox.google.server import DEVELOPER, DEVELOPER_ZONE, Fault, GoogleSandbox
from schemas.job import Job
from schemas.result import Result
from worker.client import ConnectorsClient
from worker.dev.demo_output import DemoOutput
from worker.dev.stack import Stack

_TIMEOUT_S: Final = 30.0
#: Callers who want one time at once.
CROWD: Final = 10


async def show_appointment(stack: Stack, client: ConnectorsClient, output: DemoOutput) -> bool:
    """Show the scenario on the sandbox's calendar; return whether it ended as it should."""
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
    output.step("A caller asks when there is time tomorrow morning", find)
    found = await send(find)
    if found.error is not None:
        output.reply(found)
        return False
    slots = found.data["slots"]
    output.reply(found, ", ".join(_clock(slot["start"]) for slot in slots))
    return all(
        [
            await _killed_in_the_middle(stack, google, send, output, slots[0]["start"]),
            await _too_late(send, output, slots[0]["start"]),
            await _crowd(google, send, output, slots[1]["start"]),
        ]
    )


async def _killed_in_the_middle(
    stack: Stack, google: GoogleSandbox, send: Callable[[Job], Any], output: DemoOutput, start: str
) -> bool:
    assert stack.worker is not None
    book = _booking(start, "Check-up, Ada Lovelace")
    output.step(f"She takes {_clock(start)}, and the worker dies in the middle of the call", book)
    # The calendar stores the appointment and withholds its response.
    fault = Fault("events.patch", until=asyncio.Event(), does_work=True)
    google.faults.add(fault)
    waiting = asyncio.create_task(send(book))
    await asyncio.wait(
        {waiting, met := asyncio.create_task(fault.met.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    met.cancel()
    if waiting.done():
        output.reply(waiting.result())
        return False
    output.fact("calendar", "has the appointment; its response is on the way")
    await stack.worker.kill()
    output.fact("worker", "killed with -9: it never receives that response")
    await stack.start_worker()
    output.fact("worker", "restarted; the broker delivers the job again")
    output.fact("", "(the dead worker's lease expires first: 15 s, 2 s in this demo)")
    booked: Result = await waiting
    output.reply(booked, _outcome(booked))
    again: Result = await send(book)
    output.fact("sent again", "the same job, as a careful caller would")
    output.reply(again, _outcome(again))
    events = _events(google)
    output.fact("calendar", f"{_count(len(events), 'event')}: {', '.join(events)}")
    return booked.status == "succeeded" and again.data == booked.data and len(events) == 1


async def _too_late(send: Callable[[Job], Any], output: DemoOutput, start: str) -> bool:
    late = _booking(start, "Kontrol, Barış Manço").model_copy(update={"locale": "tr"})
    output.step("Another caller, who speaks Turkish, wants the same time", late)
    refused: Result = await send(late)
    output.reply(refused, _outcome(refused))
    alternatives = [] if refused.error is None else (refused.error.data or {}).get("alternatives", [])
    output.fact("instead", ", ".join(_clock(each["start"]) for each in alternatives))
    return bool(alternatives)


async def _crowd(google: GoogleSandbox, send: Callable[[Job], Any], output: DemoOutput, start: str) -> bool:
    output.title(f"{CROWD} callers want {_clock(start)} at the same moment")
    before = len(_events(google))
    replies = await asyncio.gather(*(send(_booking(start, f"Caller {n}")) for n in range(1, CROWD + 1)))
    won = [reply for reply in replies if reply.status == "succeeded"]
    lost = [reply for reply in replies if reply.error is not None and reply.error.code == "CONFLICT"]
    new = len(_events(google)) - before
    output.fact("replies", f"{len(won)} succeeded, {len(lost)} CONFLICT, each with other times")
    output.fact("calendar", f"{_count(new, 'new event')}")
    return (len(won), len(lost), new) == (1, CROWD - 1, 1)


def _booking(start: str, summary: str) -> Job:
    return _job(
        "book_appointment", summary=summary, start=start, duration_minutes=30, time_zone=DEVELOPER_ZONE
    )


def _job(action: str, **params: Any) -> Job:
    return Job(id=f"demo-{uuid4().hex[:8]}", connector="google_calendar", action=action, params=params)


def _outcome(result: Result) -> str | None:
    return None if result.error is not None else f"{_clock(result.data['start'])}, {result.data['status']}"


def _events(google: GoogleSandbox) -> list[str]:
    stored = google.store.calendars[DEVELOPER].events.values()
    return [event["summary"] for event in stored if event["status"] != "cancelled"]


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%H:%M")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
