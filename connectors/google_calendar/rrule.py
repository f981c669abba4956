"""Recurrence lines as jobs give them: checked before any request, times written as Google wants them."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.zones import instant, zone_named

#: Google gives one EXDATE line an exception to a series that has been used for years.
MAX_LINES: Final = 1000
MAX_LINE_CHARS: Final = 4000
#: The most repetitions and the widest step that make sense in a calendar of appointments.
MAX_COUNT: Final = 10_000
MAX_INTERVAL: Final = 1000

_DAYS = "MO|TU|WE|TH|FR|SA|SU"
_MOMENT = r"[0-9]{8}(?:T[0-9]{6}Z?)?"
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
    rf"(EXDATE|RDATE)((?:;VALUE=DATE(?:-TIME)?|;TZID=[A-Za-z0-9_+/-]{{1,64}}){{0,2}}):({_MOMENT}(?:,{_MOMENT}){{0,200}})"
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
        elif (found := _DATES.fullmatch(line)) is None:
            raise ValueError("a line must be RRULE:…, EXDATE:… or RDATE:… by RFC 5545")
        else:
            _zone_of(found[2])
            for text in found[3].split(","):
                _read_moment(text, found[1])
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
        _read_moment(seen["UNTIL"], "UNTIL")


def write_lines(lines: Sequence[str], start: date | datetime, zone: ZoneInfo | None) -> list[str]:
    """Return the lines as the event's start demands: times in UTC for a timed event, days for an all-day one.

    A bare day of EXDATE or RDATE means the occurrence of that day, and UNTIL the whole of it.

    Args:
        start: of the event; its time of day is that of every occurrence.
        zone: of a timed event, in which it recurs; None for an all-day event.
    """
    return [_write_line(line, start, zone) for line in lines]


def names_local_times(lines: Sequence[str]) -> bool:
    """Return whether a line has a time or day that only a zone turns into an instant."""
    return any(not text.endswith("Z") for line in lines for text in _moments_of(line))


def shift_lines(lines: Sequence[str], shift: timedelta, zone: ZoneInfo | None) -> list[str]:
    """Return the lines of a series that is moved by `shift` in wall time: its end and exceptions move along."""
    return [_shift_line(line, shift, zone) for line in lines]


def names_days(lines: Sequence[str]) -> bool:
    """Return whether the rule names days or months, so that another first day needs another rule."""
    return any(";BY" in line for line in lines)


def with_count(line: str, count: int) -> str:
    """Return a rule that ends after so many occurrences; another line as it is."""
    return _map_part(line, "COUNT", lambda _: str(max(count, 1)))


def with_until(line: str, start: date | datetime) -> str:
    """Return a rule that ends right before an occurrence; another line as it is."""
    if not line.startswith("RRULE:"):
        return line
    kept = [part for part in line.split(";") if not part.startswith(("UNTIL=", "COUNT="))]
    if isinstance(start, datetime):
        last = f"{start.astimezone(UTC) - timedelta(seconds=1):%Y%m%dT%H%M%SZ}"
    else:
        last = f"{start - timedelta(days=1):%Y%m%d}"
    return ";".join([*kept, f"UNTIL={last}"])


def count_before(lines: Sequence[str], start: date | datetime) -> int:
    """Return how many excluded occurrences lie before a start; a COUNT counts them, too."""
    texts = [text for line in lines if line.startswith("EXDATE") for text in _moments_of(line)]
    first = f"{start.astimezone(UTC) if isinstance(start, datetime) else start:%Y%m%dT%H%M%SZ}"
    return sum(text < first[: len(text)] for text in texts)


def _moments_of(line: str) -> list[str]:
    if (found := _DATES.fullmatch(line)) is not None:
        return found[3].split(",")
    return [part[6:] for part in line.removeprefix("RRULE:").split(";") if part.startswith("UNTIL=")]


def _write_line(line: str, start: date | datetime, zone: ZoneInfo | None) -> str:
    if line.startswith("RRULE:"):
        return _map_part(line, "UNTIL", lambda text: _write_until(text, zone))
    found = _DATES.fullmatch(line)
    assert found is not None
    named = _zone_of(found[2]) or zone
    texts = [_write_occurrence(text, start, zone, named) for text in found[3].split(",")]
    return f"{found[1]}{';VALUE=DATE' if zone is None else ''}:{','.join(texts)}"


def _map_part(line: str, name: str, change: Callable[[str], str]) -> str:
    if not line.startswith("RRULE:"):
        return line
    parts = line.removeprefix("RRULE:").split(";")
    prefix = f"{name}="
    return "RRULE:" + ";".join(
        prefix + change(part.removeprefix(prefix)) if part.startswith(prefix) else part for part in parts
    )


def _write_until(text: str, zone: ZoneInfo | None) -> str:
    until = _read_moment(text, "UNTIL")
    if zone is None:
        return f"{until:%Y%m%d}"
    if len(text) == 8:
        # A day as the end is that day in full.
        until += timedelta(days=1, seconds=-1)
    return _in_utc(until, zone)


def _write_occurrence(
    text: str, start: date | datetime, zone: ZoneInfo | None, named: ZoneInfo | None
) -> str:
    moment = _read_moment(text, "EXDATE")
    if zone is None:
        return f"{moment:%Y%m%d}"
    if len(text) == 8 and isinstance(start, datetime):
        wall = start.astimezone(zone)
        return _in_utc(datetime.combine(moment.date(), wall.time()), zone)
    return _in_utc(moment, named or zone)


def _shift_line(line: str, shift: timedelta, zone: ZoneInfo | None) -> str:
    if line.startswith("RRULE:"):
        return _map_part(line, "UNTIL", lambda text: _shift_moment(text, shift, zone))
    found = _DATES.fullmatch(line)
    if found is None:
        return line
    named = _zone_of(found[2]) or zone
    return (
        f"{found[1]}{found[2]}:{','.join(_shift_moment(each, shift, named) for each in found[3].split(','))}"
    )


def _shift_moment(text: str, shift: timedelta, zone: ZoneInfo | None) -> str:
    moment = _read_moment(text, "UNTIL")
    if len(text) == 8:
        return f"{moment + timedelta(days=shift.days):%Y%m%d}"
    if moment.tzinfo is None:
        return f"{moment + shift:%Y%m%dT%H%M%S}"
    wall = moment.astimezone(zone or UTC).replace(tzinfo=None) + shift
    return _in_utc(wall, zone or ZoneInfo("UTC"))


def _in_utc(time: datetime, zone: ZoneInfo) -> str:
    return f"{instant(time, zone):%Y%m%dT%H%M%SZ}"


def _zone_of(parameters: str) -> ZoneInfo | None:
    name = parameters.partition("TZID=")[2].partition(";")[0]
    if not name:
        return None
    try:
        return zone_named(name)
    except ValueError as error:
        raise ValueError(f"TZID {error}") from None


def _read_moment(text: str, part: str) -> datetime:
    try:
        if len(text) == 8:
            return datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007  # a wall time
        read = datetime.strptime(text[:15], "%Y%m%dT%H%M%S")  # noqa: DTZ007  # a wall time
    except ValueError:
        raise ValueError(f"{part} is not a date or time that a calendar has") from None
    return read.replace(tzinfo=UTC) if text.endswith("Z") else read
