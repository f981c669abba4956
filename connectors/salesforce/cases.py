"""The actions on cases."""

import json
from typing import Any, Final

from connectors.salesforce.client import Ctx, Org, SalesforceApi
from connectors.salesforce.connector import READ_ERRORS, WRITE_ERRORS, salesforce
from connectors.salesforce.credential import SalesforceCredential
from connectors.salesforce.describe import check_paths, with_visible
from connectors.salesforce.error_mapping import reason_of, refusal_of
from connectors.salesforce.explain_refusals import explained
from connectors.salesforce.fields import full_id
from connectors.salesforce.models import CaseCreated, CaseFound, CaseUpdated, CommentAdded
from connectors.salesforce.params import AddComment, CreateCase, GetCase, UpdateCase
from connectors.salesforce.query_rows import query_rows, records_of
from connectors.salesforce.soql import select
from connectors.salesforce.write_records import (
    body_of,
    create,
    creates,
    find_created,
    save_headers,
    undo_create,
    update,
)
from connectors.sdk import Effect
from connectors.sdk.errors import Conflict, ConnectorError, NotFound, Rejected, Sent, Unavailable

#: Fields returned of a case unless `fields` is given. Its owner may be a user or a queue, which have few
#: fields in common.
CASE_FIELDS: Final = (
    "Id",
    "CaseNumber",
    "Subject",
    "Status",
    "Priority",
    "Origin",
    "Description",
    "IsClosed",
    "CreatedDate",
    "ClosedDate",
    "LastModifiedDate",
    "ContactId",
    "Contact.Name",
    "AccountId",
    "Account.Name",
    "OwnerId",
    "Owner.Name",
    "Owner.Type",
)


@salesforce.action(effect=Effect.READ, errors=READ_ERRORS)
async def get_case(params: GetCase, ctx: Ctx) -> CaseFound:
    """Look up a case by its id or its number."""
    api = SalesforceApi(ctx)
    paths = list(CASE_FIELDS)
    if params.fields is not None:
        paths = list(dict.fromkeys(["Id", *params.fields]))
        await check_paths(api, "Case", params.fields)
    return CaseFound(case=await _find(api, paths, params.case_id, params.case_number))


@salesforce.action(effect=creates("Case"), errors=WRITE_ERRORS)
async def create_case(params: CreateCase, ctx: Ctx) -> CaseCreated:
    """Open a case, once per idempotency key if the credential names a field for it."""
    named = {
        "Subject": params.subject,
        "Description": params.description,
        "Status": params.status,
        "Priority": params.priority,
        "Origin": params.origin,
        "ContactId": params.contact_id,
        "AccountId": params.account_id,
        "OwnerId": params.owner_id,
    }
    api = SalesforceApi(ctx)
    body = await body_of(api, "Case", named, params.fields)
    case = await create(api, "Case", body, params)
    number = await _number_of(api, case.id)
    return CaseCreated(case_id=case.id, case_number=number, created=case.is_new)


@create_case.reconcile
async def find_case(params: CreateCase, ctx: Ctx) -> CaseCreated | None:
    """Look up whether the case was opened."""
    case = await find_created(SalesforceApi(ctx), "Case")
    if case is None:
        return None
    number = await _number_of(SalesforceApi(ctx), case.id)
    return CaseCreated(case_id=case.id, case_number=number, created=case.is_new)


@create_case.undo
async def delete_case(ctx: Ctx, result: dict[str, Any] | None) -> None:
    """Delete the case that was opened."""
    await undo_create(SalesforceApi(ctx, is_compensation=True), "Case", result["case_id"] if result else None)


def _effect_of_update(params: UpdateCase, credential: SalesforceCredential | None) -> Effect:
    """Return WRITE if a comment is added, which a repeat would add twice."""
    return Effect.KEYED if params.comment is None else Effect.WRITE


@salesforce.action(effect=_effect_of_update, errors=WRITE_ERRORS)
async def update_case(params: UpdateCase, ctx: Ctx) -> CaseUpdated:
    """Change the fields given of a case; a comment is added in the same step, or neither happens."""
    api = SalesforceApi(ctx)
    named = {
        "Status": params.status,
        "Priority": params.priority,
        "Subject": params.subject,
        "Description": params.description,
        "OwnerId": params.owner_id,
    }
    body = await body_of(api, "Case", named, params.fields)
    case_id = params.case_id or await _id_of(api, params.case_number)
    if params.comment is None:
        changed = await update(api, "Case", case_id, body, params)
    elif not body:
        await _comment(api, case_id, params.comment, public=False)
        changed = []
    else:
        await _update_with_comment(api, case_id, body, params)
        changed = sorted(body)
    return CaseUpdated(case_id=case_id, updated_fields=changed)


