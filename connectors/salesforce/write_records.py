"""Create, change and delete records, each once.

A create takes one of three ways, by what the credential names for its object:

    an external-id field    upserted under the job's mark: KEYED, a second run finds the first one's record
    a key field             created with the job's mark in it: WRITE, an uncertain run is looked up by it
    neither                 created: WRITE, an uncertain run is OUTCOME_UNKNOWN
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from simple_salesforce.format import format_external_id

from connectors.salesforce.client import Ctx, Org, SalesforceApi
from connectors.salesforce.credential import SalesforceCredential
from connectors.salesforce.describe import check_names
from connectors.salesforce.error_mapping import reason_of
from connectors.salesforce.explain_refusals import credential_field_named, explained
from connectors.salesforce.fields import full_id
from connectors.salesforce.params import SaveOptions
from connectors.salesforce.query_rows import query_rows
from connectors.salesforce.soql import select
from connectors.sdk import Effect
from connectors.sdk.errors import (
    Conflict,
    InvalidParams,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Sent,
    Unavailable,
)

#: Overrides a duplicate rule that warns; one that blocks stays.
_ALLOW_DUPLICATES: Final = ("Sforce-Duplicate-Rule-Header", "allowSave=true")
#: Whether the org's active assignment rule chooses the owner of a case or lead; without it, it does.
_AUTO_ASSIGN: Final = "Sforce-Auto-Assign"


@dataclass(frozen=True, slots=True)
class Created:
    """A record that exists now."""

    id: str
    #: False: an earlier run of the same job created it.
    is_new: bool


def creates(object_name: str | Callable[[Any], str]) -> Callable[[Any, SalesforceCredential | None], Effect]:
    """Return the effect of a create: KEYED if the credential names an external-id field, else WRITE."""

    def effect(params: Any, credential: SalesforceCredential | None) -> Effect:
        name = object_name if isinstance(object_name, str) else object_name(params)
        is_keyed = credential is not None and credential.external_id_field(name) is not None
        return Effect.KEYED if is_keyed else Effect.WRITE

    return effect


def mark_of(ctx: Ctx) -> str:
    """Return the mark of this job's record: fits any text field, and does not disclose the key."""
    parts = [ctx.tenant, ctx.action, ctx.idempotency_key]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


