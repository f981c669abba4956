"""A local server for the Salesforce REST API."""

from connectors.sandbox.salesforce.faults import Fault
from connectors.sandbox.salesforce.server import SalesforceSandbox

__all__ = ["Fault", "SalesforceSandbox"]
