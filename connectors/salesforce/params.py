"""The parameters of the actions, as contract section 9 names them."""

import datetime as dt
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from connectors.salesforce.fields import (
    CaseNumber,
    Email,
    FieldPaths,
    FieldValues,
    Long,
    Phone,
    RecordId,
    Short,
    Words,
)
from connectors.sdk import Personal

#: Most records of one answer; a reply has 1 MiB.
MAX_LIMIT: Final = 2000
#: Characters of a comment on a case; Salesforce's own limit.
MAX_COMMENT_CHARS: Final = 4000

AnyPhone = Annotated[str, Field(min_length=1, max_length=40)]

UpdatingT = TypeVar("UpdatingT", bound=BaseModel)


class SalesforceParams(BaseModel):
    """Base of all parameters: unknown fields are refused, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def check_one_of(self, *names: str) -> None:
        """Check that exactly one of these parameters is given.

        Raises:
            ValueError: none or several are given.
        """
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"exactly one of {', '.join(names)} must be given")


class SaveOptions(SalesforceParams):
    """How the org's rules apply to a write."""

    allow_duplicates: bool = Field(
        default=False, description="Save although a duplicate rule warns; one that blocks stays."
    )
    assignment_rule: Literal["default", "none"] | RecordId | None = Field(
        default=None,
        description="Which assignment rule chooses the owner of a case or lead: the active one, none, or the rule "
        "of this id. Default: none if the job names an owner, otherwise the active one.",
    )


