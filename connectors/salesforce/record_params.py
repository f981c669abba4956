"""The parameters of searches, queries, flows and records of any object."""

import datetime as dt
import re
from typing import Annotated, Final, Self

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from connectors.salesforce.fields import (
    MAX_FIELDS,
    Bounded,
    FieldPath,
    FieldPaths,
    FieldValues,
    Name,
    ObjectName,
    RecordId,
    Scalar,
    Words,
)
from connectors.salesforce.params import MAX_LIMIT, SalesforceParams, SaveOptions
from connectors.salesforce.session import has_dots
from connectors.sdk import Personal

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME: Final = re.compile(
    rf"{_DATE.pattern}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{3,6}})?(Z|[+-][0-9]{{2}}:?[0-9]{{2}})"
)


class SearchRecords(SalesforceParams):
    """What to search for."""

    text: Personal[Words] = Field(examples=["Lovelace"])
    objects: list[Name] = Field(default=["Contact", "Lead", "Account", "Case"], min_length=1, max_length=20)
    fields: list[FieldPath] | None = Field(
        default=None, max_length=50, description="The fields to return, of the objects that have them."
    )
    limit: int = Field(default=20, ge=1, le=MAX_LIMIT)


def _read_date(text: object) -> dt.date:
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        raise ValueError("must be a date such as 2026-03-08")
    return dt.date.fromisoformat(text)


def _read_time(text: object) -> dt.datetime:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError("must be a time with its offset, such as 2026-03-08T09:00:00Z")
    return dt.datetime.fromisoformat(text)


def _format(kind: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": kind, "examples": [example]})


class BoundDate(SalesforceParams):
    """A date as a query's value."""

    date: Annotated[dt.date, PlainValidator(_read_date), _format("date", "2026-03-08")]


class BoundTime(SalesforceParams):
    """A time as a query's value."""

    datetime: Annotated[dt.datetime, PlainValidator(_read_time), _format("date-time", "2026-03-08T09:00:00Z")]


class BoundContains(SalesforceParams):
    """Text that LIKE finds anywhere; its own _ and % are no wildcards."""

    contains: str = Field(min_length=1, max_length=1000, examples=["100%"])


class BoundStart(SalesforceParams):
    """Text that LIKE finds at the beginning; its own _ and % are no wildcards."""

    starts_with: str = Field(min_length=1, max_length=1000, examples=["a_b@"])


class Query(SalesforceParams):
    """A query that only reads, and its values."""

    soql: str = Field(
        min_length=1,
        max_length=10_000,
        description="SELECT … with placeholders {name} for values; no text in quotation marks.",
        examples=["SELECT Id, Name FROM Contact WHERE LastName = {name}"],
    )
    bindings: Annotated[
        Personal[dict[str, Scalar | list[Scalar] | BoundDate | BoundTime | BoundContains | BoundStart]],
        Bounded,
    ] = Field(default={}, max_length=100, examples=[{"name": "Lovelace"}])
    limit: int = Field(default=200, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(
        default=None, max_length=100, description="From an answer's `cursor`, for the records after it."
    )


#: A variable of a flow: a value, a list of them, a record, or a list of records.
FlowValue = Scalar | list[Scalar] | dict[Name, Scalar] | list[dict[Name, Scalar]]


class RunFlow(SalesforceParams):
    """Which flow, and its inputs."""

    name: Name = Field(description="The flow's API name.", examples=["Send_Reminder"])
    inputs: Annotated[Personal[dict[Name, FlowValue]], Bounded] = Field(
        default={},
        max_length=MAX_FIELDS,
        description="By the API names of the flow's input variables; a record is an object.",
    )


class RecordRef(SalesforceParams):
    """Which record."""

    object: ObjectName
    record_id: RecordId


class GetRecord(RecordRef):
    """Which record, and which fields."""

    fields: FieldPaths | None = Field(default=None, description="Default: all its own fields.")


class CreateRecord(SaveOptions):
    """A new record."""

    object: ObjectName
    fields: Personal[FieldValues] = Field(
        min_length=1, examples=[{"Name": "Lovelace Clinic", "Phone": "555 1234"}]
    )


class UpdateRecord(RecordRef, SaveOptions):
    """The fields of a record to change."""

    fields: Personal[FieldValues] = Field(min_length=1, examples=[{"Phone": "555 1234"}])


class UpsertRecord(CreateRecord):
    """The record of an external id, to be created or changed."""

    external_id_field: Name = Field(examples=["Number__c"])
    external_id: str = Field(min_length=1, max_length=255, examples=["17"])

    @model_validator(mode="after")
    def _check(self) -> Self:
        if has_dots(self.external_id):
            raise ValueError("external_id must not have a . or .. segment, which no path can carry")
        if self.external_id_field.lower() in {name.lower() for name in self.fields}:
            raise ValueError(f"{self.external_id_field} is also in fields")
        return self


class DescribeObject(SalesforceParams):
    """Which object."""

    object: ObjectName
