"""Local servers that speak a provider's API well enough to develop, demo and test against.

`connectors dev` starts one of each: it hands `settings` to the worker, and puts `credential()` in the
vault under the connector's name, for the tenant and the credential `default`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from connectors.sandbox.google.server import GoogleSandbox
from connectors.sandbox.salesforce.server import SalesforceSandbox

__all__ = ["GoogleSandbox", "SalesforceSandbox", "Sandbox", "make_sandboxes"]


class Sandbox(Protocol):
    """A provider of one's own, on the loopback interface."""

    @property
    def connector(self) -> str:
        """The connector that it is for."""

    @property
    def url(self) -> str:
        """Where it listens, once it is started."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The worker's settings that lead to it, by their names less CONNECTORS_."""

    async def start(self) -> None:
        """Listen on a free port."""

    async def stop(self) -> None:
        """Close every connection."""

    def credential(self) -> dict[str, Any]:
        """Make an account to develop with, and give its credential's document."""


def make_sandboxes() -> tuple[Sandbox, ...]:
    """Make one of each provider's, not started yet."""
    return (GoogleSandbox(), SalesforceSandbox())
