"""Local servers for a provider's API, to develop, demo and test against.

`connectors dev` starts one of each: it passes `settings` to the worker, and stores `credential()` in the
vault under the connector's name, for the tenant and the credential `default`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from connectors.sandbox.google.server import GoogleSandbox
from connectors.sandbox.salesforce.server import SalesforceSandbox

__all__ = ["GoogleSandbox", "SalesforceSandbox", "Sandbox", "make_sandboxes"]


class Sandbox(Protocol):
    """A private provider on the loopback interface."""

    @property
    def connector(self) -> str:
        """The connector it stands in for."""

    @property
    def url(self) -> str:
        """The address it listens on, once it is started."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The worker's settings that lead to it, by their names less CONNECTORS_."""

    async def start(self) -> None:
        """Start listening on a free port."""

    async def stop(self) -> None:
        """Close every connection."""

    def credential(self) -> dict[str, Any]:
        """Create an account to develop with, and return the secret fields of its credential."""


def make_sandboxes() -> tuple[Sandbox, ...]:
    """Return one sandbox of each provider, not started yet."""
    return (GoogleSandbox(), SalesforceSandbox())
