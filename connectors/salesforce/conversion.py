"""Convert a lead: into a contact of an account, and an opportunity."""

from typing import Any, Final
from xml.etree import ElementTree as ET

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import WRITE_ERRORS, salesforce
from connectors.salesforce.error_mapping import refusal_of
from connectors.salesforce.fields import full_id
from connectors.salesforce.models import LeadConverted
from connectors.salesforce.params import ConvertLead
from connectors.salesforce.query_rows import query_rows
from connectors.salesforce.soap import Elements, local_name, texts
from connectors.salesforce.soql import select
from connectors.sdk import Conflict, Effect, NotFound, Rejected, Unavailable
from connectors.sdk.errors import Sent

_RESULT: Final = ("IsConverted", "ConvertedAccountId", "ConvertedContactId", "ConvertedOpportunityId")
_STATUSES: Final = "SELECT MasterLabel FROM LeadStatus WHERE IsConverted = true ORDER BY SortOrder LIMIT 1"


@salesforce.action(effect=Effect.WRITE, errors=WRITE_ERRORS)
async def convert_lead(params: ConvertLead, ctx: Ctx) -> LeadConverted:
    """Convert a lead into a contact of an account, and into an opportunity unless `create_opportunity` is false.

    Without `account_id` and `contact_id` new ones are created. A lead that is converted already is a CONFLICT,
    with its ids in `error.data`.
    """
    api = SalesforceApi(ctx)
    lead = await _lead(api, params.lead_id)
    if lead is not None and ctx.is_repeat:
        return lead
    if lead is not None:
        ids = {name: value for name, value in lead.model_dump().items() if value is not None}
        raise Conflict(f"the lead {params.lead_id} is converted already", data=ids)
    status = params.converted_status or await _converted_status(api)
    answer = await api.soap(
        "convertLead", "leadConverts", _elements(params, status), allow_duplicates=params.allow_duplicates
    )
    return _read(params, answer)


@convert_lead.reconcile
async def find_conversion(params: ConvertLead, ctx: Ctx) -> LeadConverted | None:
    """Look up whether the lead was converted."""
    return await _lead(SalesforceApi(ctx), params.lead_id)


def _elements(params: ConvertLead, status: str) -> Elements:
    return {
        "accountId": params.account_id,
        "contactId": params.contact_id,
        "convertedStatus": status,
        "doNotCreateOpportunity": not params.create_opportunity,
        "leadId": params.lead_id,
        "opportunityName": params.opportunity_name,
        "overwriteLeadSource": False,
        "ownerId": params.owner_id,
        "sendNotificationEmail": False,
    }


async def _lead(api: SalesforceApi, lead_id: str) -> LeadConverted | None:
    """Return what a lead was converted into; None if it is not converted.

    Raises:
        NotFound: there is no such lead.
    """
    rows = await query_rows(api, select("Lead", _RESULT, "Id = {lead_id}", limit=1, lead_id=lead_id), limit=1)
    if not rows.records:
        raise NotFound(f"there is no lead {lead_id}, or this user may not see it")
    lead = rows.records[0]
    if lead.get("IsConverted") is not True:
        return None
    return LeadConverted(
        lead_id=lead_id,
        account_id=_id(lead.get("ConvertedAccountId")),
        contact_id=_id(lead.get("ConvertedContactId")),
        opportunity_id=_id(lead.get("ConvertedOpportunityId")),
    )


async def _converted_status(api: SalesforceApi) -> str:
    rows = await query_rows(api, _STATUSES, limit=1)
    if not rows.records:
        raise Rejected("the org has no lead status for converted leads; name one in converted_status")
    return str(rows.records[0]["MasterLabel"])


def _read(params: ConvertLead, answer: ET.Element) -> LeadConverted:
    results = [each for each in answer if local_name(each) == "result"]
    if len(results) != 1:
        raise Unavailable("Salesforce did not return one conversion", sent=Sent.UNCERTAIN)
    result = texts(results[0])
    if result.get("success") != "true":
        errors = [_error(each) for each in results[0] if local_name(each) == "errors"]
        raise refusal_of(errors, 400)
    return LeadConverted(
        lead_id=params.lead_id,
        account_id=_id(result.get("accountId")),
        contact_id=_id(result.get("contactId")),
        opportunity_id=_id(result.get("opportunityId")),
    )


def _error(element: ET.Element) -> dict[str, Any]:
    fields = [each.text for each in element if local_name(each) == "fields" and each.text]
    return {**texts(element), "fields": fields}


def _id(value: object) -> str | None:
    return full_id(value) if isinstance(value, str) and value else None
