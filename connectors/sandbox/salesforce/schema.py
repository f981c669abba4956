"""The objects of the sandbox's org and their fields: the standard ones, and custom ones added to them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

#: Fields of a reference to one of several objects.
NAME_FIELDS: Final = frozenset({"Id", "Name", "Type", "FirstName", "LastName", "Email", "Phone", "Title"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object."""

    name: str
    #: As describe names it: `string`, `email`, `phone`, `picklist`, `reference`, `boolean`, `datetime`, …
    type: str = "string"
    length: int = 255
    is_required: bool = False
    is_writeable: bool = True
    picklist: tuple[str, ...] = ()
    #: Whether values outside the picklist are refused.
    is_restricted: bool = False
    reference_to: tuple[str, ...] = ()
    relationship: str | None = None
    is_external_id: bool = False
    is_unique: bool = False
    is_name: bool = False
    default: Any = None

    def describe(self) -> dict[str, Any]:
        """Return the description of the field."""
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c").replace("_", " "),
            "type": self.type,
            "length": self.length if self.type in _TEXTS else 0,
            "nillable": not self.is_required,
            "defaultedOnCreate": self.default is not None or self.type == "boolean",
            "createable": self.is_writeable,
            "updateable": self.is_writeable,
            "externalId": self.is_external_id,
            "unique": self.is_unique,
            "nameField": self.is_name,
            "custom": self.name.endswith("__c"),
            "restrictedPicklist": self.is_restricted,
            "referenceTo": list(self.reference_to),
            "relationshipName": self.relationship,
            "picklistValues": [
                {"value": value, "label": value, "active": True, "defaultValue": value == self.default}
                for value in self.picklist
            ],
        }


_TEXTS: Final = frozenset({"string", "textarea", "email", "phone", "url", "picklist", "id", "reference"})


@dataclass(slots=True)
class ObjectType:
    """One object."""

    name: str
    #: The first three characters of its records' ids.
    prefix: str
    fields: dict[str, Field] = field(default_factory=dict)

    def add(self, *fields: Field) -> None:
        """Add fields, or replace those of the same name."""
        for each in fields:
            self.fields[each.name.lower()] = each

    def find(self, name: str) -> Field | None:
        """Return a field by its name, ignoring case."""
        return self.fields.get(name.lower())

    def relationship(self, name: str) -> Field | None:
        """Return the reference of a relationship."""
        wanted = name.lower()
        return next(
            (each for each in self.fields.values() if (each.relationship or "").lower() == wanted), None
        )

    @property
    def searched(self) -> Iterable[Field]:
        """Fields that SOSL looks through."""
        return (
            each for each in self.fields.values() if each.type in {"string", "textarea", "email", "phone"}
        )

    def describe(self) -> dict[str, Any]:
        """Return the description of the object."""
        return {
            "name": self.name,
            "label": self.name.removesuffix("__c").replace("_", " "),
            "keyPrefix": self.prefix,
            "custom": self.name.endswith("__c"),
            "createable": self.name not in {"User", "Group"},
            "updateable": self.name not in {"User", "Group"},
            "deletable": self.name not in {"User", "Group"},
            "queryable": True,
            "searchable": True,
            "fields": [each.describe() for each in self.fields.values()],
        }


def _reference(name: str, *objects: str, required: bool = False) -> Field:
    return Field(
        name,
        "reference",
        18,
        is_required=required,
        reference_to=objects,
        relationship=name.removesuffix("Id"),
    )


def _object(name: str, prefix: str, *fields: Field) -> ObjectType:
    made = ObjectType(name, prefix)
    made.add(
        Field("Id", "id", 18, is_writeable=False),
        Field("IsDeleted", "boolean", is_writeable=False, default=False),
        Field("CreatedDate", "datetime", is_writeable=False),
        Field("LastModifiedDate", "datetime", is_writeable=False),
        *fields,
    )
    return made


def _person(*more: Field) -> tuple[Field, ...]:
    return (
        Field("FirstName", length=40),
        Field("LastName", length=80, is_required=True),
        Field("Name", length=121, is_writeable=False, is_name=True),
        Field("Email", "email", 80),
        Field("Phone", "phone", 40),
        Field("MobilePhone", "phone", 40),
        Field("Title", length=128),
        Field("Description", "textarea", 32_000),
        *more,
    )


def _read_only(field: Field) -> Field:
    return replace(field, is_writeable=False)


_OWNER: Final = _reference("OwnerId", "Group", "User")
_USER_OWNER: Final = replace(_OWNER, reference_to=("User",))
_LEAD_SOURCES: Final = ("Web", "Phone Inquiry", "Partner Referral", "Other")


def person_account_fields() -> tuple[Field, ...]:
    """Return the fields that person accounts add to accounts."""
    return (
        Field("IsPersonAccount", "boolean", is_writeable=False, default=False),
        Field("FirstName", length=40),
        Field("LastName", length=80),
        Field("PersonEmail", "email", 80),
        Field("PersonMobilePhone", "phone", 40),
        Field("PersonHomePhone", "phone", 40),
        _read_only(_reference("PersonContactId", "Contact")),
    )


