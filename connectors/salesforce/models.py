"""What the actions answer; records keep Salesforce's own names."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Record = dict[str, Any]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ContactFound(_Answer):
    """Whether there is such a contact, and which."""

    found: bool
    contact: Record | None = Field(description="Null where none fits, and where several do.")
    matches: int = Field(description="How many fit.")
    candidates: list[Record] = Field(description="Those that fit, where they are several.")


class LeadCreated(_Answer):
    """The lead."""

    lead_id: str
    created: bool = Field(description="False: an earlier run of the same job had made it.")


class ContactCreated(_Answer):
    """The contact."""

    contact_id: str
    created: bool


class CaseCreated(_Answer):
    """The case."""

    case_id: str
    case_number: str | None = Field(description="As people name it; null where it could not be read.")
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
    """What was changed."""

    lead_id: str
    updated_fields: list[str]


class ContactUpdated(_Answer):
    """What was changed."""

    contact_id: str
    updated_fields: list[str]


class CaseUpdated(_Answer):
    """What was changed."""

    case_id: str
    updated_fields: list[str]


class RecordUpdated(_Answer):
    """What was changed."""

    object: str
    record_id: str
    updated_fields: list[str]


class RecordDeleted(_Answer):
    """What is gone."""

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


class Found(_Answer):
    """Records, and how many there are."""

    records: list[Record]
    total: int
    truncated: bool


class Described(_Answer):
    """An object and its fields."""

    name: str
    label: str
    createable: bool
    updateable: bool
    deletable: bool
    fields: list[Record]


class Limits(_Answer):
    """What is left of the org's limits."""

    limits: dict[str, Any]
