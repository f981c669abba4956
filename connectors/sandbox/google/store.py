"""The accounts and calendars of a Google sandbox, and when their events take place."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.google_calendar.zones import zone_named
from connectors.sandbox.google.faults import Journal, Refusal
from connectors.sandbox.google.recurrence import midnight, read_recurrence

Event = dict[str, Any]

#: What each role may do, least first.
ROLES: Final = ("freeBusyReader", "reader", "writer", "owner")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who a request comes from."""

    email: str
    scopes: frozenset[str]
    #: A service account that speaks for itself: it cannot invite anybody.
    is_bare_service_account: bool = False


@dataclass(slots=True, eq=False)
class Calendar:
    """A calendar and its events, cancelled ones included: their ids stay taken."""

    id: str
    summary: str
    time_zone: str
    owner: str
    acl: dict[str, str] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    #: How often an event is still shown with its conference pending.
    pending: dict[str, int] = field(default_factory=dict)
    #: What was there at which time, for listings that lag behind.
    past: list[tuple[datetime, dict[str, Event]]] = field(default_factory=list)

    @property
    def zone(self) -> ZoneInfo:
        """Its time zone."""
        return zone_named(self.time_zone)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that an event takes place."""

    event: Event
    start: datetime
    end: datetime
    #: None for an event that happens once.
    instance_id: str | None = None


class Store:
    """Everything the sandbox remembers.

    Args:
        clock: tells the time, in UTC.
    """

    def __init__(self, journal: Journal, clock: Callable[[], datetime]) -> None:
        self.journal = journal
        self.now = clock
        self.calendars: dict[str, Calendar] = {}
        self.accounts: set[str] = set()
        #: How often a new conference is shown as pending before it is there.
        self.meet_pending_reads = 0
        #: Whether Google cannot make conferences.
        self.meet_fails = False
        #: How far listings lag behind what was written.
        self.listing_lag = timedelta(0)
        #: Events a page at most, whatever is asked for: pages may be short.
        self.page_limit = 2500
        #: Whether each listing begins with an empty page, as Google's may.
        self.empty_first_page = False
        #: Whether freeBusy joins busy periods and cuts them to the range. Google's habit is not documented.
        self.merges_busy = True
        self._stamp = 0

    def add_account(self, email: str, *, time_zone: str = "UTC") -> Calendar:
        """Add an account with its primary calendar, whose id is the address."""
        self.accounts.add(email)
        return self.add_calendar(email, owner=email, name=email, time_zone=time_zone)

    def add_calendar(
        self, calendar_id: str, *, owner: str, name: str = "", time_zone: str = "UTC"
    ) -> Calendar:
        """Add a calendar that an account owns."""
        zone_named(time_zone)
        calendar = Calendar(calendar_id, name or calendar_id, time_zone, owner, {owner: "owner"})
        self.calendars[calendar_id] = calendar
        return calendar

    def calendar(self, calendar_id: str, actor: Actor, role: str) -> Calendar:
        """Find a calendar that an account may use so.

        Raises:
            Refusal: it is not there for this account, or the role is too low.
        """
        calendar = self.calendars.get(actor.email if calendar_id == "primary" else calendar_id)
        held = None if calendar is None else calendar.acl.get(actor.email, calendar.acl.get("*"))
        if calendar is None or held is None:
            raise Refusal(404, "notFound", "Not Found")
        if ROLES.index(held) < ROLES.index(role):
            raise Refusal(403, "requiredAccessLevel", f"You need to have {role} access to this calendar.")
        return calendar

    def keep(self, calendar: Calendar, event: Event) -> None:
        """Store an event as it is from now on."""
        if self.listing_lag:
            calendar.past = calendar.past or [(datetime.min.replace(tzinfo=UTC), dict(calendar.events))]
        calendar.events[event["id"]] = event
        if self.listing_lag:
            calendar.past.append((self.now(), dict(calendar.events)))

    def listed(self, calendar: Calendar) -> list[Event]:
        """Return the events that a listing shows."""
        if not self.listing_lag or not calendar.past:
            return list(calendar.events.values())
        shown_at = self.now() - self.listing_lag
        return list([events for at, events in calendar.past if at <= shown_at][-1].values())

    def stamp(self, event: Event) -> None:
        """Mark an event as changed now."""
        now = self.now()
        self._stamp = max(self._stamp + 1, int(now.timestamp() * 1_000_000) * 2)
        event["etag"] = f'"{self._stamp}"'
        event["updated"] = (
            now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z"
        )

    def render(self, calendar: Calendar, event: Event, zone: ZoneInfo | None = None) -> Event:
        """Return an event as the API does; each read brings a pending conference one step nearer."""
        shown = deepcopy(event)
        for name in ("start", "end", "originalStartTime"):
            if "dateTime" in shown.get(name, {}):
                instant = datetime.fromisoformat(shown[name]["dateTime"])
                shown[name]["dateTime"] = write_time(instant, zone or calendar.zone)
        for guest in shown.get("attendees", ()):
            guest.pop("self", None)
            if guest["email"] == calendar.owner:
                guest["self"] = True
        if "conferenceData" in event and event["id"] in calendar.pending:
            calendar.pending[event["id"]] -= 1
            if calendar.pending[event["id"]] < 0:
                del calendar.pending[event["id"]]
                self.finish_conference(event)
        return shown

    def finish_conference(self, event: Event) -> None:
        """Complete the conference that was requested, or fail it if that was asked for."""
        if self.meet_fails:
            event["conferenceData"]["createRequest"]["status"] = {"statusCode": "failure"}
        else:
            complete_conference(event)


def complete_conference(event: Event) -> None:
    """Complete the conference that was requested."""
    request = event["conferenceData"]["createRequest"]
    request["status"] = {"statusCode": "success"}
    code = "-".join((event["id"] * 3)[at : at + 3] for at in (0, 3, 6))
    uri = f"https://meet.google.com/{code}"
    event["conferenceData"] |= {
        "conferenceId": code,
        "conferenceSolution": {"key": {"type": "hangoutsMeet"}, "name": "Google Meet"},
        "entryPoints": [{"entryPointType": "video", "uri": uri, "label": uri.removeprefix("https://")}],
    }
    event["hangoutLink"] = uri


def write_time(instant: datetime, zone: ZoneInfo) -> str:
    """Return an instant as the API does, `Z` where the zone is at UTC."""
    return instant.astimezone(zone).isoformat(timespec="seconds").replace("+00:00", "Z")


def moment(time: Mapping[str, Any], zone: ZoneInfo) -> datetime:
    """Return an event's start or end as an instant; days are days of the calendar's zone."""
    if "date" in time:
        return midnight(date.fromisoformat(time["date"]), zone)
    return datetime.fromisoformat(time["dateTime"]).astimezone(UTC)


def occurrences(
    calendar: Calendar, event: Event, since: datetime | None, until: datetime | None
) -> Iterator[Occurrence]:
    """Yield when an event takes place within a range, ascending."""
    start, end = moment(event["start"], calendar.zone), moment(event["end"], calendar.zone)
    if not event.get("recurrence"):
        if _meets(start, end, since, until):
            yield Occurrence(event, start, end)
        return
    zone = zone_named(event["start"].get("timeZone", calendar.time_zone))
    days: timedelta | None = None
    if "date" in event["start"]:
        zone = calendar.zone
        days = date.fromisoformat(event["end"]["date"]) - date.fromisoformat(event["start"]["date"])
    for each in read_recurrence(event["recurrence"], zone).starts(start, zone):
        if until is not None and each >= until:
            return
        if days is not None:
            first = each.astimezone(zone).date()
            last = midnight(first + days, zone)
            instance_id = f"{event['id']}_{first:%Y%m%d}"
        else:
            last = each + (end - start)
            instance_id = f"{event['id']}_{each:%Y%m%dT%H%M%SZ}"
        if _meets(each, last, since, until) and instance_id not in calendar.events:
            yield Occurrence(event, each, last, instance_id)


def instance(calendar: Calendar, occurrence: Occurrence) -> Event:
    """Return one occurrence of a recurring event as an event of its own."""
    event = deepcopy(occurrence.event)
    if occurrence.instance_id is None:
        return event
    del event["recurrence"]
    event["id"], event["recurringEventId"] = occurrence.instance_id, occurrence.event["id"]
    for name, time in (("start", occurrence.start), ("end", occurrence.end)):
        if "date" in event[name]:
            event[name] = {"date": time.astimezone(calendar.zone).date().isoformat()}
        else:
            event[name]["dateTime"] = write_time(time, calendar.zone)
    event["originalStartTime"] = deepcopy(event["start"])
    return event


def find_event(calendar: Calendar, event_id: str) -> Event:
    """Find an event, or one occurrence of a recurring one.

    Raises:
        Refusal: there is none.
    """
    if event_id in calendar.events:
        return calendar.events[event_id]
    series = calendar.events.get(event_id.rpartition("_")[0])
    if series is not None and series.get("recurrence") and series["status"] != "cancelled":
        for each in occurrences(calendar, series, None, None):
            if each.instance_id == event_id:
                return instance(calendar, each)
    raise Refusal(404, "notFound", "Not Found")


def exceptions_of(calendar: Calendar, series: Event) -> list[Event]:
    """Return the occurrences of a series that were changed or cancelled one by one."""
    return [event for event in calendar.events.values() if event.get("recurringEventId") == series["id"]]


def drop_exceptions(store: Store, calendar: Calendar, series: Event) -> None:
    """Cancel the changed occurrences that a series has no longer."""
    bare = Calendar(calendar.id, calendar.summary, calendar.time_zone, calendar.owner)
    ids = {each.instance_id for each in occurrences(bare, series, None, None)}
    for event in exceptions_of(calendar, series):
        if event["id"] not in ids or series["status"] == "cancelled":
            event["status"] = "cancelled"
            store.stamp(event)


def is_busy(calendar: Calendar, event: Event) -> bool:
    """Return whether an event takes up its calendar's owner."""
    declined = any(
        guest.get("email") == calendar.owner and guest.get("responseStatus") == "declined"
        for guest in event.get("attendees", ())
    )
    return (
        event["status"] != "cancelled"
        and event.get("transparency") != "transparent"
        and event.get("eventType") not in {"workingLocation", "birthday"}
        and not declined
    )


def busy_periods(
    store: Store, calendar: Calendar, since: datetime, until: datetime
) -> list[tuple[datetime, datetime]]:
    """List when a calendar's owner is busy within a range."""
    found = sorted(
        (each.start, each.end)
        for event in store.listed(calendar)
        if is_busy(calendar, event)
        for each in occurrences(calendar, event, since, until)
    )
    if not store.merges_busy:
        return found
    merged: list[tuple[datetime, datetime]] = []
    for start, end in found:
        start, end = max(start, since), min(end, until)  # noqa: PLW2901  # cut to the range
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _meets(start: datetime, end: datetime, since: datetime | None, until: datetime | None) -> bool:
    if start == end:
        end += timedelta(microseconds=1)
    return (since is None or end > since) and (until is None or start < until)
