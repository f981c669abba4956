"""The methods of the Calendar API that the sandbox answers."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.google_calendar.zones import zone_named
from connectors.sandbox.google.discovery import Request
from connectors.sandbox.google.event_body import ask_for_conference, merge, new_event, settle
from connectors.sandbox.google.faults import Refusal
from connectors.sandbox.google.store import (
    Actor,
    Calendar,
    Event,
    Store,
    busy_periods,
    drop_exceptions,
    exceptions_of,
    find_event,
    instance,
    moment,
    occurrences,
    write_time,
)

Answer = dict[str, Any] | None
Operation = Callable[[Store, Actor, Request, Mapping[str, str]], Answer]

#: The longest range that freeBusy takes, and the most calendars.
MAX_BUSY_RANGE: Final = timedelta(days=90)
MAX_BUSY_CALENDARS: Final = 50
_TIMES_ALONE: Final = frozenset({"kind", "etag", "id", "status", "start", "end", "updated"})


def insert_event(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """events.insert."""
    calendar = store.calendar(request.path["calendarId"], actor, "writer")
    event = new_event(store, calendar, request.body, actor)
    version = request.query.get("conferenceDataVersion", 0)
    ask_for_conference(store, calendar, event, request.body, version)
    store.stamp(event)
    store.keep(calendar, event)
    store.journal.write(store.now(), "created", calendar.id, event["id"], start=event["start"])
    _notify(store, calendar, event, request, "invited")
    return store.render(calendar, event)


def get_event(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """events.get; a cancelled event is still shown."""
    calendar = store.calendar(request.path["calendarId"], actor, "reader")
    event = find_event(calendar, request.path["eventId"])
    zone = _zone_asked(request)
    return store.render(calendar, event, zone)


def patch_event(store: Store, actor: Actor, request: Request, headers: Mapping[str, str]) -> Answer:
    """events.patch."""
    return _change(store, actor, request, headers, lambda event: merge(event, request.body))


def update_event(store: Store, actor: Actor, request: Request, headers: Mapping[str, str]) -> Answer:
    """events.update: what is not said is gone."""
    kept = ("kind", "id", "htmlLink", "created", "creator", "organizer", "iCalUID", "sequence", "eventType")

    def replace(event: Event) -> Event:
        base = {name: event[name] for name in kept if name in event}
        return merge({**base, "status": "confirmed", "reminders": {"useDefault": True}}, request.body)

    return _change(store, actor, request, headers, replace)


def _change(
    store: Store,
    actor: Actor,
    request: Request,
    headers: Mapping[str, str],
    change: Callable[[Event], Event],
) -> Answer:
    calendar = store.calendar(request.path["calendarId"], actor, "writer")
    event = find_event(calendar, request.path["eventId"])
    _check_etag(event, headers)
    if event["status"] == "cancelled":
        raise Refusal(403, "forbidden", "Forbidden")
    changed = change(event)
    if (changed["start"], changed["end"]) != (event["start"], event["end"]):
        changed["sequence"] = changed.get("sequence", 0) + 1
    settle(calendar, changed, actor)
    version = request.query.get("conferenceDataVersion", 0)
    ask_for_conference(store, calendar, changed, request.body, version)
    store.stamp(changed)
    store.keep(calendar, changed)
    if changed.get("recurrence") != event.get("recurrence"):
        drop_exceptions(store, calendar, changed)
    store.journal.write(
        store.now(),
        "changed",
        calendar.id,
        changed["id"],
        fields=sorted(request.body),
        start=changed["start"],
    )
    _notify(store, calendar, changed, request, "updated")
    here = [guest["email"] for guest in changed.get("attendees", ())]
    gone = [guest for guest in event.get("attendees", ()) if guest["email"] not in here]
    _notify(store, calendar, {**changed, "attendees": gone}, request, "uninvited")
    return store.render(calendar, changed)


def delete_event(store: Store, actor: Actor, request: Request, headers: Mapping[str, str]) -> Answer:
    """events.delete; the id stays taken."""
    calendar = store.calendar(request.path["calendarId"], actor, "writer")
    event = deepcopy(find_event(calendar, request.path["eventId"]))
    if event["status"] == "cancelled":
        raise Refusal(410, "deleted", "Resource has been deleted")
    _check_etag(event, headers)
    event["status"] = "cancelled"
    store.stamp(event)
    store.keep(calendar, event)
    if event.get("recurrence"):
        drop_exceptions(store, calendar, event)
    store.journal.write(store.now(), "cancelled", calendar.id, event["id"])
    _notify(store, calendar, event, request, "cancelled")
    return None


def list_events(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """events.list; who may see free/busy alone sees times alone."""
    query = request.query
    calendar = store.calendar(request.path["calendarId"], actor, "freeBusyReader")
    role = calendar.acl.get(actor.email, calendar.acl.get("*"))
    if query.get("orderBy") == "startTime" and not query.get("singleEvents"):
        raise Refusal(400, "badRequest", "The requested ordering is not available for the particular query.")
    since, until = (
        datetime.fromisoformat(query[name]) if name in query else None for name in ("timeMin", "timeMax")
    )
    if since is not None and until is not None and since >= until:
        raise Refusal(400, "timeRangeEmpty", "The specified time range is empty.")
    found = []
    for event in store.listed(calendar):
        if event["status"] == "cancelled" and not query.get("showDeleted"):
            continue
        if not _fits(event, query):
            continue
        times = list(occurrences(calendar, event, since, until))
        if query.get("singleEvents"):
            found += [(each.start, instance(calendar, each)) for each in times]
        elif times:
            found.append((moment(event["start"], calendar.zone), event))
    if query.get("orderBy") == "startTime":
        found.sort(key=lambda pair: pair[0])
    zone = _zone_asked(request)
    page, token = _page(store, found, query)
    answer: dict[str, Any] = {
        "kind": "calendar#events",
        "summary": calendar.summary,
        "timeZone": zone.key if zone is not None else calendar.time_zone,
        "accessRole": role,
        "defaultReminders": [],
        "items": [
            {name: value for name, value in shown.items() if role != "freeBusyReader" or name in _TIMES_ALONE}
            for shown in (store.render(calendar, event, zone) for _, event in page)
        ],
    }
    return answer | ({"nextPageToken": token} if token else {"nextSyncToken": "sandbox"})


def list_instances(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """events.instances: the occurrences of one series, those that were changed among them."""
    query = request.query
    calendar = store.calendar(request.path["calendarId"], actor, "reader")
    series = find_event(calendar, request.path["eventId"])
    found = [instance(calendar, each) for each in occurrences(calendar, series, None, None)]
    found += [
        each
        for each in exceptions_of(calendar, series)
        if each["status"] != "cancelled" or query.get("showDeleted")
    ]
    found.sort(key=lambda event: moment(event["originalStartTime"], calendar.zone))
    page, token = _page(store, found, query)
    answer: dict[str, Any] = {
        "kind": "calendar#events",
        "timeZone": calendar.time_zone,
        "items": [store.render(calendar, event) for event in page],
    }
    return answer | ({"nextPageToken": token} if token else {})


def _fits(event: Event, query: Mapping[str, Any]) -> bool:
    private = event.get("extendedProperties", {}).get("private", {})
    for wanted in query.get("privateExtendedProperty", ()):
        name, _, value = wanted.partition("=")
        if private.get(name) != value:
            return False
    if "iCalUID" in query and event["iCalUID"] != query["iCalUID"]:
        return False
    if "eventTypes" in query and event["eventType"] not in query["eventTypes"]:
        return False
    words = query.get("q", "").lower().split()
    texts = [event.get(name, "") for name in ("summary", "description", "location")]
    texts += [guest["email"] for guest in event.get("attendees", ())]
    return all(word in " ".join(texts).lower() for word in words)


def _page(store: Store, found: list[Any], query: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    """Return one page; its token is bound to the query."""
    asked = json.dumps({name: query[name] for name in sorted(query) if name != "pageToken"})
    offset, size = 0, min(query.get("maxResults", 250), 2500, store.page_limit)
    if "pageToken" in query:
        try:
            offset, of = json.loads(urlsafe_b64decode(query["pageToken"]))
        except ValueError:
            of = None
        if of != asked:
            raise Refusal(400, "invalid", "Invalid page token value.")
    elif store.empty_first_page:
        size = 0
    rest = len(found) > offset + size
    token = urlsafe_b64encode(json.dumps([offset + size, asked]).encode()).decode() if rest else None
    return found[offset : offset + size], token


def query_busy(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """freebusy.query."""
    body = request.body
    if "timeMin" not in body or "timeMax" not in body:
        raise Refusal(400, "required", "Missing timeMin or timeMax parameter.")
    since, until = datetime.fromisoformat(body["timeMin"]), datetime.fromisoformat(body["timeMax"])
    if since >= until:
        raise Refusal(400, "timeRangeEmpty", "The specified time range is empty.")
    if until - since > MAX_BUSY_RANGE:
        raise Refusal(400, "timeRangeTooLong", "The requested time range is too long.")
    try:
        zone = zone_named(body.get("timeZone", "UTC"))
    except ValueError:
        raise Refusal(400, "invalid", "Invalid time zone.") from None
    calendars: dict[str, Any] = {}
    for index, item in enumerate(body.get("items", [])):
        try:
            if index >= MAX_BUSY_CALENDARS:
                raise Refusal(403, "tooManyCalendarsRequested", "")
            calendar = store.calendar(item["id"], actor, "freeBusyReader")
        except Refusal as refusal:
            calendars[item["id"]] = {"errors": [{"domain": "global", "reason": refusal.reason}], "busy": []}
            continue
        calendars[item["id"]] = {
            "busy": [
                {"start": write_time(start, zone), "end": write_time(end, zone)}
                for start, end in busy_periods(store, calendar, since, until)
            ]
        }
    return {
        "kind": "calendar#freeBusy",
        "timeMin": write_time(since, zone),
        "timeMax": write_time(until, zone),
        "calendars": calendars,
    }


def list_calendars(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """calendarList.list."""
    found = [calendar for calendar in store.calendars.values() if actor.email in calendar.acl]
    page, token = _page(store, found, request.query)
    answer = {"kind": "calendar#calendarList", "items": [_entry(each, actor) for each in page]}
    return answer | ({"nextPageToken": token} if token else {})


def get_calendar_entry(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """calendarList.get."""
    return _entry(store.calendar(request.path["calendarId"], actor, "freeBusyReader"), actor)


def get_calendar(store: Store, actor: Actor, request: Request, _headers: Mapping[str, str]) -> Answer:
    """calendars.get."""
    calendar = store.calendar(request.path["calendarId"], actor, "reader")
    return {
        "kind": "calendar#calendar",
        "etag": '"1"',
        "id": calendar.id,
        "summary": calendar.summary,
        "timeZone": calendar.time_zone,
    }


def _entry(calendar: Calendar, actor: Actor) -> dict[str, Any]:
    return {
        "kind": "calendar#calendarListEntry",
        "etag": '"1"',
        "id": calendar.id,
        "summary": calendar.summary,
        "timeZone": calendar.time_zone,
        "accessRole": calendar.acl.get(actor.email, calendar.acl.get("*")),
        **({"primary": True} if calendar.id == actor.email else {}),
    }


def _check_etag(event: Event, headers: Mapping[str, str]) -> None:
    if headers.get("If-Match", "*") not in {"*", event["etag"]}:
        raise Refusal(412, "conditionNotMet", "Precondition Failed")


def _zone_asked(request: Request) -> Any:
    if "timeZone" not in request.query:
        return None
    try:
        return zone_named(request.query["timeZone"])
    except ValueError:
        raise Refusal(400, "invalid", "Invalid time zone.") from None


def _notify(store: Store, calendar: Calendar, event: Event, request: Request, what: str) -> None:
    mode = request.query.get("sendUpdates", "none")
    guests = [guest["email"] for guest in event.get("attendees", ()) if guest["email"] != calendar.owner]
    if mode == "externalOnly":
        guests = [email for email in guests if email not in store.accounts]
    if mode != "none" and guests:
        store.journal.write(
            store.now(), "notified", calendar.id, event["id"], what=what, to=guests, mode=mode
        )


#: What is answered; everything else of the document is not implemented.
OPERATIONS: Final[Mapping[str, Operation]] = {
    "events.insert": insert_event,
    "events.get": get_event,
    "events.patch": patch_event,
    "events.update": update_event,
    "events.delete": delete_event,
    "events.list": list_events,
    "events.instances": list_instances,
    "freebusy.query": query_busy,
    "calendarList.list": list_calendars,
    "calendarList.get": get_calendar_entry,
    "calendars.get": get_calendar,
}