class GetContact(SalesforceParams):
    """Which contact, by exactly one of four."""

    contact_id: RecordId | None = None
    email: Personal[Email | None] = None
    phone: Personal[Phone | None] = None
    name: Personal[Words | None] = Field(default=None, examples=["Ada Lovelace"])
    fields: FieldPaths | None = Field(
        default=None, description="The fields to return besides Id. Default: the usual ones."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check_one_of("contact_id", "email", "phone", "name")
        return self


class FindCaller(SalesforceParams):
    """Who is calling, by exactly one of three."""

    phone: Personal[Phone | None] = None
    email: Personal[Email | None] = None
    name: Personal[Words | None] = Field(default=None, examples=["Ada Lovelace"])
    objects: list[Literal["Contact", "Lead", "Account"]] = Field(
        default=["Contact", "Lead", "Account"], min_length=1, max_length=3, description="Where to look."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.check_one_of("phone", "email", "name")
        if len(set(self.objects)) < len(self.objects):
            raise ValueError("objects must name each object once")
        return self


class _Person(SaveOptions):
    first_name: Personal[str | None] = Field(default=None, min_length=1, max_length=40)
    email: Personal[Email | None] = None
    phone: Personal[AnyPhone | None] = None
    title: str | None = Field(default=None, min_length=1, max_length=128)
    description: Personal[Long | None] = None
    fields: Personal[FieldValues] = {}


class CreateLead(_Person):
    """A new lead."""

    last_name: Personal[str] = Field(min_length=1, max_length=80, examples=["Lovelace"])
    company: Short | None = Field(
        default=None,
        description="Required unless the org has person accounts.",
        examples=["Analytical Engines"],
    )
    lead_source: Short | None = None
    status: Short | None = None


class UpdateLead(_Person):
    """The fields of a lead to change."""

    lead_id: RecordId
    last_name: Personal[str | None] = Field(default=None, min_length=1, max_length=80)
    company: Short | None = None
    lead_source: Short | None = None
    status: Short | None = Field(default=None, examples=["Working - Contacted"])
    owner_id: RecordId | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _with_changes(self, "lead_id")


class ConvertLead(SalesforceParams):
    """Which lead, and what it becomes a part of."""

    lead_id: RecordId
    account_id: RecordId | None = Field(default=None, description="Default: a new account.")
    contact_id: RecordId | None = Field(default=None, description="Of `account_id`. Default: a new contact.")
    create_opportunity: bool = True
    opportunity_name: Short | None = Field(default=None, description="Default: the company's name.")
    converted_status: Short | None = Field(default=None, description="Default: the org's first.")
    owner_id: RecordId | None = Field(default=None, description="Required for a lead that a queue owns.")
    allow_duplicates: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.contact_id is not None and self.account_id is None:
            raise ValueError("contact_id needs account_id, the contact's account")
        if self.opportunity_name is not None and not self.create_opportunity:
            raise ValueError("opportunity_name needs create_opportunity")
        return self


class CreateContact(_Person):
    """A new contact."""

    last_name: Personal[str] = Field(min_length=1, max_length=80, examples=["Lovelace"])
    account_id: RecordId | None = None
    mobile_phone: Personal[AnyPhone | None] = None


class UpdateContact(_Person):
    """The fields of a contact to change."""

    contact_id: RecordId
    last_name: Personal[str | None] = Field(default=None, min_length=1, max_length=80)
    account_id: RecordId | None = None
    mobile_phone: Personal[AnyPhone | None] = Field(default=None, examples=["+90 532 111 22 33"])
    owner_id: RecordId | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _with_changes(self, "contact_id")


class _CaseRef(SalesforceParams):
    case_id: RecordId | None = None
    case_number: CaseNumber | None = Field(default=None, examples=["00001026"])

    @model_validator(mode="after")
    def _check_ref(self) -> Self:
        self.check_one_of("case_id", "case_number")
        return self


class GetCase(_CaseRef):
    """Which case."""

    fields: FieldPaths | None = Field(
        default=None, description="The fields to return besides Id. Default: the usual ones."
    )


class CreateCase(SaveOptions):
    """A new case."""

    subject: Personal[Short] = Field(examples=["Printer on fire"])
    description: Personal[Long | None] = None
    status: Short | None = None
    priority: Short | None = None
    origin: Short | None = None
    contact_id: RecordId | None = None
    account_id: RecordId | None = None
    owner_id: RecordId | None = None
    fields: Personal[FieldValues] = {}


class UpdateCase(_CaseRef, SaveOptions):
    """The fields of a case to change, and a comment."""

    status: Short | None = Field(default=None, examples=["Working"])
    priority: Short | None = None
    subject: Personal[Short | None] = None
    description: Personal[Long | None] = None
    owner_id: RecordId | None = None
    comment: Personal[str | None] = Field(default=None, min_length=1, max_length=MAX_COMMENT_CHARS)
    fields: Personal[FieldValues] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        return _with_changes(self, "case_id", "case_number")


class AddComment(_CaseRef):
    """The comment, and the case."""

    comment: Personal[str] = Field(min_length=1, max_length=MAX_COMMENT_CHARS, examples=["Called back"])
    public: bool = Field(default=False, description="Whether the customer may see it.")


class _Activity(SaveOptions):
    subject: Personal[Short]
    description: Personal[Long | None] = None
    who_id: RecordId | None = Field(default=None, description="A contact or lead.")
    what_id: RecordId | None = Field(default=None, description="An account, case or other record.")
    owner_id: RecordId | None = None
    fields: Personal[FieldValues] = {}


class CreateTask(_Activity):
    """A task to be done."""

    subject: Personal[Short] = Field(examples=["Call back"])
    status: Short | None = None
    priority: Short | None = None
    due_date: dt.date | None = None


class LogCall(_Activity):
    """A call that took place."""

    subject: Personal[Short] = Field(default="Call", examples=["Call"])
    direction: Literal["inbound", "outbound"] = "inbound"
    duration_seconds: int | None = Field(default=None, ge=0, le=86_400)
    result: Short | None = Field(default=None, description="How it ended.", examples=["Appointment made"])
    call_date: dt.date | None = Field(default=None, description="Default: today, in `time_zone`.")
    time_zone: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Default: the org's.",
        examples=["Europe/Istanbul"],
    )


def _with_changes(params: UpdatingT, *refs: str) -> UpdatingT:
    changes = params.model_fields_set - {*refs, *SaveOptions.model_fields}
    if not any(getattr(params, name) not in (None, {}) for name in changes):
        raise ValueError("at least one field to change must be given")
    return params
