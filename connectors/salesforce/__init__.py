"""Salesforce: contacts, leads, cases, tasks, any other record, queries."""

from connectors.salesforce import cases, contacts, leads, queries, records, tasks
from connectors.salesforce.connector import salesforce

__all__ = ["cases", "contacts", "leads", "queries", "records", "salesforce", "tasks"]
