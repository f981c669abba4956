"""Recurrence lines as jobs give them: checked before any request, UNTIL written as Google wants it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.zones import instant

MAX_LINES: Final = 20
MAX_LINE_CHARS: Final = 2000
#: The most repetitions and the widest step that make sense in a calendar of appointments.
MAX_COUNT: Final = 10_000
MAX_INTERVAL: Final = 1000

_DAYS = "MO|TU|WE|TH|FR|SA|SU"
_MOMENT = r"[0-9]{8}(T[0-9]{6}Z?)?"
_PARTS: Final = {
    "FREQ": re.compile("DAILY|WEEKLY|MONTHLY|YEARLY"),
    "INTERVAL": re.compile("[0-9]{1,4}"),
    "COUNT": re.compile("[0-9]{1,5}"),
    "UNTIL": re.compile(_MOMENT),
    "BYDAY": re.compile(rf"([+-]?[0-9]{{1,2}})?({_DAYS})(,([+-]?[0-9]{{1,2}})?({_DAYS})){{0,30}}"),
    "BYMONTHDAY": re.compile(r"-?[0-9]{1,2}(,-?[0-9]{1,2}){0,61}"),
    "BYMONTH": re.compile(r"[0-9]{1,2}(,[0-9]{1,2}){0,11}"),
    "BYYEARDAY": re.compile(r"-?[0-9]{1,3}(,-?[0-9]{1,3}){0,99}"),
    "BYWEEKNO": re.compile(r"-?[0-9]{1,2}(,-?[0-9]{1,2}){0,52}"),
    "BYSETPOS": re.compile(r"-?[0-9]{1,3}(,-?[0-9]{1,3}){0,20}"),
    "WKST": re.compile(_DAYS),
}
_DATES = re.compile(
    rf"(EXDATE|RDATE)(;VALUE=DATE(-TIME)?|;TZID=[A-Za-z0-9_+/-]{{1,64}}){{0,2}}:{_MOMENT}(,{_MOMENT}){{0,200}}"
)


def check_lines(lines: Sequence[str]) -> None:
    """Check the lines of a recurrence.

    Raises:
        ValueError: says what is wrong.
    """
    if not 1 <= len(lines) <= MAX_LINES:
        raise ValueError(f"must have 1 to {MAX_LINES} lines")
    rules = 0
    for line in lines:
        if len(line) > MAX_LINE_CHARS:
            raise ValueError(f"a line is over {MAX_LINE_CHARS} characters")
        name, _, value = line.partition(":")
        if name == "RRULE":
            rules += 1
            _check_rule(value)
        elif not _DATES.fullmatch(line):
            raise ValueError("a line must be RRULE:…, EXDATE:… or RDATE:… by RFC 5545")
    if rules > 1:
        raise ValueError("must have one RRULE at most")


def _check_rule(value: str) -> None:
    seen: dict[str, str] = {}
    for part in value.split(";"):
        name, _, given = part.partition("=")
        pattern = _PARTS.get(name)
        if pattern is None or name in seen or not pattern.fullmatch(given):
            raise ValueError(
                "an RRULE has FREQ of DAILY, WEEKLY, MONTHLY or YEARLY, then each part of RFC 5545 once"
            )
        seen[name] = given
    if "FREQ" not in seen:
        raise ValueError("an RRULE begins with FREQ")
    if "COUNT" in seen and "UNTIL" in seen:
        raise ValueError("COUNT and UNTIL exclude each other")
    for name, most in (("INTERVAL", MAX_INTERVAL), ("COUNT", MAX_COUNT)):
        if not 1 <= int(seen.get(name, 1)) <= most:
            raise ValueError(f"{name} must be 1 to {most}")
    if "UNTIL" in seen:
        _read_moment(seen["UNTIL"])


def write_lines(lines: Sequence[str], zone: ZoneInfo | None) -> list[str]:
    """Return UNTIL as the event's start demands: in UTC for a timed one, as a date for an all-day one.

    Args:
        zone: of a timed event; None for one that lasts whole days.
    """
    return [_write_line(line, zone) if line.startswith("RRULE:") else line for line in lines]


def _write_line(line: str, zone: ZoneInfo | None) -> str:
    parts = line.removeprefix("RRULE:").split(";")
    return "RRULE:" + ";".join(
        "UNTIL=" + _write_until(part[6:], zone) if part.startswith("UNTIL=") else part for part in parts
    )


def _write_until(text: str, zone: ZoneInfo | None) -> str:
    until = _read_moment(text)
    if zone is None:
        return f"{until:%Y%m%d}"
    if len(text) == 8:
        # A day as the end is that day in full.
        until += timedelta(days=1, seconds=-1)
    return f"{instant(until, zone):%Y%m%dT%H%M%SZ}"


def _read_moment(text: str) -> datetime:
    try:
        if len(text) == 8:
            return datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007  # a wall time
        read = datetime.strptime(text[:15], "%Y%m%dT%H%M%S")  # noqa: DTZ007  # a wall time
    except ValueError:
        raise ValueError("UNTIL is not a date or time that a calendar has") from None
    return read.replace(tzinfo=UTC) if text.endswith("Z") else read
