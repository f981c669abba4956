"""What a connector is written with: everything public is named here."""

from connectors.sdk.connector import Connector
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    InvalidParams,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    Rejected,
    Timeout,
    Unavailable,
)

__all__ = [
    "Conflict",
    "Connector",
    "ConnectorError",
    "Context",
    "CredentialInvalid",
    "Effect",
    "InvalidParams",
    "NotFound",
    "OutcomeUnknown",
    "PermissionDenied",
    "RateLimited",
    "Rejected",
    "Timeout",
    "Unavailable",
]
