"""Types of parameter values; each is checked before any request."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from connectors.sdk.phone import is_phone_number

#: Letters of an 18-character id's check part: they encode which of its 15 characters are capitals.
_CHECK: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_ID = re.compile(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}(\.[A-Za-z][A-Za-z0-9_]{0,79}){0,5}")
_NUMBER = re.compile(r"[A-Za-z0-9_./ -]{1,40}")
#: Fields that a job may not write: the record's id, and JSON's description of its type.
_RESERVED: Final = frozenset({"id", "attributes"})
#: Most fields that one job writes or queries.
MAX_FIELDS: Final = 200


def full_id(record_id: str) -> str:
    """Return the 18-character form of an id, which survives the loss of case."""
    if len(record_id) != 15:
        return record_id
    chunks = (record_id[start : start + 5] for start in (0, 5, 10))
    return record_id + "".join(
        _CHECK[sum(1 << place for place, char in enumerate(chunk) if "A" <= char <= "Z")] for chunk in chunks
    )


def _text_like(pattern: re.Pattern[str], issue: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(issue)
        return text

    return check


def _check_names(fields: dict[str, Any]) -> dict[str, Any]:
    for name in fields:
        if name.lower() in _RESERVED:
            raise ValueError(f"{name} cannot be written")
    if len({name.lower() for name in fields}) < len(fields):
        raise ValueError("must name each field once; case is ignored")
    return fields


def _check_words(text: str) -> str:
    if sum(map(str.isalnum, text)) < 2:
        raise ValueError("must have at least two letters or digits, or Salesforce finds nothing")
    return text


def _check_phone(text: str) -> str:
    if not is_phone_number(text):
        raise ValueError("must be a phone number such as +90 (532) 111 22 33")
    return text


def _unique(names: list[str]) -> list[str]:
    return list({name.lower(): name for name in reversed(names)}.values())[::-1]


Name = Annotated[str, AfterValidator(_text_like(_NAME, "must be an API name such as Lead or Rating__c"))]
RecordId = Annotated[
    str,
    AfterValidator(_text_like(_ID, "must be a record's id: 15 or 18 letters and digits")),
    AfterValidator(full_id),
    Field(examples=["003Hn00002VhAbCIAV"]),
]
ObjectName = Annotated[Name, Field(description="The object's API name.", examples=["Account"])]
FieldPath = Annotated[
    str, AfterValidator(_text_like(_PATH, "must be a field's API name such as Email or Account.Name"))
]
FieldPaths = Annotated[
    list[FieldPath],
    Field(min_length=1, max_length=MAX_FIELDS, examples=[["Id", "Account.Name"]]),
    AfterValidator(_unique),
]
Scalar = str | int | float | bool | None
#: Values in one parameter, nested ones included.
MAX_VALUES: Final = 5000


def _check_count(value: object) -> object:
    """Return a value with a bounded number of values in it.

    Before anything else looks at them: a million would block the worker for seconds.

    Raises:
        ValueError: there are more.
    """
    count, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list):
            count += len(each)
            if count > MAX_VALUES:
                raise ValueError(f"must not have more than {MAX_VALUES} values")
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return value


#: Bounds a parameter of free form.
Bounded: Final = BeforeValidator(_check_count)
#: A reference by an external id is an object: `{"Account": {"Number__c": "17"}}`.
FieldValue = Scalar | dict[Name, Scalar]
FieldValues = Annotated[
    dict[Name, FieldValue],
    Bounded,
    AfterValidator(_check_names),
    Field(
        max_length=MAX_FIELDS,
        description="Further fields by their API names; null empties one.",
    ),
]
CaseNumber = Annotated[
    str,
    AfterValidator(_text_like(_NUMBER, "must be a case's number, as text: its leading zeros count")),
    Field(examples=["00001026"]),
]
Email = Annotated[
    str,
    AfterValidator(
        _text_like(re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}"), "must be an e-mail address")
    ),
    Field(max_length=254, examples=["ada@lovelace.example"]),
]
Phone = Annotated[str, AfterValidator(_check_phone), Field(examples=["+90 532 111 22 33"])]
#: Words to search for.
Words = Annotated[str, AfterValidator(_check_words), Field(min_length=2, max_length=200)]
Short = Annotated[str, Field(min_length=1, max_length=255)]
Long = Annotated[str, Field(min_length=1, max_length=32_000)]
