"""Time zones and wall-clock times.

Zone data comes from the tzdata package alone: a slim image, which has none of its own, answers like
any other machine. Wall times are read by one rule, everywhere:

    a time that does not exist (clocks go forward)   moves forward by the gap: 02:30 is 03:30
    a time that exists twice (clocks go back)        is the first of the two; an offset says otherwise
"""

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

#: Years outside of these are a typo, and near their ends arithmetic would overflow.
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})?)?"
)


@cache
def zone_names() -> frozenset[str]:
    """List the zones there are, by their IANA names."""
    return frozenset((files("tzdata") / "zones").read_text(encoding="utf-8").split())


@lru_cache(maxsize=700)  # more than there are zones
def zone_named(name: str) -> ZoneInfo:
    """Return a zone by its IANA name.

    Raises:
        ValueError: there is none of this name; nothing is looked for outside of the package.
    """
    if name not in zone_names():
        raise ValueError("is not an IANA time zone such as Europe/Istanbul")
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def read_time(text: object) -> date | datetime:
    """Read a date, a local time (naive) or an RFC 3339 time (aware).

    `T24:00` is the end of the day, a leap second (`:60`) the start of the next minute; seconds may
    be left out.

    Raises:
        ValueError: it is anything else.
    """
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a time such as 2026-03-08T09:30, 2026-03-08T09:30:00+03:00 or T24:00")
    year, month, day = (int(part) for part in found.group(1, 2, 3))
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"must lie in the years {FIRST_YEAR} to {LAST_YEAR}")
    hour, minute, second, fraction, offset = found.group(4, 5, 6, 7, 8)
    try:
        read = date(year, month, day)
        if hour is None:
            return read
        rest = timedelta(microseconds=int((fraction or "0").ljust(6, "0")[:6]))
        return _start_of(read, int(hour), int(minute), int(second or 0), offset) + rest
    except ValueError:
        raise ValueError("is not a time that a calendar has") from None


def _start_of(day: date, hour: int, minute: int, second: int, offset: str | None) -> datetime:
    if hour > 24 or minute > 59 or second > 60 or (hour == 24 and (minute or second)):
        raise ValueError
    start = datetime(day.year, day.month, day.day, tzinfo=None if offset is None else UTC)
    start += timedelta(hours=hour, minutes=minute, seconds=second)
    if offset is None or offset in "Zz":
        return start
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError
    shift = timedelta(hours=hours, minutes=minutes)
    return start + shift if offset[0] == "-" else start - shift


def instant(time: datetime, zone: ZoneInfo) -> datetime:
    """Return a time as an instant in UTC; a naive one is a wall time of the zone."""
    if time.tzinfo is None:
        time = time.replace(tzinfo=zone, fold=0)
    return time.astimezone(UTC)


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which a day begins in a zone."""
    return instant(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001  # a wall time


def write_instant(time: datetime, zone: ZoneInfo) -> str:
    """Return an instant with the offset that the zone has then."""
    return time.astimezone(zone).isoformat()
