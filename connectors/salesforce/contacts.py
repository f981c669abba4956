"""The actions on contacts."""

from collections.abc import Sequence
from typing import Any, Final

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, WRITE_ERRORS, salesforce
from connectors.salesforce.describe import check_paths, with_visible
from connectors.salesforce.models import ContactCreated, ContactFound, ContactUpdated, Record
from connectors.salesforce.params import CreateContact, GetContact, UpdateContact
from connectors.salesforce.people import PEOPLE, search_name, search_phone, with_full_id
from connectors.salesforce.query_rows import query_rows
from connectors.salesforce.soql import select
from connectors.salesforce.write_records import (
    body_of,
    create,
    creates,
    find_created,
    undo_create,
    update,
)
from connectors.sdk import Effect
from connectors.sdk.errors import NotFound

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
    return [with_full_id(record) for record in rows.records]


async def _by_phone(api: SalesforceApi, paths: Sequence[str], phone: str) -> list[Record]:
    async def look(shown: Sequence[str]) -> list[Record]:
        return await search_phone(api, phone, {"Contact": shown})

    found = await with_visible(api, "Contact", _each_once(*paths, *PEOPLE["Contact"].phones), look)
    return [_only(record, paths) for record in found]


async def _by_name(api: SalesforceApi, paths: Sequence[str], name: str) -> list[Record]:
    async def look(shown: Sequence[str]) -> list[Record]:
        return await search_name(api, name, {"Contact": shown})

    found = await with_visible(api, "Contact", _each_once(*paths, "Name"), look)
    return [_only(record, paths) for record in found]


def _each_once(*paths: str) -> list[str]:
    return list({path.lower(): path for path in reversed(paths)}.values())[::-1]


def _only(record: Record, paths: Sequence[str]) -> Record:
    """Remove the fields that were queried only for the comparison."""
    asked = {path.partition(".")[0].lower() for path in paths}
    return {name: value for name, value in record.items() if name.lower() in asked}


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
