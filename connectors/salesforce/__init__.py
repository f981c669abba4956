"""Salesforce: contacts, leads, cases, tasks, any other record, queries."""

from connectors.salesforce import callers, cases, contacts, conversion, flows, leads, queries, records, tasks
from connectors.salesforce.connector import salesforce

__all__ = [
    "callers",
    "cases",
    "contacts",
    "conversion",
    "flows",
    "leads",
    "queries",
    "records",
    "salesforce",
    "tasks",
]
