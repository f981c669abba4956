"""The SDK for connectors: every public name is listed here.

Less common names are in modules of their own, public as well:

    connectors.sdk.auth       credentials ready to use: API key, basic, OAuth 2, and the base for your own
    connectors.sdk.errors     every error class, and `Sent`: how far a request had come
    connectors.sdk.http       the HTTP client, and what reads a provider's answers
    connectors.sdk.paginate   answers that come in pages
    connectors.sdk.phone      phone numbers compared as numbers; needs the package phonenumbers
    connectors.sdk.testing    the test kit, and the contract that every connector passes

Compatibility: what the `__all__` of these modules names keeps its meaning until the next major version,
and warns for one minor version before it goes. Everything else may change at any time.
"""

from connectors.sdk.connector import Connector, UrlSetting
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
from connectors.sdk.personal import Personal

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
    "Personal",
    "RateLimited",
    "Rejected",
    "Timeout",
    "Unavailable",
    "UrlSetting",
]
