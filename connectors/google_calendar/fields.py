"""The kinds of values that the actions' parameters are made of; each is checked before any request."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from connectors.google_calendar.rrule import check_lines
from connectors.google_calendar.slots import Window
from connectors.google_calendar.zones import read_time, zone_named

#: Guests of one event; Google's own limit.
MAX_GUESTS: Final = 200
#: Minutes of the longest timed event or slot: a year, roughly.
MAX_MINUTES: Final = 366 * 1440
#: The names of private properties that the connector keeps for itself begin so.
OWN_PREFIX: Final = "connectors_"

_CALENDAR_ID = re.compile(r"(?!\.{1,2}\Z)[!-~]{1,254}")
_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{5,1024}")
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}")
_PROPERTY = re.compile(r"[A-Za-z0-9_.:-]{1,44}")
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})")


def _text_like(pattern: re.Pattern[str], issue: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(issue)
        return text

    return check


def _read_zone(name: object) -> ZoneInfo:
    if not isinstance(name, str) or len(name) > 64:
        raise ValueError("must be an IANA time zone such as Europe/Istanbul")
    return zone_named(name)


def _read_moment(text: object) -> datetime:
    time = read_time(text)
    if isinstance(time, datetime):
        return time
    raise ValueError("must be a time, not a day: such as 2026-03-08T09:30")


def _read_day(text: object) -> date:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("must be a date such as 2026-03-08")
    return read_time(text)


def _read_window(pair: object) -> Window:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError('must be a pair of times such as ["09:00", "17:00"]')
    opens, closes = (_read_clock(text) for text in pair)
    if opens == 1440:
        raise ValueError("opens at 24:00; that is 00:00 of the next day")
    if opens == closes:
        raise ValueError("opens and closes at the same time; 00:00 to 24:00 is the whole day")
    return opens, closes if closes > opens else closes + 1440


def _read_clock(text: object) -> int:
    found = _CLOCK.fullmatch(text) if isinstance(text, str) else None
    minutes = -1 if found is None else int(found[1]) * 60 + int(found[2])
    if found is None or int(found[2]) > 59 or minutes > 1440:
        raise ValueError("must be a time of day such as 09:00, up to 24:00")
    return minutes


def _check_properties(properties: dict[str, str]) -> dict[str, str]:
    if len(properties) > 100:
        raise ValueError("must be 100 properties at most")
    for name, value in properties.items():
        if not _PROPERTY.fullmatch(name):
            raise ValueError("a name is 1 to 44 letters, digits, and _ . : -")
        if name.startswith(OWN_PREFIX):
            raise ValueError(f"names that begin with {OWN_PREFIX} are reserved for the connector")
        if len(value) > 1024:
            raise ValueError("a value has 1024 characters at most")
    return properties


def _check_recurrence(lines: list[str]) -> list[str]:
    check_lines(lines)
    return lines


def unique(items: list[Any]) -> list[Any]:
    """Drop repetitions, keeping the order."""
    return list(dict.fromkeys(items))


def _schema(kind: str, description: str, *examples: Any, **more: Any) -> WithJsonSchema:
    shown = {"examples": list(examples)} if examples else {}
    return WithJsonSchema({"type": kind, "description": description, **shown, **more})


CalendarId = Annotated[
    str,
    AfterValidator(
        _text_like(
            _CALENDAR_ID, "must be a calendar's id: primary, an address, or as list_calendars gives it"
        )
    ),
    Field(description="`primary`, or as list_calendars gives it.", examples=["primary"]),
]
EventId = Annotated[
    str,
    AfterValidator(_text_like(_EVENT_ID, "must be an event's id: 5 to 1024 letters, digits, _ and -")),
    Field(examples=["4k2vq8a9d0"]),
]
Address = Annotated[
    str,
    AfterValidator(_text_like(_ADDRESS, "must be an e-mail address")),
    Field(max_length=254, examples=["guest@example.com"]),
]
Zone = Annotated[
    ZoneInfo,
    PlainValidator(_read_zone),
    _schema("string", "IANA time zone; default: the calendar's own.", "Europe/Istanbul"),
]
#: A date, a local time (naive) or an instant (aware).
When = Annotated[
    date | datetime,
    PlainValidator(read_time),
    _schema(
        "string",
        "RFC 3339, or local without an offset (T24:00 allowed); a date alone means whole days.",
    ),
    Field(examples=["2037-03-09T10:00"]),
]
Moment = Annotated[
    datetime,
    PlainValidator(_read_moment),
    _schema("string", "RFC 3339, or local without an offset (T24:00 allowed)."),
    Field(examples=["2037-03-09T10:00"]),
]
Day = Annotated[date, PlainValidator(_read_day), _schema("string", "A date.", "2026-12-24")]
WorkingWindow = Annotated[
    Window,
    PlainValidator(_read_window),
    _schema(
        "array",
        "From and to; 24:00 is midnight, and a window may pass it.",
        ["09:00", "17:00"],
        items={"type": "string"},
        minItems=2,
        maxItems=2,
    ),
]
Windows = Annotated[list[WorkingWindow], Field(max_length=48)]
Minutes = Annotated[int, Field(ge=1, le=MAX_MINUTES)]
Properties = Annotated[dict[str, str], AfterValidator(_check_properties)]
Recurrence = Annotated[
    list[str], AfterValidator(_check_recurrence), Field(examples=[["RRULE:FREQ=WEEKLY;COUNT=10"]])
]
Guests = Annotated[list[Address], Field(max_length=MAX_GUESTS), AfterValidator(unique)]
Calendars = Annotated[list[CalendarId], Field(min_length=1, max_length=200), AfterValidator(unique)]
Notify = Literal["none", "all", "external_only"]
EventType = Literal["default", "birthday", "focusTime", "fromGmail", "outOfOffice", "workingLocation"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Colour = Annotated[
    str,
    AfterValidator(_text_like(re.compile("[1-9]|1[01]"), "must be one of Google's event colours, 1 to 11")),
]


class Reminder(BaseModel):
    """When and how the calendar's owner is reminded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["popup", "email"]
    minutes: Annotated[int, Field(ge=0, le=40_320, description="Before the start.")]


Reminders = Annotated[list[Reminder], Field(max_length=5, description="An empty list: none at all.")]


def is_day(time: date | datetime) -> bool:
    """Return whether a time means whole days."""
    return not isinstance(time, datetime)


def check_order(start: date | datetime, end: date | datetime, zone: ZoneInfo | None) -> None:
    """Check what can be checked of two times before the calendar's zone is known.

    Raises:
        ValueError: the end comes before the start, or is a day although the start is a time.
    """
    if isinstance(start, datetime) and isinstance(end, datetime):
        if zone is not None:
            start, end = (each if each.tzinfo else each.replace(tzinfo=zone) for each in (start, end))
        if (start.tzinfo is None) != (end.tzinfo is None):
            return  # checked when the calendar's zone is known
        if end.timestamp() <= start.timestamp() if start.tzinfo else end <= start:
            raise ValueError("must come after start")
        apart = end.astimezone(UTC) - start.astimezone(UTC) if start.tzinfo else end - start
    elif isinstance(start, datetime) or isinstance(end, datetime):
        raise ValueError("must be a day if start is a day, and a time if it is a time")  # noqa: TRY004
    else:
        apart = end - start
        if apart < timedelta(0):
            raise ValueError("comes before start")
    if apart > timedelta(minutes=MAX_MINUTES):
        raise ValueError("is more than a year after start")
