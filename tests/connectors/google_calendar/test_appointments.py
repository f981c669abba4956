"""find_appointments and list_events: whose appointments come next, and no one else's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.google_calendar.matching import has_address, has_name, has_phone
from connectors.sdk.errors import InvalidParams
from tests.support.desk import OWNER, Desk

DAY = (datetime.now(UTC) + timedelta(days=30)).date()


async def put(desk: Desk, hour: int = 10, **event: Any) -> str:
    made = await desk(
        "create_event",
        **{"summary": "Check-up", "start": f"{DAY}T{hour:02}:00", "duration_minutes": 30, **event},
    )
    return str(made["event_id"])


@pytest.mark.integration
@pytest.mark.parametrize(
    "asked",
    [
        {"phone": "0532 111 22 33"},
        {"phone": "+905321112233"},
        {"email": "Ada@Lovelace.example"},
        {"name": "ada lovelace"},
        {"name": "Lovelace, Ada"},
        {"private_properties": {"patient": "17"}},
    ],
    ids=str,
)
async def test_a_callers_appointment_is_found_and_no_one_elses(desk: Desk, asked: dict[str, Any]) -> None:
    event_id = await put(
        desk,
        summary="Check-up, Ada Lovelace",
        description="Calls from +90 (532) 111-22-33",
        attendees=["ada@lovelace.example"],
        private_properties={"patient": "17"},
    )
    await put(
        desk,
        11,
        summary="Check-up, Ada Lovelaces",
        description="Calls from +90 (532) 111-22-34; ada@lovelace.example.com, Ada and Bob Lovelace",
        attendees=["bada@lovelace.example"],
        private_properties={"patient": "171"},
    )

    found = await desk("find_appointments", **asked)

    (mine,) = found["appointments"]
    assert {
        "event_id": event_id,
        "calendar_id": "primary",
        "start": f"{DAY}T10:00:00+03:00",
        "end": f"{DAY}T10:30:00+03:00",
        "summary": "Check-up, Ada Lovelace",
        "status": "confirmed",
        "guests": ["ada@lovelace.example"],
        "recurring": False,
    } == mine
    assert (False, None) == (found["truncated"], found["cursor"])


@pytest.mark.integration
async def test_coming_appointments_of_all_calendars_come_in_order_and_pages(desk: Desk) -> None:
    desk.google.store.add_calendar("room@example.com", owner=OWNER, time_zone="UTC")
    for number in range(5):
        calendar = "room@example.com" if number % 2 else "primary"
        await put(desk, 8 + number, summary="Ada Lovelace", calendar_id=calendar, time_zone="UTC")
    await put(desk, summary="Ada Lovelace", start="2021-01-01T10:00", allow_past=True)
    asked: dict[str, Any] = {"name": "Ada Lovelace", "calendars": ["primary", "room@example.com"], "limit": 2}

    hours, cursor = [], None
    page: dict[str, Any] = {}
    for _ in range(3):
        page = await desk("find_appointments", **asked, **({"cursor": cursor} if cursor else {}))
        hours += [each["start"] for each in page["appointments"]]
        cursor = page["cursor"]

    instants = [datetime.fromisoformat(each).astimezone(UTC).hour for each in hours]
    assert [8, 9, 10, 11, 12] == instants
    assert cursor is None


@pytest.mark.integration
async def test_a_hold_is_no_appointment_and_an_occurrence_is_recurring(desk: Desk) -> None:
    await put(desk, summary="Ada Lovelace", recurrence=["RRULE:FREQ=WEEKLY;COUNT=2"])
    held = await put(desk, 12, summary="Ada Lovelace")
    private = desk.google.store.calendars[OWNER].events[held]["extendedProperties"]["private"]
    private["connectors_claim"] = "open"

    found = await desk("find_appointments", name="Ada Lovelace")

    assert [True, True] == [each["recurring"] for each in found["appointments"]]


@pytest.mark.integration
async def test_a_cursor_of_another_question_is_refused(desk: Desk) -> None:
    for hour in (10, 11):
        await put(desk, hour, summary="Ada Lovelace")
    page = await desk("find_appointments", name="Ada Lovelace", limit=1)

    forged = [page["cursor"][:-4], "x", "", "é", page["cursor"] + "AAAA"]
    other = {"name": "Bob Lovelace", "cursor": page["cursor"]}
    for params in (other, *({"name": "Ada Lovelace", "cursor": cursor} for cursor in forged)):
        with pytest.raises(InvalidParams, match="cursor"):
            await desk("find_appointments", **params)


@pytest.mark.integration
async def test_a_listing_begins_now_and_goes_on_by_its_cursor(desk: Desk) -> None:
    await put(desk, summary="Past", start="2021-01-01T10:00", allow_past=True)
    for hour in range(5):
        await put(desk, 10 + hour, summary=f"Visit {hour}")
    desk.google.store.page_limit = 2
    desk.google.store.empty_first_page = True

    names, cursor = [], None
    page: dict[str, Any] = {}
    for _ in range(2):
        page = await desk("list_events", limit=3, **({"cursor": cursor} if cursor else {}))
        names += [each["summary"] for each in page["events"]]
        cursor = page["cursor"]

    assert [f"Visit {hour}" for hour in range(5)] == names
    assert (None, False) == (cursor, page["truncated"])


@pytest.mark.integration
async def test_a_listing_tells_kinds_apart_and_chooses_them(desk: Desk) -> None:
    for number, kind in enumerate(("default", "focusTime", "workingLocation")):
        event_id = await put(desk, 10 + number, summary=kind)
        desk.google.store.calendars[OWNER].events[event_id]["eventType"] = kind

    every = await desk("list_events")
    chosen = await desk("list_events", event_types=["focusTime"])

    assert ["default", "focusTime", "workingLocation"] == [each["event_type"] for each in every["events"]]
    assert ["focusTime"] == [each["summary"] for each in chosen["events"]]


@pytest.mark.integration
async def test_a_short_listing_has_the_short_form(desk: Desk) -> None:
    event_id = await put(desk, attendees=["ada@example.com"], description="long")

    listed = await desk("list_events", fields="short")

    assert [
        {
            "event_id": event_id,
            "calendar_id": "primary",
            "start": f"{DAY}T10:00:00+03:00",
            "end": f"{DAY}T10:30:00+03:00",
            "summary": "Check-up",
            "status": "confirmed",
            "guests": ["ada@example.com"],
            "recurring": False,
            "all_day": False,
            "event_type": "default",
            "recurring_event_id": None,
        }
    ] == listed["events"]


@pytest.mark.integration
async def test_a_range_that_ends_before_it_begins_now_is_refused(desk: Desk) -> None:
    with pytest.raises(InvalidParams, match="range_start"):
        await desk("list_events", range_end="2021-01-01T00:00Z")


@pytest.mark.parametrize(
    ("text", "phone", "is_found"),
    [
        ("Tel. 06 12 34 56 78", "+33612345678", True),
        ("call +44 20 7946 0958 ext. 12", "020 7946 0958", True),
        ("+45 32 12 34 56", "+4532123456", True),
        ("8 (916) 123-45-67", "+79161234567", True),
        ("order 123456789012", "+33612345678", False),
        ("2037-03-09 10:00", "+4520370309", False),
        ("06 12 34 56 79", "+33612345678", False),
    ],
)
def test_phones_are_compared_as_numbers(text: str, phone: str, is_found: bool) -> None:
    assert is_found is has_phone({"description": text}, phone)


@pytest.mark.parametrize(
    ("text", "name", "is_found"),
    [
        ("John Smith", "john smith", True),
        ("Smith, John: check-up", "John Smith", True),
        ("Ayşe Yılmaz", "ayse yilmaz", True),
        ("AYŞE YILMAZ", "Ayşe Yılmaz", True),
        ("José García", "Jose Garcia", True),
        ("John Smithson", "John Smith", False),
        ("John and Mary Smith", "John Smith", False),
        ("Mary Doe of John Smith Ltd", "Mary Smith", False),
        ("", "John Smith", False),
    ],
)
def test_names_are_compared_word_by_word(text: str, name: str, is_found: bool) -> None:
    assert is_found is has_name({"summary": text}, name)
    assert is_found is has_name({"attendees": [{"displayName": text, "email": "a@b.example"}]}, name)


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("write to ada@lovelace.example.", True),
        ("<ADA@lovelace.example>", True),
        ("bada@lovelace.example", False),
        ("ada@lovelace.example.com", False),
    ],
)
def test_addresses_are_compared_whole(text: str, is_found: bool) -> None:
    assert is_found is has_address({"description": text}, "ada@lovelace.example")
