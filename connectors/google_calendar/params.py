"""The parameters of the actions, as contract section 9 names them."""

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from connectors.google_calendar.fields import (
    MAX_MINUTES,
    Address,
    CalendarId,
    Calendars,
    Colour,
    Day,
    EventId,
    EventType,
    Guests,
    Minutes,
    Moment,
    Notify,
    Properties,
    Recurrence,
    Reminders,
    Weekday,
    When,
    Windows,
    Zone,
    check_order,
    is_day,
)
from connectors.sdk import Personal
from connectors.sdk.phone import is_phone_number

#: Slots or events that one answer holds at most; a reply has 1 MiB.
MAX_LIMIT = 1000

NOTIFY: Any = Field(default=None, description="Who is told; default: all guests, if there are any.")
ALLOW_PAST: Any = Field(default=False, description="Accept a start that is past.")


class CalendarParams(BaseModel):
    """What all have in common: no field that is not known, no change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Range(CalendarParams):
    time_zone: Zone | None = None
    range_start: Moment
    range_end: Moment = Field(examples=["2037-03-13T18:00"])

    @field_validator("range_end")
    @classmethod
    def _check_range(cls, end: datetime, info: ValidationInfo) -> datetime:
        if "range_start" in info.data:
            check_order(info.data["range_start"], end, info.data.get("time_zone"))
        return end


class RuleParams(CalendarParams):
    """When a time may be booked, beside being free."""

    step_minutes: Minutes | None = Field(
        default=None,
        description="From one start to the next; a search's default: the duration.",
    )
    working_hours: dict[Weekday, Windows] | None = Field(
        default=None,
        description="Wall-clock windows per weekday; without, every day round the clock.",
        examples=[{"mon": [["09:00", "17:00"]]}],
    )
    overrides: dict[Day, Windows] = Field(
        default={}, description="The hours of single days instead of the weekday's."
    )
    closed_dates: list[Day] = Field(default=[], max_length=1000)
    buffer_before_minutes: int = Field(default=0, ge=0, le=10_080)
    buffer_after_minutes: int = Field(default=0, ge=0, le=10_080)
    min_notice_minutes: int = Field(default=0, ge=0, le=MAX_MINUTES)

    @field_validator("overrides")
    @classmethod
    def _check_overrides(cls, overrides: dict[date, object]) -> dict[date, object]:
        if len(overrides) > 1000:
            raise ValueError("must be 1000 days at most")
        return overrides

    @field_validator("closed_dates")
    @classmethod
    def _check_closed(cls, closed: list[date], info: ValidationInfo) -> list[date]:
        both = sorted(set(closed) & set(info.data.get("overrides", ())))
        if both:
            raise ValueError(f"{both[0]} is in overrides, too")
        return closed


class FindSlots(_Range, RuleParams):
    """When is there time?"""

    calendars: Calendars = ["primary"]
    mode: Annotated[
        Literal["all", "any"], Field(description="`all`: every calendar is free then; `any`: at least one.")
    ] = "all"
    duration_minutes: Minutes = Field(examples=[30])
    max_advance_minutes: int | None = Field(default=None, ge=0, le=10 * MAX_MINUTES)
    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)
    as_of: Moment | None = Field(
        default=None, description="Notice and advance count from here; default: now."
    )


class _Times(CalendarParams):
    time_zone: Zone | None = None
    start: When
    end: When | None = Field(default=None, description="Of an all-day event: its last day.")
    duration_minutes: Minutes | None = Field(
        default=None, description="Instead of end.", validate_default=True, examples=[30]
    )

    @field_validator("end")
    @classmethod
    def _check_end(cls, end: date | None, info: ValidationInfo) -> date | None:
        if end is not None and info.data.get("start") is not None:
            check_order(info.data["start"], end, info.data.get("time_zone"))
        return end

    @field_validator("duration_minutes")
    @classmethod
    def _check_duration(cls, duration: int | None, info: ValidationInfo) -> int | None:
        if "start" not in info.data or "end" not in info.data:
            return duration  # one of them is wrong, and named
        if duration is not None:
            if info.data["end"] is not None:
                raise ValueError("is given beside end; one of them says how long it takes")
            if is_day(info.data["start"]):
                raise ValueError("is for timed events; end names the last day of an all-day event")
        elif info.data["end"] is None and not is_day(info.data["start"]):
            raise ValueError("is required, or end")
        return duration


class CheckAvailability(_Times):
    """Is this time free?"""

    calendars: Calendars = ["primary"]
    start: Moment
    end: Moment | None = None


class _NewEvent(_Times):
    """An event that is not there yet."""

    calendar_id: CalendarId = "primary"
    summary: Personal[str] = Field(min_length=1, max_length=1024, examples=["Check-up, Ada Lovelace"])
    description: Personal[str | None] = Field(default=None, max_length=8192)
    location: Personal[str | None] = Field(default=None, max_length=1024)
    attendees: Personal[Guests] = []
    notify: Notify | None = NOTIFY
    meet: bool = Field(default=False, description="With a Google Meet link.")
    reminders: Reminders | None = None
    private_properties: Personal[Properties] = {}
    transparency: Literal["opaque", "transparent"] | None = None
    visibility: Literal["default", "public", "private", "confidential"] | None = None
    color_id: Colour | None = None
    allow_past: bool = ALLOW_PAST


class BookAppointment(_NewEvent, RuleParams):
    """An event without recurrence, and the rules that its time must fit."""

    calendars: Calendars | None = Field(
        default=None, description="Further calendars that must be free then.", examples=[["primary"]]
    )

    @model_validator(mode="after")
    def _check_days(self) -> Self:
        given = self.model_fields_set & {"working_hours", "overrides", "step_minutes"}
        if is_day(self.start) and given:
            raise ValueError(f"{min(given)} is for timed events; start is a day")
        return self


class CreateEvent(_NewEvent):
    """An event."""

    recurrence: Recurrence | None = None
    conflict_check: bool = Field(
        default=False, description="Refuse with CONFLICT if the time is taken; not proof against a race."
    )

    @field_validator("conflict_check")
    @classmethod
    def _check_conflicts(cls, is_checked: bool, info: ValidationInfo) -> bool:
        if is_checked and info.data.get("recurrence") is not None:
            raise ValueError("cannot be combined with recurrence")
        return is_checked


class EventRef(CalendarParams):
    """Which event."""

    calendar_id: CalendarId = "primary"
    event_id: EventId


class ChangeRef(EventRef):
    """Which event is changed, and who hears of it."""

    scope: Literal["this", "following", "all"] = Field(
        default="this", description="Of a series: this occurrence, it and those to come, or all."
    )
    notify: Notify | None = NOTIFY


class CancelEvent(ChangeRef):
    """Which event is cancelled."""


class ChangeGuests(ChangeRef):
    """Guests who come or go."""

    attendees: Personal[Guests] = Field(min_length=1, examples=[["ada@example.com"]])


class Respond(ChangeRef):
    """This account's answer to an invitation."""

    response: Literal["accepted", "declined", "tentative"] = Field(examples=["accepted"])


