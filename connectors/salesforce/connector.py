"""The connector itself; its actions are in `contacts`, `leads`, `cases`, `tasks`, `records` and `queries`."""

from typing import Final

from connectors.salesforce.credential import SalesforceCredential
from connectors.sdk import Connector
from connectors.sdk.errors import Code

#: What an action may fail with beyond the common codes, for the catalogue.
READ_ERRORS: Final = (
    Code.CREDENTIAL_INVALID,
    Code.PERMISSION_DENIED,
    Code.NOT_FOUND,
    Code.REJECTED,
    Code.RATE_LIMITED,
    Code.UNAVAILABLE,
    Code.TIMEOUT,
)
WRITE_ERRORS: Final = (*READ_ERRORS, Code.CONFLICT)

salesforce = Connector("salesforce", title="Salesforce", credential=SalesforceCredential)
