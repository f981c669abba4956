"""The actions that search (SOQL, SOSL), and the org's limits."""

from typing import Any, Final

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, salesforce
from connectors.salesforce.describe import ObjectFacts, descriptions
from connectors.salesforce.explain_refusals import check_mark_fields, object_named_by
from connectors.salesforce.models import Limits, Matches, RecordPage
from connectors.salesforce.query_cursor import read_cursor, write_cursor
from connectors.salesforce.query_rows import plain, query_rows, records_of, type_of
from connectors.salesforce.record_params import (
    BoundContains,
    BoundDate,
    BoundStart,
    BoundTime,
    Query,
    SearchRecords,
)
from connectors.salesforce.soql import Pattern, bind, find
from connectors.sdk import Effect
from connectors.sdk.errors import InvalidParams

#: Fields returned of a found record if its object has them, besides Id and its name.
USUAL_FIELDS: Final = ("Subject", "Status", "Email", "Phone", "Company")


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def query(params: Query, ctx: Ctx) -> RecordPage:
    """Run a SOQL query that only reads; values are passed in `bindings` and quoted.

    Dates and times are bound as `{"date": "2026-03-08"}` and `{"datetime": "2026-03-08T09:00:00Z"}`, a
    text for LIKE as `{"contains": "100%"}` or `{"starts_with": "a_b@"}`. If there are more records, `cursor` is for
    the same query again.
    """
    soql = bind(params.soql, {name: value_of(bound) for name, bound in params.bindings.items()})
    start = None if params.cursor is None else read_cursor(params.cursor, soql)
    with object_named_by("soql"):
        rows = await query_rows(SalesforceApi(ctx), soql, limit=params.limit, start=start)
    return RecordPage(
        records=rows.records,
        total=rows.total,
        truncated=rows.truncated,
        cursor=None if rows.rest is None else write_cursor(rows.rest, soql),
    )


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def search_records(params: SearchRecords, ctx: Ctx) -> Matches:
    """Search for words in records of several objects; `object` names the object of each record."""
    api = SalesforceApi(ctx)
    returning: dict[str, list[str]] = {}
    known: set[str] = set()
    for facts in await _described(api, params):
        returning[facts.name] = _paths(facts, params.fields)
        known |= set(facts.fields) | set(facts.relationships)
    unknown = [path for path in params.fields or () if path.split(".")[0].lower() not in known]
    if unknown:
        raise InvalidParams.field("fields", f"none of the objects has {', '.join(unknown[:5])}")
    limit = params.limit + 1
    answer = await api.run(lambda org: org.api.search(find([params.text], "ALL", returning, limit=limit)))
    found = records_of(answer or {"searchRecords": []}, "searchRecords")
    return Matches(
        records=[{"object": type_of(record), **plain(record)} for record in found[: params.limit]],
        total=len(found),
        truncated=len(found) > params.limit,
    )


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_limits(ctx: Ctx) -> Limits:
    """Return the org's limits and what is left of them, such as API requests per day."""
    return Limits(limits=await SalesforceApi(ctx).run(lambda org: org.api.limits()))


@salesforce.check
async def check_credential(ctx: Ctx) -> None:
    """Log in, list the API's resources, which every user may, and look for the fields that hold the job's mark."""
    api = SalesforceApi(ctx)
    await api.run(lambda org: org.api.restful(""))
    for name in ctx.credential.marked_objects():
        await check_mark_fields(api, name)


async def _described(api: SalesforceApi, params: SearchRecords) -> list[ObjectFacts]:
    """Return the objects to search; of the default ones, those that this user may see."""
    if "objects" in params.model_fields_set:
        with object_named_by("objects"):
            return [await descriptions.of(api, name) for name in dict.fromkeys(params.objects)]
    return await descriptions.visible(api, params.objects)


def _paths(facts: ObjectFacts, asked: list[str] | None) -> list[str]:
    """Return the fields to query of one object: those of `asked` that it has, or else the usual ones."""
    wanted = ["Id", *asked] if asked else ["Id", facts.name_field or "Id", *USUAL_FIELDS]
    there = [
        path
        for path in wanted
        if (path.lower() in facts.fields)
        or ("." in path and len(facts.relationships.get(path.split(".")[0].lower(), ())) == 1)
    ]
    return list(dict.fromkeys(there))


def value_of(bound: Any) -> Any:
    """Return a bound value as a Python value."""
    if isinstance(bound, BoundDate):
        return bound.date
    if isinstance(bound, BoundTime):
        return bound.datetime
    if isinstance(bound, BoundContains):
        return Pattern(bound.contains, is_anywhere=True)
    if isinstance(bound, BoundStart):
        return Pattern(bound.starts_with, is_anywhere=False)
    return bound
