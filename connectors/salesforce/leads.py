"""The actions on leads."""

from typing import Any

from connectors.salesforce.client import Ctx, SalesforceApi
from connectors.salesforce.connector import WRITE_ERRORS, salesforce
from connectors.salesforce.models import LeadCreated, LeadUpdated
from connectors.salesforce.params import CreateLead, UpdateLead
from connectors.salesforce.write_records import (
    body_of,
    create,
    creates,
    find_created,
    undo_create,
    update,
)
from connectors.sdk import Effect


@salesforce.action(effect=creates("Lead"), errors=WRITE_ERRORS)
async def create_lead(params: CreateLead, ctx: Ctx) -> LeadCreated:
    """Create a lead, once per idempotency key if the credential names a field for it.

    A duplicate by the org's duplicate rules is refused with CONFLICT unless `allow_duplicates` is set.
    """
    api = SalesforceApi(ctx)
    body = await body_of(api, "Lead", _named(params), params.fields)
    lead = await create(api, "Lead", body, params)
    return LeadCreated(lead_id=lead.id, created=lead.is_new)


@create_lead.reconcile
async def find_lead(params: CreateLead, ctx: Ctx) -> LeadCreated | None:
    """Look up whether the lead was created."""
    lead = await find_created(SalesforceApi(ctx), "Lead")
    return None if lead is None else LeadCreated(lead_id=lead.id, created=lead.is_new)


@create_lead.undo
async def delete_lead(ctx: Ctx, result: dict[str, Any] | None) -> None:
    """Delete the lead that was created."""
    await undo_create(SalesforceApi(ctx, is_compensation=True), "Lead", result["lead_id"] if result else None)


@salesforce.action(effect=Effect.KEYED, errors=WRITE_ERRORS)
async def update_lead(params: UpdateLead, ctx: Ctx) -> LeadUpdated:
    """Change the fields given of a lead, and nothing else."""
    named = _named(params) | {"OwnerId": params.owner_id}
    api = SalesforceApi(ctx)
    body = await body_of(api, "Lead", named, params.fields)
    changed = await update(api, "Lead", params.lead_id, body, params)
    return LeadUpdated(lead_id=params.lead_id, updated_fields=changed)


def _named(params: CreateLead | UpdateLead) -> dict[str, Any]:
    return {
        "LastName": params.last_name,
        "Company": params.company,
        "FirstName": params.first_name,
        "Email": params.email,
        "Phone": params.phone,
        "Title": params.title,
        "LeadSource": params.lead_source,
        "Status": params.status,
        "Description": params.description,
    }
