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
from connectors.salesforce.fields import full_id
from connectors.salesforce.query_rows import query_rows
from connectors.salesforce.soql import select
from connectors.sdk.connector import EffectOf
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict, InvalidParams, NotFound, OutcomeUnknown, Sent, Unavailable

_ALLOW_DUPLICATES: Final = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}


@dataclass(frozen=True, slots=True)
class Created:
    """A record that exists now."""

    id: str
    #: False: an earlier run of the same job created it.
    is_new: bool


def creates(object_name: str | Callable[[Any], str]) -> EffectOf:
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


async def create(
    api: SalesforceApi, object_name: str, body: dict[str, Any], *, allow_duplicates: bool = False
) -> Created:
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
        return await upsert(api, object_name, external, mark_of(ctx), body, allow_duplicates=allow_duplicates)
    if key_field is not None:
        body = {**body, key_field: mark_of(ctx)}
    headers = _ALLOW_DUPLICATES if allow_duplicates else None
    answer = await api.run(lambda org: org.object(object_name).create(body, headers=headers))
    return Created(_id_of(answer), is_new=True)


async def upsert(
    api: SalesforceApi,
    object_name: str,
    field: str,
    value: str,
    body: Mapping[str, Any],
    *,
    allow_duplicates: bool = False,
) -> Created:
    """Create the record of an external id, or change it if it exists.

    Raises:
        Conflict: several records have this external id.
    """
    path = format_external_id(field, value)
    headers = _ALLOW_DUPLICATES if allow_duplicates else None

    def write(org: Org) -> Any:
        answer = org.object(object_name).upsert(path, body, raw_response=True, headers=headers)
        return answer.json() if answer.content else {}

    try:
        answer = await api.run(write)
    except Conflict as conflict:
        if reason_of(conflict) != "DUPLICATE_VALUE" or not await _is_there(api, object_name, path):
            raise
        # Another upsert created it a moment ago; now there is a record to change.
        answer = await api.run(write)
    if answer.get("id"):
        return Created(_id_of(answer), is_new=answer.get("created") is not False)
    # Older versions of the API do not return which record they changed.
    return Created(await _find_external(api, object_name, path), is_new=False)


async def update(api: SalesforceApi, object_name: str, record_id: str, body: dict[str, Any]) -> list[str]:
    """Change fields of a record, and return their names."""
    await api.run(lambda org: org.object(object_name).update(record_id, body))
    return sorted(body)


async def delete(api: SalesforceApi, object_name: str, record: str) -> bool:
    """Delete a record by its id, or by `field/value` of an external id; False where there never was one."""
    try:
        await api.run(lambda org: org.object(object_name).delete(record))
    except NotFound as gone:
        return reason_of(gone) == "ENTITY_IS_DELETED"
    return True


async def find_created(api: SalesforceApi, object_name: str) -> Created | None:
    """Look up whether this job's record was created, for a `reconcile`.

    Raises:
        OutcomeUnknown: the credential names no field that carries the mark.
    """
    found = await _marked(api, object_name)
    if not found:
        return None
    return Created(found[0], is_new=True)


async def undo_create(api: SalesforceApi, object_name: str, record_id: str | None) -> None:
    """Delete the record that this job created, if it still exists.

    Raises:
        OutcomeUnknown: whether it exists cannot be found out.
    """
    ctx = api.ctx
    external = ctx.credential.external_id_field(object_name)
    if record_id is not None:
        await delete(api, object_name, record_id)
    elif external is not None:
        await delete(api, object_name, format_external_id(external, mark_of(ctx)))
    elif ctx.credential.key_field(object_name) is not None:
        for each in await _marked(api, object_name):
            await delete(api, object_name, each)
    elif ctx.attempt > 1:
        raise _untraceable(object_name)
    # else it never began, and there is nothing to take back


async def _marked(api: SalesforceApi, object_name: str) -> list[str]:
    """Return the ids of the records that carry this job's mark."""
    ctx = api.ctx
    field = ctx.credential.key_field(object_name) or ctx.credential.external_id_field(object_name)
    if field is None:
        raise _untraceable(object_name)
    soql = select(object_name, ["Id"], f"{field} = {{mark}}", limit=10, mark=mark_of(ctx))
    rows = await query_rows(api, soql, limit=10)
    return [str(record["Id"]) for record in rows.records if "Id" in record]


async def _is_there(api: SalesforceApi, object_name: str, path: str) -> bool:
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
