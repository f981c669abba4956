"""The CRM: a caller found by number, a lead created once although the connection broke, a case updated."""

from typing import Any, Final
from uuid import uuid4

from connectors.sandbox.salesforce.server import Fault, SalesforceSandbox
from schemas.job import Job
from schemas.result import Result
from worker.client import ConnectorsClient
from worker.dev.demo_output import DemoOutput
from worker.dev.stack import Stack

_TIMEOUT_S: Final = 30.0


async def show_crm(stack: Stack, client: ConnectorsClient, output: DemoOutput) -> bool:
    """Show the scenario in the sandbox's org; return whether it ended as it should."""
    org = next(each for each in stack.sandboxes if isinstance(each, SalesforceSandbox))

    async def send(title: str, job: Job) -> Result:
        output.step(title, job)
        return await client.send(job, timeout_s=_TIMEOUT_S)

    found = await send(
        "A caller is recognised by the number", _job("get_contact_details", phone="0532 111 22 33")
    )
    contact = (found.data or {}).get("contact") or {}
    output.reply(found, f"{contact.get('FirstName')} {contact.get('LastName')}, {contact.get('Email')}")

    org.faults.add(Fault("upsert", cut="after"))
    lead = _job("create_lead", last_name="Hopper", company="Harbour Dental", phone="+90 535 444 55 66")
    made = await send(
        "Her friend becomes a lead; the connection breaks after Salesforce has written it", lead
    )
    output.reply(made)
    leads = [record["LastName"] for record in org.store.records("Lead")]
    output.fact("org", f"{len(leads)} lead{'' if len(leads) == 1 else 's'}: {', '.join(leads)}")

    soql = "SELECT CaseNumber, Subject FROM Case WHERE ContactId = {contact} AND IsClosed = false"
    cases = await send(
        "What is open for her?", _job("query", soql=soql, bindings={"contact": contact.get("Id")})
    )
    records = (cases.data or {}).get("records") or [{}]
    output.reply(cases, f"case {records[0].get('CaseNumber')}: {records[0].get('Subject')}")

    change = _job(
        "update_case",
        case_number=records[0].get("CaseNumber"),
        status="Working",
        comment="Booked for tomorrow at nine.",
    )
    updated = await send("The agent notes what was agreed", change)
    output.reply(updated)
    ended = (found, made, cases, updated)
    return all(each.status == "succeeded" for each in ended) and leads == ["Hopper"]


def _job(action: str, **params: Any) -> Job:
    return Job(id=f"demo-{uuid4().hex[:8]}", connector="salesforce", action=action, params=params)
