"""The actions on records of any object."""

from typing import Any

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, WRITE_ERRORS, salesforce
from connectors.salesforce.describe import check_names, check_paths, descriptions
from connectors.salesforce.models import (
    Described,
    RecordCreated,
    RecordDeleted,
    RecordFound,
    RecordUpdated,
)
from connectors.salesforce.params import (
    CreateRecord,
    DescribeObject,
    GetRecord,
    RecordRef,
    UpdateRecord,
    UpsertRecord,
)
from connectors.salesforce.query_rows import plain, query_rows
from connectors.salesforce.soql import select
from connectors.salesforce.write_records import (
    body_of,
    create,
    creates,
    delete,
    find_created,
    undo_create,
    update,
    upsert,
)
from connectors.sdk.effects import Effect
from connectors.sdk.errors import NotFound, OutcomeUnknown


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_record(params: GetRecord, ctx: Ctx) -> RecordFound:
    """Look up a record of any object by its id."""
    api = SalesforceApi(ctx)
    if params.fields is None:
        record = await api.run(lambda org: org.object(params.object).get(params.record_id))
        return RecordFound(object=params.object, record=plain(record))
    await check_paths(api, params.object, params.fields)
    paths = list(dict.fromkeys(["Id", *params.fields]))
    soql = select(params.object, paths, "Id = {value}", limit=1, value=params.record_id)
    rows = await query_rows(api, soql, limit=1)
    if not rows.records:
        raise NotFound(f"there is no {params.object} {params.record_id}, or this user may not see it")
    return RecordFound(object=params.object, record=rows.records[0])


def _object_of(params: CreateRecord) -> str:
    return params.object


@salesforce.action(effect=creates(_object_of), errors=WRITE_ERRORS)
async def create_record(params: CreateRecord, ctx: Ctx) -> RecordCreated:
    """Create a record of any object, once per idempotency key where the credential names a field for it."""
    api = SalesforceApi(ctx)
    body = await body_of(api, params.object, {}, params.fields)
    made = await create(api, params.object, body, allow_duplicates=params.allow_duplicates)
    return RecordCreated(object=params.object, record_id=made.id, created=made.is_new)


@create_record.reconcile
async def find_record(params: CreateRecord, ctx: Ctx) -> RecordCreated | None:
    """Look up whether the record was created."""
    made = await find_created(SalesforceApi(ctx), params.object)
    if made is None:
        return None
    return RecordCreated(object=params.object, record_id=made.id, created=made.is_new)


@create_record.undo
async def undo_record(ctx: Ctx, params: CreateRecord | None, result: dict[str, Any] | None) -> None:
    """Delete the record that was created."""
    if result:
        await undo_create(SalesforceApi(ctx), result["object"], result["record_id"])
    elif params is not None:
        await undo_create(SalesforceApi(ctx), params.object, None)
    elif ctx.attempt > 1:
        raise OutcomeUnknown("which object the record is of is not known; send the params, too")


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_record(params: UpdateRecord, ctx: Ctx) -> RecordUpdated:
    """Change the fields given of a record of any object, and nothing else."""
    api = SalesforceApi(ctx)
    body = await body_of(api, params.object, {}, params.fields)
    changed = await update(api, params.object, params.record_id, body)
    return RecordUpdated(object=params.object, record_id=params.record_id, updated_fields=changed)


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def upsert_record(params: UpsertRecord, ctx: Ctx) -> RecordCreated:
    """Create the record of an external id, or change it where it is there."""
    api = SalesforceApi(ctx)
    # A name that is no external id would be taken for a relationship.
    await check_names(api, params.object, {params.external_id_field: None, **params.fields})
    made = await upsert(
        api,
        params.object,
        params.external_id_field,
        params.external_id,
        dict(params.fields),
        allow_duplicates=params.allow_duplicates,
    )
    return RecordCreated(object=params.object, record_id=made.id, created=made.is_new)


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def delete_record(params: RecordRef, ctx: Ctx) -> RecordDeleted:
    """Delete a record of any object; it goes to the org's recycle bin. The answer of a repeat is the same."""
    was_there = await delete(SalesforceApi(ctx), params.object, params.record_id)
    # On a repeated try it may be the first one that deleted it, for good.
    if not was_there and ctx.attempt == 1:
        raise NotFound(f"there is no {params.object} {params.record_id}, or this user may not see it")
    return RecordDeleted(object=params.object, record_id=params.record_id, deleted=True)


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def describe_object(params: DescribeObject, ctx: Ctx) -> Described:
    """Describe an object: its fields, their types, their picklists; what is said is ten minutes old at most."""
    facts = await descriptions.of(SalesforceApi(ctx), params.object)
    return Described(
        name=facts.name,
        label=facts.label,
        createable=facts.is_createable,
        updateable=facts.is_updateable,
        deletable=facts.is_deletable,
        fields=[dict(each) for each in facts.fields.values()],
    )
