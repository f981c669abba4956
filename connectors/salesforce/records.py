"""The actions on records of any object."""

from typing import Any

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, WRITE_ERRORS, salesforce
from connectors.salesforce.describe import check_names, check_paths, descriptions
from connectors.salesforce.error_mapping import reason_of
from connectors.salesforce.explain_refusals import explained, object_named_by
from connectors.salesforce.models import (
    Described,
    Record,
    RecordCreated,
    RecordDeleted,
    RecordFound,
    RecordUpdated,
)
from connectors.salesforce.query_rows import plain, query_rows
from connectors.salesforce.record_params import (
    CreateRecord,
    DescribeObject,
    GetRecord,
    RecordRef,
    UpdateRecord,
    UpsertRecord,
)
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
from connectors.sdk import Effect
from connectors.sdk.errors import InvalidParams, NotFound, OutcomeUnknown, Rejected


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_record(params: GetRecord, ctx: Ctx) -> RecordFound:
    """Look up a record of any object by its id."""
    api = SalesforceApi(ctx)
    with object_named_by("object"):
        record = await _whole(api, params) if params.fields is None else await _fields(api, params)
    return RecordFound(object=params.object, record=record)


def _object_of(params: CreateRecord) -> str:
    return params.object


@salesforce.action(effect=creates(_object_of), errors=WRITE_ERRORS)
async def create_record(params: CreateRecord, ctx: Ctx) -> RecordCreated:
    """Create a record of any object, once per idempotency key if the credential names a field for it."""
    api = SalesforceApi(ctx)
    with object_named_by("object"):
        body = await body_of(api, params.object, {}, params.fields)
        made = await create(api, params.object, body, params)
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
    api = SalesforceApi(ctx, is_compensation=True)
    if result:
        await undo_create(api, result["object"], result["record_id"])
    elif params is not None:
        await undo_create(api, params.object, None)
    elif ctx.is_repeat:
        raise OutcomeUnknown("the object of the record is unknown; send the params, too")


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_record(params: UpdateRecord, ctx: Ctx) -> RecordUpdated:
    """Change the fields given of a record of any object, and nothing else."""
    api = SalesforceApi(ctx)
    with object_named_by("object"):
        body = await body_of(api, params.object, {}, params.fields)
        changed = await update(api, params.object, params.record_id, body, params)
    return RecordUpdated(object=params.object, record_id=params.record_id, updated_fields=changed)


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def upsert_record(params: UpsertRecord, ctx: Ctx) -> RecordCreated:
    """Create the record of an external id, or change it if it exists."""
    api = SalesforceApi(ctx)
    field = params.external_id_field
    with object_named_by("object"):
        await check_names(api, params.object, params.fields)
        facts = await descriptions.of(api, params.object)
        # A name that is no external id would be taken for a relationship.
        if field.lower() not in facts.fields:
            raise InvalidParams.field("external_id_field", f"{params.object} has no field {field}")
        try:
            made = await upsert(api, params.object, field, params.external_id, params.fields, options=params)
        except Rejected as refused:
            if reason_of(refused) != "INVALID_FIELD" or refused.details[0].field != field:
                raise
            raise InvalidParams.field("external_id_field", refused.details[0].issue) from None
    return RecordCreated(object=params.object, record_id=made.id, created=made.is_new)


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def delete_record(params: RecordRef, ctx: Ctx) -> RecordDeleted:
    """Delete a record of any object; it goes to the org's recycle bin. A repeat returns the same."""
    with object_named_by("object"):
        was_there = await delete(SalesforceApi(ctx), params.object, params.record_id)
    # An earlier attempt may have deleted it.
    if not was_there and not ctx.is_repeat:
        raise _unknown(params)
    return RecordDeleted(object=params.object, record_id=params.record_id, deleted=True)


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def describe_object(params: DescribeObject, ctx: Ctx) -> Described:
    """Describe an object: its fields, their types, their picklists; at most ten minutes old."""
    with object_named_by("object"):
        facts = await descriptions.of(SalesforceApi(ctx), params.object)
    return Described(
        name=facts.name,
        label=facts.label,
        createable=facts.is_createable,
        updateable=facts.is_updateable,
        deletable=facts.is_deletable,
        fields=[dict(each) for each in facts.fields.values()],
    )


async def _whole(api: SalesforceApi, params: GetRecord) -> Record:
    async with explained(api, params.object):
        return plain(await api.run(lambda org: org.object(params.object).get(params.record_id)))


async def _fields(api: SalesforceApi, params: GetRecord) -> Record:
    assert params.fields is not None
    await check_paths(api, params.object, params.fields)
    paths = list(dict.fromkeys(["Id", *params.fields]))
    soql = select(params.object, paths, "Id = {value}", limit=1, value=params.record_id)
    rows = await query_rows(api, soql, limit=1)
    if not rows.records:
        raise _unknown(params)
    return rows.records[0]


def _unknown(params: RecordRef) -> NotFound:
    return NotFound(f"there is no {params.object} {params.record_id}, or this user may not see it")
