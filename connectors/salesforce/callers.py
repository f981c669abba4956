"""Who is calling: one look-up over contacts, leads and accounts."""

from collections.abc import Sequence
from typing import Final

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, salesforce
from connectors.salesforce.describe import UnknownObject, descriptions
from connectors.salesforce.error_mapping import reason_of
from connectors.salesforce.models import CallerFound, Record
from connectors.salesforce.params import FindCaller
from connectors.salesforce.people import (
    PEOPLE,
    PERSON_ACCOUNT_FIELDS,
    has_email,
    search_name,
    search_phone,
    with_full_id,
)
from connectors.salesforce.query_rows import query_rows
from connectors.salesforce.soql import select
from connectors.sdk import Effect

#: Most candidates that are returned.
MAX_CANDIDATES: Final = 20
#: Records of one object that are compared by their e-mail address.
MAX_BY_EMAIL: Final = 50


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def find_caller(params: FindCaller, ctx: Ctx) -> CallerFound:
    """Find who is calling, by phone number (however it is written), e-mail address or name.

    Contacts, leads that are not converted, and accounts are compared with what was asked. If several match,
    `caller` is null and `candidates` lists them, people before companies: ask which one is meant.
    """
    api = SalesforceApi(ctx)
    returning = await _returning(api, params)
    if params.phone is not None:
        found = await search_phone(api, params.phone, returning)
    elif params.email is not None:
        found = await _by_email(api, params.email, returning)
    else:
        assert params.name is not None
        found = await search_name(api, params.name, returning)
    people = sorted(_distinct(found), key=_rank)
    return CallerFound(
        found=bool(people),
        caller=people[0] if len(people) == 1 else None,
        candidates=people[:MAX_CANDIDATES] if len(people) > 1 else [],
    )


async def _returning(api: SalesforceApi, params: FindCaller) -> dict[str, list[str]]:
    """Return the objects to search and their fields; of the default objects, those that this user may see."""
    found: dict[str, list[str]] = {}
    hidden = None
    for name in params.objects:
        try:
            found[name] = await _visible(api, name)
        except UnknownObject as unknown:
            hidden = unknown
    if hidden is not None and (not found or "objects" in params.model_fields_set):
        raise hidden
    return found


async def _visible(api: SalesforceApi, name: str) -> list[str]:
    """Return the fields of a person that the org has and shows to this user."""
    try:
        facts = await descriptions.of(api, name)
    except UnknownObject as unknown:
        if reason_of(unknown) is not None:
            raise
        # There is no description; every org has these.
        return [path for path in PEOPLE[name].all if path not in PERSON_ACCOUNT_FIELDS]
    return [
        path
        for path in PEOPLE[name].all
        if path.lower() in facts.fields or path.partition(".")[0].lower() in facts.relationships
    ]


async def _by_email(api: SalesforceApi, email: str, returning: dict[str, list[str]]) -> list[Record]:
    """Query each object: a search would not know a record created a minute ago."""
    found: list[Record] = []
    for name, paths in returning.items():
        for field in set(PEOPLE[name].emails) & set(paths):
            soql = select(name, paths, f"{field} = {{email}}", limit=MAX_BY_EMAIL, email=email)
            rows = await query_rows(api, soql, limit=MAX_BY_EMAIL)
            found += [{"object": name, **with_full_id(record)} for record in rows.records]
    return [record for record in found if has_email(record, email)]


def _distinct(found: Sequence[Record]) -> list[Record]:
    """Leave out converted leads, and contacts that are the other half of a person account."""
    persons = {record["Id"] for record in found if record.get("IsPersonAccount") is True}
    return [
        record
        for record in found
        if record.get("IsConverted") is not True
        and not (record["object"] == "Contact" and record.get("AccountId") in persons)
    ]


def _rank(record: Record) -> tuple[int, str, str]:
    is_company = record["object"] == "Account" and record.get("IsPersonAccount") is not True
    order = 3 if is_company else {"Contact": 0, "Account": 1, "Lead": 2}[record["object"]]
    return order, str(record.get("Name")), str(record.get("Id"))