@salesforce.action(effect=Effect.WRITE, errors=WRITE_ERRORS)
async def add_case_comment(params: AddComment, ctx: Ctx) -> CommentAdded:
    """Add a comment to a case."""
    api = SalesforceApi(ctx)
    case_id = params.case_id or await _id_of(api, params.case_number)
    comment_id = await _comment(api, case_id, params.comment, public=params.public)
    return CommentAdded(comment_id=comment_id, case_id=case_id)


async def _find(
    api: SalesforceApi, paths: list[str], case_id: str | None, number: str | None
) -> dict[str, Any]:
    """Return a case by its id or its number.

    Raises:
        NotFound, Conflict: there is none; several have the number.
    """
    where, value = ("Id = {value}", case_id) if case_id is not None else ("CaseNumber = {value}", number)
    rows = await with_visible(
        api,
        "Case",
        paths,
        lambda shown: query_rows(api, select("Case", shown, where, limit=2, value=value), limit=2),
    )
    if not rows.records:
        raise NotFound(f"there is no case {value}, or this user may not see it")
    if len(rows.records) > 1:
        ids = [full_id(str(record["Id"])) for record in rows.records]
        raise Conflict(f"several cases have the number {number}", data={"ids": ids})
    record = rows.records[0]
    if not isinstance(record.get("Id"), str):
        raise Unavailable("Salesforce returned a case without its id", sent=Sent.NO)
    return record | {"Id": full_id(record["Id"])}


async def _id_of(api: SalesforceApi, number: str | None) -> str:
    return str((await _find(api, ["Id"], None, number))["Id"])


async def _number_of(api: SalesforceApi, case_id: str) -> str | None:
    """Return a new case's number; the case exists, so a failure here must not fail the job."""
    try:
        case = await _find(api, ["Id", "CaseNumber"], case_id, None)
    except ConnectorError:
        return None
    number = case.get("CaseNumber")
    return number if isinstance(number, str) else None


async def _comment(api: SalesforceApi, case_id: str, text: str, *, public: bool) -> str:
    body = {"ParentId": case_id, "CommentBody": text, "IsPublished": public}
    try:
        answer = await api.run(lambda org: org.object("CaseComment").create(body))
    except Rejected as rejected:
        if reason_of(rejected) != "INVALID_CROSS_REFERENCE_KEY":
            raise
        raise NotFound(f"there is no case {case_id}, or this user may not see it") from None
    return full_id(str(answer.get("id")))


async def _update_with_comment(
    api: SalesforceApi, case_id: str, body: dict[str, Any], params: UpdateCase
) -> None:
    """Change the case and add the comment in one request, both or neither.

    Raises:
        ConnectorError: by the code of the part that failed.
    """
    objects = f"{api.root}sobjects"
    request = {
        "allOrNone": True,
        "compositeRequest": [
            {
                "method": "PATCH",
                "url": f"{objects}/Case/{case_id}",
                "referenceId": "case",
                "httpHeaders": save_headers(params, body),
                "body": body,
            },
            {
                "method": "POST",
                "url": f"{objects}/CaseComment",
                "referenceId": "comment",
                "body": {"ParentId": case_id, "CommentBody": params.comment, "IsPublished": False},
            },
        ],
    }

    def write(org: Org) -> Any:
        return org.api.restful("composite", method="POST", data=json.dumps(request))

    async with explained(api, "Case"):
        _check_parts(await api.run(write) or {})


def _check_parts(answer: dict[str, Any]) -> None:
    parts = records_of(answer, "compositeResponse", sent=Sent.UNCERTAIN)
    statuses = [part.get("httpStatusCode") for part in parts]
    if len(parts) != 2 or not all(isinstance(status, int) for status in statuses):
        raise Unavailable("Salesforce returned fewer results than were requested", sent=Sent.UNCERTAIN)
    failed = [part for part in parts if part["httpStatusCode"] >= 300]
    # The other part only says PROCESSING_HALTED; report the part that halted it.
    causes = [part for part in failed if "PROCESSING_HALTED" not in str(part.get("body"))] or failed
    if causes:
        raise refusal_of(causes[0].get("body"), causes[0]["httpStatusCode"])
