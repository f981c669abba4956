"""The actions on contacts."""

from collections.abc import Sequence
from typing import Any, Final

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, WRITE_ERRORS, salesforce
from connectors.salesforce.describe import check_paths, with_visible
from connectors.salesforce.fields import full_id
from connectors.salesforce.models import ContactCreated, ContactFound, ContactUpdated, Record
from connectors.salesforce.params import CreateContact, GetContact, UpdateContact
from connectors.salesforce.query_rows import plain, query_rows, records_of
from connectors.salesforce.soql import find, select
from connectors.salesforce.write_records import (
    body_of,
    create,
    creates,
    find_created,
    undo_create,
    update,
)
from connectors.sdk.effects import Effect
from connectors.sdk.errors import NotFound
from connectors.sdk.phone import same_number, search_terms

#: Fields returned of a contact unless `fields` is given.
CONTACT_FIELDS: Final = (
    "Id",
    "Name",
    "FirstName",
    "LastName",
    "Email",
    "Phone",
    "MobilePhone",
    "Title",
    "Department",
    "MailingCity",
    "MailingCountry",
    "AccountId",
    "Account.Id",
    "Account.Name",
    "OwnerId",
    "Owner.Id",
    "Owner.Name",
)
#: The fields of a contact's phone numbers.
PHONE_FIELDS: Final = ("Phone", "MobilePhone", "HomePhone", "OtherPhone", "AssistantPhone")
#: Contacts compared if several match, and those that are returned.
MAX_MATCHES: Final = 50
MAX_CANDIDATES: Final = 20


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_contact_details(params: GetContact, ctx: Ctx) -> ContactFound:
    """Look up a contact by id, e-mail, phone number (however it is written) or name.

    If several match, `contact` is null and `candidates` lists them: ask which one is meant.
    """
    api = SalesforceApi(ctx)
    paths = list(CONTACT_FIELDS)
    if params.fields is not None:
        paths = list(dict.fromkeys(["Id", *params.fields]))
        await check_paths(api, "Contact", params.fields)
    if params.contact_id is not None:
        found = await _by(api, paths, "Id = {value}", params.contact_id)
        if not found:
            raise NotFound(f"there is no contact {params.contact_id}, or this user may not see it")
    elif params.email is not None:
        found = await _by(api, paths, "Email = {value}", params.email)
    elif params.phone is not None:
        found = await _by_phone(api, paths, params.phone)
    else:
        assert params.name is not None
        found = await _by_name(api, paths, params.name)
    return ContactFound(
        found=bool(found),
        contact=found[0] if len(found) == 1 else None,
        matches=len(found),
        candidates=found[:MAX_CANDIDATES] if len(found) > 1 else [],
    )


@salesforce.action(effect=creates("Contact"), errors=WRITE_ERRORS)
async def create_contact(params: CreateContact, ctx: Ctx) -> ContactCreated:
    """Create a contact, once per idempotency key if the credential names a field for it."""
    api = SalesforceApi(ctx)
    body = await body_of(api, "Contact", _named(params), params.fields)
    contact = await create(api, "Contact", body, params)
    return ContactCreated(contact_id=contact.id, created=contact.is_new)


@create_contact.reconcile
async def find_contact(params: CreateContact, ctx: Ctx) -> ContactCreated | None:
    """Look up whether the contact was created."""
    contact = await find_created(SalesforceApi(ctx), "Contact")
    return None if contact is None else ContactCreated(contact_id=contact.id, created=contact.is_new)


@create_contact.undo
async def delete_contact(ctx: Ctx, result: dict[str, Any] | None) -> None:
    """Delete the contact that was created."""
    await undo_create(
        SalesforceApi(ctx, is_compensation=True), "Contact", result["contact_id"] if result else None
    )


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_contact(params: UpdateContact, ctx: Ctx) -> ContactUpdated:
    """Change the fields given of a contact, and nothing else."""
    named = _named(params) | {"OwnerId": params.owner_id}
    api = SalesforceApi(ctx)
    body = await body_of(api, "Contact", named, params.fields)
    changed = await update(api, "Contact", params.contact_id, body, params)
    return ContactUpdated(contact_id=params.contact_id, updated_fields=changed)


async def _by(api: SalesforceApi, paths: Sequence[str], where: str, value: str) -> list[Record]:
    rows = await with_visible(
        api,
        "Contact",
        paths,
        lambda shown: query_rows(
            api, select("Contact", shown, where, limit=MAX_MATCHES, value=value), limit=MAX_MATCHES
        ),
    )
    return [_with_full_id(record) for record in rows.records]


async def _by_phone(api: SalesforceApi, paths: Sequence[str], phone: str) -> list[Record]:
    """Search for every way to write the number, and keep the records that have the same number."""
    # An extension in the record follows the number's digits.
    records = await _search(api, search_terms(phone), "PHONE", [*paths, *PHONE_FIELDS], longer=True)
    same = [
        record
        for record in records
        if any(same_number(phone, str(record.get(field) or "")) for field in PHONE_FIELDS)
    ]
    return [_only(record, paths) for record in same]


async def _by_name(api: SalesforceApi, paths: Sequence[str], name: str) -> list[Record]:
    records = await _search(api, [name], "NAME", [*paths, "Name"])
    # The search finds parts of names, too; an exact match wins.
    exact = [record for record in records if _folded(record.get("Name")) == _folded(name)]
    return [_only(record, paths) for record in exact or records]


async def _search(
    api: SalesforceApi, terms: Sequence[str], group: str, paths: Sequence[str], *, longer: bool = False
) -> list[Record]:
    async def look(shown: Sequence[str]) -> list[Record]:
        sosl = find(terms, group, {"Contact": shown}, limit=MAX_MATCHES, longer=longer)
        answer = await api.run(lambda org: org.api.search(sosl))
        return records_of(answer or {"searchRecords": []}, "searchRecords")

    found = await with_visible(api, "Contact", list(dict.fromkeys(paths)), look)
    return [_with_full_id(plain(record)) for record in found]


def _only(record: Record, paths: Sequence[str]) -> Record:
    """Remove the fields that were queried only for the comparison."""
    asked = {path.partition(".")[0].lower() for path in paths}
    return {name: value for name, value in record.items() if name.lower() in asked}


def _with_full_id(record: Record) -> Record:
    return record | {"Id": full_id(record["Id"])} if isinstance(record.get("Id"), str) else record


def _folded(name: object) -> str:
    return " ".join(str(name).casefold().split())


def _named(params: CreateContact | UpdateContact) -> dict[str, Any]:
    return {
        "LastName": params.last_name,
        "FirstName": params.first_name,
        "Email": params.email,
        "Phone": params.phone,
        "MobilePhone": params.mobile_phone,
        "Title": params.title,
        "AccountId": params.account_id,
        "Description": params.description,
    }