async def body_of(
    api: SalesforceApi, object_name: str, named: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of a write: an action's own parameters and `fields`.

    Raises:
        InvalidParams: a field is given twice, or the object has none of this name.
    """
    body = {name: value for name, value in named.items() if value is not None}
    taken = {name.lower() for name in body}
    for name in fields:
        if name.lower() in taken:
            raise InvalidParams.field(f"fields.{name}", "is also given by its own parameter")
    if fields:
        await check_names(api, object_name, fields)
    return body | dict(fields)


def save_headers(options: SaveOptions, body: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers of a write: how the org's duplicate and assignment rules apply."""
    headers = dict([_ALLOW_DUPLICATES]) if options.allow_duplicates else {}
    rule = options.assignment_rule
    if rule is None:
        # The rule would replace the owner that the job names.
        names_owner = any(name.lower() in {"ownerid", "owner"} for name in body)
        rule = "none" if names_owner else "default"
    if rule != "default":
        headers[_AUTO_ASSIGN] = "FALSE" if rule == "none" else rule
    return headers


async def create(api: SalesforceApi, object_name: str, body: dict[str, Any], options: SaveOptions) -> Created:
    """Create a record the way the credential allows.

    Raises:
        Conflict: a duplicate rule or a unique field matched others; `data.ids` names them.
    """
    ctx, credential = api.ctx, api.ctx.credential
    external, key_field = credential.external_id_field(object_name), credential.key_field(object_name)
    for ours in (external, key_field):
        if ours is not None and ours.lower() in {name.lower() for name in body}:
            raise InvalidParams.field(
                f"fields.{ours}", "is reserved for the connector: it holds the mark of the job"
            )
    if external is not None:
        with credential_field_named(credential, object_name):
            return await upsert(api, object_name, external, mark_of(ctx), body, options=options)
    if key_field is not None:
        body = {**body, key_field: mark_of(ctx)}
    try:
        return await _insert(api, object_name, body, options)
    except Conflict:
        # The record that it collides with may be the one that an earlier attempt created.
        if not ctx.is_repeat or key_field is None or not (found := await _marked(api, object_name)):
            raise
    return Created(found[0], is_new=False)


async def _insert(
    api: SalesforceApi, object_name: str, body: Mapping[str, Any], options: SaveOptions
) -> Created:
    headers = save_headers(options, body)
    with credential_field_named(api.ctx.credential, object_name):
        async with explained(api, object_name):
            answer = await api.run(lambda org: org.object(object_name).create(body, headers=headers))
    return Created(_id_of(answer), is_new=True)


async def upsert(
    api: SalesforceApi,
    object_name: str,
    field: str,
    value: str,
    body: Mapping[str, Any],
    *,
    options: SaveOptions,
) -> Created:
    """Create the record of an external id, or change it if it exists.

    Raises:
        Conflict: several records have this external id.
        Rejected: the object has no such external-id field; `details` names it.
    """
    path, headers = format_external_id(field, value), save_headers(options, body)

    def write(org: Org) -> Any:
        answer = org.object(object_name).upsert(path, body, raw_response=True, headers=headers)
        return answer.json() if answer.content else {}

    try:
        async with explained(api, object_name, external_id_field=field):
            answer = await api.run(write)
    except Conflict as conflict:
        if reason_of(conflict) != "DUPLICATE_VALUE" or not await _exists(api, object_name, path):
            raise
        # Another upsert created it a moment ago; now there is a record to change.
        answer = await api.run(write)
    if answer.get("id"):
        return Created(_id_of(answer), is_new=answer.get("created") is not False)
    # Older versions of the API do not return which record they changed.
    return Created(await _find_external(api, object_name, path), is_new=False)


async def update(
    api: SalesforceApi, object_name: str, record_id: str, body: dict[str, Any], options: SaveOptions
) -> list[str]:
    """Change fields of a record, and return their names."""
    headers = save_headers(options, body)
    async with explained(api, object_name):
        await api.run(lambda org: org.object(object_name).update(record_id, body, headers=headers))
    return sorted(body)


async def delete(api: SalesforceApi, object_name: str, record_id: str) -> bool:
    """Delete a record; return False if the org does not know it.

    Raises:
        PermissionDenied: the org refuses to delete a record that it still shows, or hides its object.
    """
    try:
        await api.run(lambda org: org.object(object_name).delete(record_id))
    except NotFound as refused:
        if reason_of(refused) == "ENTITY_IS_DELETED":
            return True
        await _check_gone(api, object_name, record_id)
        return False
    return True


async def find_created(api: SalesforceApi, object_name: str) -> Created | None:
    """Look up whether this job's record was created, for a `reconcile`.

    Raises:
        OutcomeUnknown: the credential names no field that carries the mark.
    """
    found = await _marked(api, object_name)
    return Created(found[0], is_new=True) if found else None


async def undo_create(api: SalesforceApi, object_name: str, record_id: str | None) -> None:
    """Delete the record that this job created, if it still exists.

    Raises:
        OutcomeUnknown: whether it exists cannot be found out.
    """
    if record_id is not None:
        await delete(api, object_name, record_id)
    elif _mark_field(api, object_name) is not None:
        for each in await _marked(api, object_name):
            await delete(api, object_name, each)
    elif api.ctx.is_repeat:
        raise _untraceable(object_name)
    # else it never began, and there is nothing to undo


async def _check_gone(api: SalesforceApi, object_name: str, record_id: str) -> None:
    """Check that a query finds no such record: a 404 may also mean a lost permission."""
    soql = select(object_name, ["Id"], "Id = {record_id}", limit=1, record_id=record_id)
    if (await query_rows(api, soql, limit=1)).records:
        raise PermissionDenied(f"Salesforce does not allow this user to delete {object_name} {record_id}")


def _mark_field(api: SalesforceApi, object_name: str) -> str | None:
    credential = api.ctx.credential
    return credential.key_field(object_name) or credential.external_id_field(object_name)


async def _marked(api: SalesforceApi, object_name: str) -> list[str]:
    """Return the ids of the records that carry this job's mark."""
    field = _mark_field(api, object_name)
    if field is None:
        raise _untraceable(object_name)
    soql = select(object_name, ["Id"], f"{field} = {{mark}}", limit=10, mark=mark_of(api.ctx))
    with credential_field_named(api.ctx.credential, object_name):
        rows = await query_rows(api, soql, limit=10)
    return [str(record["Id"]) for record in rows.records if "Id" in record]


async def _exists(api: SalesforceApi, object_name: str, path: str) -> bool:
    try:
        await _find_external(api, object_name, path)
    except NotFound:
        return False
    return True


async def _find_external(api: SalesforceApi, object_name: str, path: str) -> str:
    return _id_of(await api.run(lambda org: org.object(object_name).get(path)))


def _untraceable(object_name: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"a {object_name} of this job cannot be found again: the credential names no field that carries its mark"
    )


def _id_of(answer: Mapping[str, Any]) -> str:
    record_id = answer.get("id") or answer.get("Id")
    if not isinstance(record_id, str):
        raise Unavailable("Salesforce did not return the id of the record it wrote", sent=Sent.UNCERTAIN)
    return full_id(record_id)
