"""Find people by phone number, e-mail address or name: search the org, and compare each record found.

A search finds more than what was asked: parts of numbers, and names of the account or the assistant. What a
record itself holds decides.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from connectors.salesforce.client import SalesforceApi
from connectors.salesforce.fields import full_id
from connectors.salesforce.models import Record
from connectors.salesforce.query_rows import plain, records_of, type_of
from connectors.salesforce.soql import find
from connectors.sdk.phone import same_number, search_terms

#: Records of a search that are compared.
MAX_COMPARED: Final = 200


@dataclass(frozen=True, slots=True)
class PersonFields:
    """The fields of an object that identify a person; an assistant's name and phone are somebody else's."""

    phones: tuple[str, ...]
    emails: tuple[str, ...]
    #: Further fields that an agent needs of a caller.
    others: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every field, each once."""
        return tuple(dict.fromkeys(("Id", "Name", *self.emails, *self.phones, *self.others)))


PEOPLE: Final[Mapping[str, PersonFields]] = MappingProxyType(
    {
        "Contact": PersonFields(
            ("Phone", "MobilePhone", "HomePhone", "OtherPhone"),
            ("Email",),
            ("FirstName", "LastName", "Title", "AccountId", "Account.Name", "OwnerId"),
        ),
        "Lead": PersonFields(
            ("Phone", "MobilePhone"),
            ("Email",),
            ("FirstName", "LastName", "Title", "Company", "Status", "IsConverted", "OwnerId"),
        ),
        "Account": PersonFields(
            ("Phone", "PersonMobilePhone", "PersonHomePhone", "PersonOtherPhone"),
            ("PersonEmail",),
            ("IsPersonAccount", "FirstName", "LastName", "OwnerId"),
        ),
    }
)
#: Fields of an account that only an org with person accounts has.
PERSON_ACCOUNT_FIELDS: Final = frozenset(PEOPLE["Account"].all) - {"Id", "Name", "Phone", "OwnerId"}


async def search_phone(
    api: SalesforceApi, phone: str, returning: Mapping[str, Sequence[str]]
) -> list[Record]:
    """Return the records that have this phone number; each must be asked for its phone fields."""
    # An extension in the record follows the number's digits.
    sosl = find(search_terms(phone), "PHONE", returning, limit=MAX_COMPARED, longer=True)
    return [record for record in await _search(api, sosl) if has_phone(record, phone)]


async def search_name(api: SalesforceApi, name: str, returning: Mapping[str, Sequence[str]]) -> list[Record]:
    """Return the records of this name, or if there are none, those whose name contains it."""
    sosl = find([name], "NAME", returning, limit=MAX_COMPARED)
    found = [record for record in await _search(api, sosl) if _words(name) <= _words(record.get("Name"))]
    exact = [record for record in found if _folded(record.get("Name")) == _folded(name)]
    return exact or found


def has_phone(record: Record, phone: str) -> bool:
    """Return whether one of a record's numbers is this one."""
    fields = PEOPLE[record["object"]].phones
    return any(same_number(phone, str(record.get(field) or "")) for field in fields)


def has_email(record: Record, email: str) -> bool:
    """Return whether one of a record's addresses is this one."""
    fields = PEOPLE[record["object"]].emails
    return any(str(record.get(field) or "").casefold() == email.casefold() for field in fields)


def with_full_id(record: Record) -> Record:
    """Return a record with its id of 18 characters."""
    return record | {"Id": full_id(record["Id"])} if isinstance(record.get("Id"), str) else record


async def _search(api: SalesforceApi, sosl: str) -> list[Record]:
    answer: Any = await api.run(lambda org: org.api.search(sosl))
    found = records_of(answer or {"searchRecords": []}, "searchRecords")
    return [
        {"object": kind, **with_full_id(plain(record))}
        for record in found
        if (kind := type_of(record)) in PEOPLE
    ]


def _words(name: object) -> set[str]:
    return set(re.findall(r"\w+", _folded(name)))


def _folded(name: object) -> str:
    """Return a name without case, accents and double spaces."""
    spaced = " ".join(str(name or "").casefold().replace("ı", "i").split())
    return "".join(char for char in unicodedata.normalize("NFKD", spaced) if not unicodedata.combining(char))