def standard_objects() -> dict[str, ObjectType]:
    """Return the standard objects, by lower-case name."""
    objects = (
        _object(
            "Account",
            "001",
            Field("Name", is_required=True, is_name=True),
            Field("Phone", "phone", 40),
            Field("Website", "url"),
            Field("Industry", "picklist", picklist=("Banking", "Healthcare", "Technology")),
            Field("AnnualRevenue", "currency"),
            Field("NumberOfEmployees", "int"),
            Field("Description", "textarea", 32_000),
            _USER_OWNER,
        ),
        _object(
            "Contact",
            "003",
            *_person(
                Field("HomePhone", "phone", 40),
                Field("OtherPhone", "phone", 40),
                Field("AssistantPhone", "phone", 40),
                Field("AssistantName", length=40),
                Field("Department", length=80),
                Field("Birthdate", "date"),
                Field("MailingCity", length=40),
                Field("MailingCountry", length=80),
                Field("DoNotCall", "boolean", default=False),
                _reference("AccountId", "Account"),
            ),
            _USER_OWNER,
        ),
        _object(
            "Lead",
            "00Q",
            *_person(
                Field("Company", is_required=True),
                Field("LeadSource", "picklist", picklist=_LEAD_SOURCES),
                Field(
                    "Status",
                    "picklist",
                    picklist=(
                        "Open - Not Contacted",
                        "Working - Contacted",
                        "Closed - Converted",
                        "Closed - Not Converted",
                    ),
                    is_restricted=True,
                    default="Open - Not Contacted",
                ),
                Field("Rating", "picklist", picklist=("Hot", "Warm", "Cold")),
                Field("IsConverted", "boolean", is_writeable=False, default=False),
                _read_only(_reference("ConvertedAccountId", "Account")),
                _read_only(_reference("ConvertedContactId", "Contact")),
                _read_only(_reference("ConvertedOpportunityId", "Opportunity")),
                Field("AnnualRevenue", "currency"),
                Field("NumberOfEmployees", "int"),
            ),
            _OWNER,
        ),
        _object(
            "Case",
            "500",
            Field("CaseNumber", length=30, is_writeable=False, is_name=True),
            Field("Subject"),
            Field("Description", "textarea", 32_000),
            Field(
                "Status",
                "picklist",
                picklist=("New", "Working", "Escalated", "Closed"),
                is_restricted=True,
                default="New",
            ),
            Field(
                "Priority",
                "picklist",
                picklist=("High", "Medium", "Low"),
                is_restricted=True,
                default="Medium",
            ),
            Field("Origin", "picklist", picklist=("Phone", "Email", "Web")),
            Field("IsClosed", "boolean", is_writeable=False, default=False),
            Field("ClosedDate", "datetime", is_writeable=False),
            _reference("ContactId", "Contact"),
            _reference("AccountId", "Account"),
            _OWNER,
        ),
        _object(
            "CaseComment",
            "00a",
            Field("CommentBody", "textarea", 4000),
            Field("IsPublished", "boolean", default=False),
            _reference("ParentId", "Case", required=True),
        ),
        _object(
            "Task",
            "00T",
            Field("Subject"),
            Field("Description", "textarea", 32_000),
            Field("ActivityDate", "date"),
            Field(
                "Status",
                "picklist",
                picklist=("Not Started", "In Progress", "Completed"),
                is_restricted=True,
                default="Not Started",
            ),
            Field("Priority", "picklist", picklist=("High", "Normal", "Low"), default="Normal"),
            Field("TaskSubtype", "picklist", picklist=("Task", "Email", "Call"), is_restricted=True),
            Field("CallType", "picklist", picklist=("Inbound", "Outbound", "Internal"), is_restricted=True),
            Field("CallDurationInSeconds", "int"),
            Field("CallDisposition"),
            _reference("WhoId", "Contact", "Lead"),
            _reference("WhatId", "Account", "Case"),
            _OWNER,
        ),
        _object(
            "User",
            "005",
            *_person(Field("Username", length=80), Field("IsActive", "boolean", default=True)),
        ),
        _object(
            "Opportunity",
            "006",
            Field("Name", length=120, is_required=True, is_name=True),
            Field("StageName", "picklist", is_required=True, picklist=("Prospecting", "Closed Won")),
            Field("CloseDate", "date", is_required=True),
            _reference("AccountId", "Account"),
            _USER_OWNER,
        ),
        _object(
            "LeadStatus",
            "01J",
            Field("MasterLabel", is_name=True),
            Field("IsConverted", "boolean"),
            Field("IsDefault", "boolean"),
            Field("SortOrder", "int"),
        ),
        _object(
            "Organization",
            "00D",
            Field("Name", is_name=True),
            Field("TimeZoneSidKey", "picklist", picklist=()),
        ),
        _object("Group", "00G", Field("Name", is_name=True), Field("Type", "picklist", picklist=("Queue",))),
    )
    return {each.name.lower(): each for each in objects}
