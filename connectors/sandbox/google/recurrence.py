"""When a recurring event happens: enough of RFC 5545 to develop against.

FREQ daily, weekly, monthly and yearly, with INTERVAL, COUNT, UNTIL, BYDAY (with a place in the month
for monthly rules), BYMONTHDAY and BYMONTH; EXDATE and RDATE. Anything else is refused.
"""

import re
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from connectors.sandbox.google.faults import Refusal

_DAYS = {name: index for index, name in enumerate(("MO", "TU", "WE", "TH", "FR", "SA", "SU"))}
_KNOWN = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYDAY", "BYMONTHDAY", "BYMONTH", "WKST"}
_BYDAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
#: Days looked at beyond the start: ten years.
_HORIZON_DAYS = 3660


@dataclass(frozen=True, slots=True)
class Rule:
    """One RRULE, read."""

    frequency: str
    interval: int = 1
    count: int | None = None
    until: datetime | None = None
    by_day: frozenset[tuple[int, int]] = frozenset()
    by_month_day: frozenset[int] = frozenset()
    by_month: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Recurrence:
    """When an event happens again."""

    rule: Rule | None
    added: Sequence[datetime] = field(default_factory=tuple)
    excluded: frozenset[datetime] = frozenset()

    def starts(self, first: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """Yield the starts, as instants in UTC, ascending; wall-clock time stays what it is."""
        wall = first.astimezone(zone).replace(tzinfo=None)
        found = {first} if self.rule is None else set(_expand(self.rule, wall, zone))
        yield from sorted((found | set(self.added)) - self.excluded)


def read_recurrence(lines: Sequence[str], zone: ZoneInfo) -> Recurrence:
    """Read an event's `recurrence`.

    Raises:
        Refusal: a line is not understood.
    """
    rule: Rule | None = None
    added: list[datetime] = []
    excluded: set[datetime] = set()
    for line in lines:
        name, _, value = line.partition(":")
        if name == "RRULE" and rule is None:
            rule = _read_rule(value, zone)
        elif name.split(";")[0] in {"EXDATE", "RDATE"}:
            moments = [_read_moment(part, zone) for part in value.split(",")]
            if name.startswith("EXDATE"):
                excluded |= set(moments)
            else:
                added += moments
        else:
            raise Refusal(400, "invalid", f"recurrence line {name} is not understood")
    return Recurrence(rule, tuple(added), frozenset(excluded))


def _read_rule(text: str, zone: ZoneInfo) -> Rule:
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    try:
        if set(parts) - _KNOWN or parts["FREQ"] not in {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}:
            raise ValueError
        days = [_BYDAY.fullmatch(day) for day in parts.get("BYDAY", "").split(",") if day]
        return Rule(
            parts["FREQ"],
            int(parts.get("INTERVAL", 1)),
            int(parts["COUNT"]) if "COUNT" in parts else None,
            _read_moment(parts["UNTIL"], zone, last=True) if "UNTIL" in parts else None,
            frozenset((int(day[1] or 0), _DAYS[day[2]]) for day in days if day is not None),
            frozenset(int(day) for day in parts.get("BYMONTHDAY", "").split(",") if day),
            frozenset(int(month) for month in parts.get("BYMONTH", "").split(",") if month),
        )
    except (ValueError, KeyError):
        raise Refusal(400, "invalid", "the recurrence rule is not understood") from None


def _read_moment(text: str, zone: ZoneInfo, *, last: bool = False) -> datetime:
    try:
        if len(text) == 8:
            day = datetime.strptime(text, "%Y%m%d").replace(tzinfo=zone)
            return (day + timedelta(days=1, seconds=-1) if last else day).astimezone(UTC)
        if text.endswith("Z"):
            return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=zone).astimezone(UTC)
    except ValueError:
        raise Refusal(400, "invalid", f"{text} is no time of a recurrence") from None


def _expand(rule: Rule, wall: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    count = 0
    for days in range(_HORIZON_DAYS):
        day = wall.date() + timedelta(days=days)
        if days and not _matches(rule, day, wall.date()):
            continue
        start = datetime.combine(day, wall.time(), zone).astimezone(UTC)
        if rule.until is not None and start > rule.until:
            return
        yield start
        count += 1
        if rule.count is not None and count >= rule.count:
            return


def _matches(rule: Rule, day: date, first: date) -> bool:
    if not _is_in_interval(rule, day, first):
        return False
    if rule.by_month and day.month not in rule.by_month:
        return False
    last = monthrange(day.year, day.month)[1]
    if rule.by_month_day:
        return bool(rule.by_month_day & {day.day, day.day - last - 1})
    if rule.by_day:
        place = (day.day - 1) // 7 + 1
        from_end = -((last - day.day) // 7 + 1)
        return bool(rule.by_day & {(0, day.weekday()), (place, day.weekday()), (from_end, day.weekday())})
    return {
        "DAILY": True,
        "WEEKLY": day.weekday() == first.weekday(),
        "MONTHLY": day.day == first.day,
        "YEARLY": (day.month, day.day) == (first.month, first.day)
        or (bool(rule.by_month) and day.day == first.day),
    }[rule.frequency]


def _is_in_interval(rule: Rule, day: date, first: date) -> bool:
    if rule.frequency == "DAILY":
        apart = (day - first).days
    elif rule.frequency == "WEEKLY":
        monday = first - timedelta(days=first.weekday())
        apart = (day - monday).days // 7
    elif rule.frequency == "MONTHLY":
        apart = (day.year - first.year) * 12 + day.month - first.month
    else:
        apart = day.year - first.year
    return apart % rule.interval == 0


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which a day begins."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
