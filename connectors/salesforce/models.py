"""The actions' results; records keep Salesforce's own field names."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Record = dict[str, Any]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ContactFound(_Answer):
    """A contact, if exactly one matches."""

    found: bool
    contact: Record | None = Field(description="Null if none matches, and if several do.")
    matches: int = Field(description="How many match.")
    candidates: list[Record] = Field(description="Those that match, if there are several.")


class CallerFound(_Answer):
    """A caller, if exactly one matches."""

    found: bool
    caller: Record | None = Field(description="With its `object`. Null if none matches, and if several do.")
    candidates: list[Record] = Field(description="Those that match, if there are several; people first.")


class LeadCreated(_Answer):
    """The lead."""

    lead_id: str
    created: bool = Field(description="False: an earlier run of the same job created it.")


class ContactCreated(_Answer):
    """The contact."""

    contact_id: str
    created: bool


class CaseCreated(_Answer):
    """The case."""

    case_id: str
    case_number: str | None = Field(description="The number that people use; null if it could not be read.")
    created: bool


class TaskCreated(_Answer):
    """The task."""

    task_id: str
    created: bool


class RecordCreated(_Answer):
    """The record."""

    object: str
    record_id: str
    created: bool


class LeadUpdated(_Answer):
    """The changed fields."""

    lead_id: str
    updated_fields: list[str]


class LeadConverted(_Answer):
    """The records that a lead became."""

    lead_id: str
    account_id: str | None
    contact_id: str | None
    opportunity_id: str | None = Field(description="Null if none was created.")


class FlowRun(_Answer):
    """A run of a flow."""

    name: str
    status: str = Field(description="Finished, or Waiting for an event or a time.")
    outputs: Record


class ContactUpdated(_Answer):
    """The changed fields."""

    contact_id: str
    updated_fields: list[str]


class CaseUpdated(_Answer):
    """The changed fields."""

    case_id: str
    updated_fields: list[str]


class RecordUpdated(_Answer):
    """The changed fields."""

    object: str
    record_id: str
    updated_fields: list[str]


class RecordDeleted(_Answer):
    """The deleted record."""

    object: str
    record_id: str
    deleted: bool


class CaseFound(_Answer):
    """The case."""

    case: Record


class CommentAdded(_Answer):
    """The comment."""

    comment_id: str
    case_id: str


class RecordFound(_Answer):
    """The record."""

    object: str
    record: Record


class Matches(_Answer):
    """Records, and how many match."""

    records: list[Record]
    total: int
    truncated: bool


class RecordPage(Matches):
    """Records of a query, and the way to the rest."""

    cursor: str | None = Field(description="For the records after these; null if there are none.")


class Described(_Answer):
    """An object and its fields."""

    name: str
    label: str
    createable: bool
    updateable: bool
    deletable: bool
    fields: list[Record]


class Limits(_Answer):
    """The org's limits, and what is left of them."""

    limits: dict[str, Any]
