"""Parameters that make no sense are refused before any request, each naming its field."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from connectors.google_calendar import google_calendar
from connectors.google_calendar.rrule import shift_lines, write_lines
from connectors.google_calendar.zones import read_time, zone_named, zone_names
from connectors.sdk.errors import InvalidParams
from connectors.sdk.params import example_of
from connectors.sdk.personal import MASK

FIND = {"range_start": "2026-03-09T09:00", "range_end": "2026-03-09T12:00", "duration_minutes": 30}
EVENT = {"summary": "x", "start": "2026-03-09T09:00", "duration_minutes": 30}
DAYS = {"summary": "x", "start": "2026-03-09"}


def read(action: str, params: dict[str, Any]) -> Any:
    return google_calendar.actions[action].signature.read(params)


def refused(action: str, params: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidParams) as caught:
        read(action, params)
    return [detail.field for detail in caught.value.details]


def test_parameters_about_people_are_personal_and_ids_and_times_are_not() -> None:
    marked = {
        name
        for action in google_calendar.actions.values()
        for name, part in action.signature.schema["properties"].items()
        if part.get("x-personal")
    }

    about_people = {"summary", "description", "location", "attendees", "private_properties", "query"}
    assert about_people | {"phone", "email", "name"} == marked


def test_an_events_people_are_masked_and_its_place_in_the_calendar_is_not() -> None:
    params = {**EVENT, "summary": "Check-up, Ada Lovelace", "attendees": ["ada@lovelace.example"]}
    personal = google_calendar.actions["create_event"].signature.personal(params)

    line = personal.mask({"event": "hold left behind", "event_id": "visit00001", "minutes": 30})
    told = personal.mask("invited ada@lovelace.example to Check-up, Ada Lovelace")

    assert {"event": "hold left behind", "event_id": "visit00001", "minutes": 30} == line
    assert f"invited {MASK} to {MASK}" == told


def test_every_action_of_the_contract_is_there_with_its_effect() -> None:
    effects = {name: str(action.effect) for name, action in google_calendar.actions.items()}

    assert {
        "find_available_slots": "read",
        "check_availability": "read",
        "create_event": "keyed",
        "book_appointment": "keyed",
        "get_event": "read",
        "update_event": "keyed",
        "reschedule_event": "keyed",
        "add_attendees": "keyed",
        "remove_attendees": "keyed",
        "respond_to_invitation": "keyed",
        "find_appointments": "read",
        "cancel_event": "keyed",
        "list_events": "read",
        "list_calendars": "read",
    } == effects
    assert ["book_appointment", "create_event"] == sorted(
        name for name, action in google_calendar.actions.items() if action.can_undo
    )


@pytest.mark.parametrize("action", list(google_calendar.actions))
def test_every_action_has_a_schema_a_description_and_a_valid_example(action: str) -> None:
    declared = google_calendar.actions[action]

    assert declared.description.endswith(".")
    assert declared.signature.schema["additionalProperties"] is False
    read(action, example_of(declared.signature.model))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"duration_minutes": 0}, "duration_minutes"),
        ({"duration_minutes": "30"}, "duration_minutes"),
        ({"duration_minutes": 10**9}, "duration_minutes"),
        ({"step_minutes": 0}, "step_minutes"),
        ({"range_end": "2026-03-09T09:00"}, "range_end"),
        ({"range_end": "2026-03-08T09:00"}, "range_end"),
        ({"range_end": "2027-04-09T09:00"}, "range_end"),
        ({"range_start": "2026-03-09"}, "range_start"),
        ({"range_start": "2026-02-30T09:00"}, "range_start"),
        ({"range_start": "1-1-1"}, "range_start"),
        ({"range_start": "0001-01-01T00:00"}, "range_start"),
        ({"range_start": "9999-12-31T23:59:60Z"}, "range_start"),
        ({"range_start": 1772960400}, "range_start"),
        ({"time_zone": "../etc"}, "time_zone"),
        ({"time_zone": "/etc/passwd"}, "time_zone"),
        ({"time_zone": "europe/istanbul"}, "time_zone"),
        ({"time_zone": "Europe/Istanbul\n"}, "time_zone"),
        ({"time_zone": ""}, "time_zone"),
        ({"time_zone": "a" * 10_000}, "time_zone"),
        ({"working_hours": {"monday": [["09:00", "17:00"]]}}, "working_hours.monday.[key]"),
        ({"working_hours": {"mon": [["17:00", "17:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["24:00", "24:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["24:00", "02:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["9:00", "17:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["09:60", "17:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["09:00"]]}}, "working_hours.mon.0"),
        ({"working_hours": {"mon": [["09:00", "24:01"]]}}, "working_hours.mon.0"),
        ({"overrides": {"2026-02-30": []}}, "overrides.2026-02-30.[key]"),
        ({"closed_dates": ["tomorrow"]}, "closed_dates.0"),
        ({"overrides": {"2026-12-24": []}, "closed_dates": ["2026-12-24"]}, "closed_dates"),
        ({"buffer_before_minutes": -1}, "buffer_before_minutes"),
        ({"buffer_after_minutes": 10_081}, "buffer_after_minutes"),
        ({"min_notice_minutes": -5}, "min_notice_minutes"),
        ({"max_advance_minutes": -5}, "max_advance_minutes"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"mode": "some"}, "mode"),
        ({"calendars": []}, "calendars"),
        ({"calendars": ["a"] * 201}, "calendars"),
        ({"calendars": ["a b"]}, "calendars.0"),
        ({"calendars": [".."]}, "calendars.0"),
        ({"calendars": ["a\r\nHost: x"]}, "calendars.0"),
        ({"calendars": ["а@example.com"]}, "calendars.0"),  # a Cyrillic a
        ({"calender": "x"}, "calender"),
    ],
)
def test_a_search_that_makes_no_sense_names_its_field(changes: dict[str, Any], field: str) -> None:
    assert [field] == refused("find_available_slots", FIND | changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"end": "2026-03-09T10:00"}, "duration_minutes"),
        ({"duration_minutes": None}, "duration_minutes"),
        ({"duration_minutes": None, "end": "2026-03-09T09:00"}, "end"),
        ({"duration_minutes": None, "end": "2026-03-09T08:00"}, "end"),
        ({"duration_minutes": None, "end": "2026-03-10"}, "end"),
        ({"duration_minutes": None, "end": "2027-03-11T09:00"}, "end"),
        ({"summary": ""}, "summary"),
        ({"summary": "x" * 1025}, "summary"),
        ({"attendees": [f"a{number}@example.com" for number in range(10_000)]}, "attendees"),
        ({"attendees": ["a@example.com\r\nBcc: b@example.com"]}, "attendees.0"),
        ({"attendees": ["Ada <a@example.com>"]}, "attendees.0"),
        ({"attendees": ["a" * 40_000 + "!"]}, "attendees.0"),
        ({"notify": "everybody"}, "notify"),
        ({"reminders": [{"method": "popup", "minutes": 40_321}]}, "reminders.0.minutes"),
        ({"reminders": [{"method": "sms", "minutes": 1}]}, "reminders.0.method"),
        ({"reminders": [{"method": "popup", "minutes": 1}] * 6}, "reminders"),
        ({"private_properties": {"connectors_key": "x"}}, "private_properties"),
        ({"private_properties": {"a b": "x"}}, "private_properties"),
        ({"private_properties": {"a": "x" * 1025}}, "private_properties"),
        ({"private_properties": {"a": 1}}, "private_properties.a"),
        ({"color_id": "12"}, "color_id"),
        ({"visibility": "secret"}, "visibility"),
        ({"calendar_id": "a/b c"}, "calendar_id"),
        ({"recurrence": []}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=SECONDLY"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;COUNT=10001"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;INTERVAL=0"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;COUNT=2;UNTIL=20260309"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;UNTIL=20260230"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;FREQ=DAILY"]}, "recurrence"),
        ({"recurrence": ["RRULE:COUNT=2"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY"] * 2}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY;BYDAY=" + ",".join(["MO"] * 500)]}, "recurrence"),
        ({"recurrence": ["EXRULE:FREQ=DAILY"]}, "recurrence"),
        ({"recurrence": ["EXDATE:20279999"]}, "recurrence"),
        ({"recurrence": ["RDATE:20260309T250000"]}, "recurrence"),
        ({"recurrence": ["EXDATE;TZID=Mars/Phobos:20260309T090000"]}, "recurrence"),
        ({"recurrence": ["RDATE:20260309T090000\r\nATTENDEE:x"]}, "recurrence"),
        ({"recurrence": ["RRULE:FREQ=DAILY"], "conflict_check": True}, "conflict_check"),
    ],
)
def test_an_event_that_makes_no_sense_names_its_field(changes: dict[str, Any], field: str) -> None:
    given = {name: value for name, value in (EVENT | changes).items() if value is not None}

    assert [field] == refused("create_event", given)


def test_whole_days_have_no_duration_and_end_on_a_day() -> None:
    assert ["duration_minutes"] == refused("create_event", DAYS | {"duration_minutes": 30})
    assert ["end"] == refused("create_event", DAYS | {"end": "2026-03-09T10:00"})
    assert ["end"] == refused("create_event", DAYS | {"end": "2026-03-08"})
    assert read("create_event", DAYS)


def test_a_booking_knows_no_recurrence() -> None:
    assert ["recurrence"] == refused("book_appointment", EVENT | {"recurrence": ["RRULE:FREQ=DAILY"]})


@pytest.mark.parametrize("event_id", ["abcd", "a" * 1025, "a/b/c/d", "abcde?", "abcde\n", "äbcde", ""])
def test_an_event_id_outside_of_its_alphabet_and_length_is_refused(event_id: str) -> None:
    for action in ("get_event", "cancel_event"):
        assert ["event_id"] == refused(action, {"event_id": event_id})


def test_an_update_that_changes_nothing_is_refused() -> None:
    assert [""] == refused("update_event", {"event_id": "abcde", "notify": "all"})


def test_zone_data_come_from_the_package_alone() -> None:
    assert {"Europe/Istanbul", "America/New_York", "UTC"} <= zone_names()
    with pytest.raises(ValueError, match="IANA"):
        zone_named("localtime")


@pytest.mark.parametrize(
    ("line", "zone", "expected"),
    [
        ("RRULE:FREQ=DAILY;UNTIL=20260309", "Europe/Istanbul", "RRULE:FREQ=DAILY;UNTIL=20260309T205959Z"),
        (
            "RRULE:FREQ=DAILY;UNTIL=20260308T023000",
            "America/New_York",
            "RRULE:FREQ=DAILY;UNTIL=20260308T073000Z",
        ),
        ("RRULE:FREQ=DAILY;UNTIL=20260309T090000Z", "Asia/Tokyo", "RRULE:FREQ=DAILY;UNTIL=20260309T090000Z"),
        ("RRULE:FREQ=DAILY;UNTIL=20260309T090000Z", None, "RRULE:FREQ=DAILY;UNTIL=20260309"),
        ("EXDATE:20260309T090000Z", "Asia/Tokyo", "EXDATE:20260309T090000Z"),
        ("EXDATE:20260309", "Asia/Tokyo", "EXDATE:20260309T003000Z"),
        ("EXDATE;VALUE=DATE:20260309,20260310", "Asia/Tokyo", "EXDATE:20260309T003000Z,20260310T003000Z"),
        ("RDATE:20260309T090000", "Asia/Tokyo", "RDATE:20260309T000000Z"),
        ("EXDATE;TZID=America/New_York:20260309T090000", "Asia/Tokyo", "EXDATE:20260309T130000Z"),
        ("EXDATE;TZID=Asia/Tokyo:20260309T090000", None, "EXDATE;VALUE=DATE:20260309"),
        ("EXDATE:20260309", None, "EXDATE;VALUE=DATE:20260309"),
    ],
)
def test_recurrence_times_are_written_as_the_start_demands(
    line: str, zone: str | None, expected: str
) -> None:
    start = datetime(2026, 3, 2, 0, 30, tzinfo=UTC) if zone else date(2026, 3, 2)  # 09:30 in Tokyo

    assert [expected] == write_lines([line], start, None if zone is None else zone_named(zone))


@pytest.mark.parametrize("line", ["EXDATE:20260309T093000", "RRULE:FREQ=DAILY;UNTIL=20260309T093000"])
def test_shifted_recurrence_moves_its_exceptions_and_its_end(line: str) -> None:
    zone = zone_named("Asia/Tokyo")

    assert [line.replace("T093000", "T110000")] == shift_lines([line], timedelta(minutes=90), zone)


def test_a_time_with_a_plain_offset_is_accepted() -> None:
    assert read_time("2026-03-09T09:00:00+03:00") == read_time("2026-03-09T09:00:00+0300")


def test_as_many_recurrence_lines_as_google_gives_are_accepted() -> None:
    lines = ["RRULE:FREQ=DAILY", *(f"EXDATE;TZID=Asia/Tokyo:2026{m:02}01T090000" for m in range(1, 13))] * 1

    assert read("create_event", EVENT | {"recurrence": lines + lines[1:] * 30})