class OtherTimes(ChangeRef):
    """New times of an event that is there; what is not said stays."""

    time_zone: Zone | None = None
    start: When | None = None
    end: When | None = None
    duration_minutes: Minutes | None = None
    conflict_check: bool = Field(
        default=True, description="Refuse a new time with CONFLICT if other events take it."
    )
    allow_past: bool = ALLOW_PAST

    @field_validator("end")
    @classmethod
    def _check_end(cls, end: date | None, info: ValidationInfo) -> date | None:
        if end is not None and info.data.get("start") is not None:
            check_order(info.data["start"], end, info.data.get("time_zone"))
        return end

    @field_validator("duration_minutes")
    @classmethod
    def _check_duration(cls, duration: int | None, info: ValidationInfo) -> int | None:
        if duration is not None:
            if info.data.get("end") is not None:
                raise ValueError("is given beside end; one of them says how long it takes")
            if info.data.get("start") is not None and is_day(info.data["start"]):
                raise ValueError("is for timed events; end names the last day of an all-day event")
        return duration


class RescheduleEvent(OtherTimes):
    """Another time for an event; without end and duration_minutes it stays as long as it is."""

    start: When


#: Parameters of an update that change nothing by themselves.
NO_CHANGES = frozenset(
    {"calendar_id", "event_id", "notify", "time_zone", "scope", "conflict_check", "allow_past"}
)


class UpdateEvent(OtherTimes):
    """The fields to change; null empties description, location and color_id."""

    summary: Personal[str | None] = Field(
        default=None, min_length=1, max_length=1024, examples=["Moved check-up"]
    )
    description: Personal[str | None] = Field(default=None, max_length=8192)
    location: Personal[str | None] = Field(default=None, max_length=1024)
    attendees: Personal[Guests | None] = Field(
        default=None, description="All guests from now on; who stays keeps their answer."
    )
    meet: bool | None = None
    reminders: Reminders | None = None
    recurrence: Recurrence | None = None
    private_properties: Personal[Properties | None] = Field(
        default=None, description="Added to those there are."
    )
    transparency: Literal["opaque", "transparent"] | None = None
    visibility: Literal["default", "public", "private", "confidential"] | None = None
    color_id: Colour | None = None

    @model_validator(mode="after")
    def _check_changes(self) -> Self:
        if not self.model_fields_set - NO_CHANGES:
            raise ValueError("no field to change is given")
        return self


class Coming(CalendarParams):
    """A range that begins now, unless the job says otherwise."""

    time_zone: Zone | None = None
    range_start: Moment | None = Field(default=None, description="Default: now.")
    range_end: Moment | None = None
    cursor: str | None = Field(default=None, max_length=4096, description="As the answer before gave it.")

    @field_validator("range_end")
    @classmethod
    def _check_range(cls, end: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("range_start")
        if (
            start is not None
            and end is not None
            and (start.tzinfo is None) == (end.tzinfo is None)
            and end <= start
        ):
            raise ValueError("must come after range_start")
        return end


class ListEvents(Coming):
    """Which events."""

    calendar_id: CalendarId = "primary"
    query: Personal[str | None] = Field(
        default=None, min_length=1, max_length=500, description="Words to find."
    )
    private_properties: Personal[Properties] = {}
    event_types: list[EventType] | None = Field(default=None, min_length=1, max_length=6)
    fields: Literal["full", "short"] = "full"
    limit: int = Field(default=100, ge=1, le=MAX_LIMIT)


class FindAppointments(Coming):
    """Whose appointments; an appointment matches all that is given."""

    phone: Personal[str | None] = Field(
        default=None, min_length=6, max_length=40, examples=["+90 532 111 22 33"]
    )
    email: Personal[Address | None] = None
    name: Personal[str | None] = Field(default=None, min_length=2, max_length=200)
    private_properties: Personal[Properties] = {}
    calendars: Calendars = ["primary"]
    limit: int = Field(default=10, ge=1, le=100)

    @field_validator("phone")
    @classmethod
    def _check_phone(cls, phone: str | None) -> str | None:
        if phone is not None and not is_phone_number(phone):
            raise ValueError("must be a phone number")
        return phone

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if not (self.phone or self.email or self.name or self.private_properties):
            raise ValueError("give phone, email, name or private_properties")
        return self
