"""One rule for what is taken: search, check, booking and alternatives agree, whatever is on the calendar."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.google_calendar import google_calendar
from connectors.google_calendar.zones import zone_named
from connectors.sandbox.google import GoogleSandbox
from connectors.sdk.errors import Conflict
from connectors.sdk.http.client import HttpPolicy, HttpPool
from tests.support.desk import OWNER, Desk

pytestmark = pytest.mark.integration

ZONE = zone_named("America/New_York")
#: The Sunday on which clocks go forward there, and its neighbours.
FIRST = datetime(2037, 3, 7, tzinfo=ZONE)
SPAN_MINUTES = 3 * 1440

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tentative": {"status": "tentative"},
    "transparent": {"transparency": "transparent"},
    "declined": {"attendees": [{"email": OWNER, "responseStatus": "declined"}]},
    "working location": {"eventType": "workingLocation", "transparency": "transparent"},
    "focus time": {"eventType": "focusTime"},
    "hold": {"status": "tentative", "extendedProperties": {"private": {"connectors_claim": "open"}}},
    "old hold": {"status": "tentative", "extendedProperties": {"private": {"connectors_claim": "open"}}},
}
events = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.integers(0, SPAN_MINUTES // 15).map(lambda quarter: quarter * 15),
        st.sampled_from([0, 15, 30, 60, 100, 1440]),
    ),
    max_size=8,
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "working_hours": st.just(
            {day: [["09:00", "12:00"], ["13:00", "17:30"]] for day in ("sat", "sun", "mon")}
        ),
        "closed_dates": st.just(["2037-03-09"]),
        "buffer_before_minutes": st.sampled_from([5, 30]),
        "buffer_after_minutes": st.sampled_from([10, 45]),
        "calendars": st.just(["primary", "room@example.com"]),
    },
)
starts = st.lists(
    st.integers(0, SPAN_MINUTES // 15).map(lambda quarter: quarter * 15), min_size=3, max_size=3
)


def when(minutes: int) -> str:
    """Return an instant of the three days."""
    return (FIRST.astimezone(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def run_on(placed: list[tuple[str, int, int]], work: Callable[[Desk], Awaitable[None]]) -> None:
    """Run work on a calendar with these events, every other of them in the room's."""

    async def run() -> None:
        async with GoogleSandbox() as google:
            google.store.add_account(OWNER, time_zone=ZONE.key)
            google.store.add_calendar("room@example.com", owner=OWNER, time_zone=ZONE.key)
            for number, (kind, start, minutes) in enumerate(placed):
                put(google, number, kind, start, minutes)
            pool = HttpPool(HttpPolicy())
            try:
                with api_of(google):
                    await work(Desk(google, pool, google.authority.authorized_user(OWNER)))
            finally:
                await pool.close()

    asyncio.run(run())


def within(periods: list[dict[str, str]], start: int) -> list[tuple[datetime, datetime]]:
    """Return what periods take of the half hour from a start; whole events or cut ones, in any zone."""
    first, last = (datetime.fromisoformat(when(minutes)) for minutes in (start, start + 30))
    return [
        (max(first, datetime.fromisoformat(each["start"])), min(last, datetime.fromisoformat(each["end"])))
        for each in periods
    ]


@contextmanager
def api_of(google: GoogleSandbox) -> Iterator[None]:
    """Let the connector call this sandbox."""
    before = dict(google_calendar.settings)
    google_calendar.settings["api_url"] = google.url
    try:
        yield
    finally:
        google_calendar.settings.clear()
        google_calendar.settings.update(before)


def put(
    google: GoogleSandbox, number: int, kind: str, start: int, minutes: int, *, event_id: str = ""
) -> None:
    """Write an event into a calendar as somebody else would."""
    age = timedelta(days=3) if kind == "old hold" else timedelta(0)
    event = {
        "id": event_id or f"event{number}",
        "iCalUID": f"event{number}",
        "status": "confirmed",
        "summary": kind,
        "eventType": "default",
        "created": (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "start": {"dateTime": when(start)},
        "end": {"dateTime": when(start + minutes)},
        **KINDS[kind],
    }
    google.store.stamp(event)
    google.store.calendars["room@example.com" if number % 3 == 2 else OWNER].events[event["id"]] = event


async def tries(desk: Desk, start: str, action: str = "book_appointment", **given: Any) -> Conflict | None:
    """Ask for a time, and take it off the calendar again; return the refusal."""
    before = {name: dict(calendar.events) for name, calendar in desk.google.store.calendars.items()}
    try:
        await desk(action, start=start, duration_minutes=30, **(given or {"summary": "Visit"}))
    except Conflict as conflict:
        return conflict
    finally:
        for name, calendar in desk.google.store.calendars.items():
            calendar.events.clear()
            calendar.events.update(before[name])
    return None


def calm(examples: int) -> settings:
    """Return the settings of a property whose examples start servers."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@calm(25)
@given(placed=events, asked=starts)
def test_check_booking_creation_and_moves_agree_on_what_is_taken(
    placed: list[tuple[str, int, int]], asked: list[int]
) -> None:
    async def work(desk: Desk) -> None:
        put(desk.google, 0, "plain", 10 * SPAN_MINUTES, 30, event_id="moved")
        for minutes in asked:
            checked = await desk("check_availability", start=when(minutes), duration_minutes=30)
            refusal = await tries(desk, when(minutes))

            assert checked["available"] is (refusal is None)
            created = await tries(desk, when(minutes), "create_event", summary="Visit", conflict_check=True)
            assert (created is None) is (refusal is None)
            moved = await tries(desk, when(minutes), "reschedule_event", event_id="moved")
            assert (moved is None) is (refusal is None)
            if refusal is not None:
                assert within(checked["busy"], minutes) == within((refusal.data or {})["busy"], minutes)

    run_on(placed, work)


@calm(25)
@given(placed=events, asked=starts, given_rules=rules)
def test_what_is_offered_is_booked_and_nothing_else(
    placed: list[tuple[str, int, int]], asked: list[int], given_rules: dict[str, Any]
) -> None:
    given = {**given_rules, "step_minutes": 15, "time_zone": ZONE.key}

    async def work(desk: Desk) -> None:
        found = await desk(
            "find_available_slots",
            range_start=when(-30),
            range_end=when(SPAN_MINUTES + 60),
            duration_minutes=30,
            limit=1000,
            **given,
        )
        offered = {
            datetime.fromisoformat(slot["start"]).astimezone(UTC).isoformat() for slot in found["slots"]
        }
        some = [slot["start"] for slot in found["slots"]][:: max(1, len(found["slots"]) // 2)]
        for start in (*map(when, asked), *some):
            refusal = await tries(desk, start, summary="Visit", **given)

            instant = datetime.fromisoformat(start).astimezone(UTC).isoformat()
            assert (refusal is None) is (instant in offered), start

    run_on(placed, work)


@calm(25)
@given(placed=events, given_rules=rules)
def test_every_alternative_can_be_booked(
    placed: list[tuple[str, int, int]], given_rules: dict[str, Any]
) -> None:
    given = {**given_rules, "time_zone": ZONE.key}

    async def work(desk: Desk) -> None:
        put(desk.google, 99, "plain", 720, 60)
        refusal = await tries(desk, when(735), summary="Visit", **given)

        assert refusal is not None
        alternatives = (refusal.data or {})["alternatives"]
        assert alternatives
        for each in alternatives:
            assert await tries(desk, each["start"], summary="Visit", **given) is None

    run_on(placed, work)
