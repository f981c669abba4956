"""One secret for every job of a kit, and what of it must not come out."""

from collections.abc import Mapping
from typing import Any

from connectors.sdk.connector import Connector
from connectors.sdk.errors import ConnectorError, CredentialNotFound
from connectors.sdk.testing.ran import secrets_of


class FixedSecret:
    """A credential source that gives the same fields to everyone.

    Args:
        secrets: what must not come out; added to when the fields are first asked for.
    """

    def __init__(
        self, connector: Connector[Any], fields: Mapping[str, Any] | None, secrets: set[str]
    ) -> None:
        self._connector = connector
        self._fields = fields
        self._secrets = secrets

    async def fetch(self, tenant: str, connector: str, credential: str) -> Mapping[str, Any]:
        """Return the fields."""
        if self._fields is None:
            raise CredentialNotFound(f"the kit was given no credential for {self._connector.name!r}")
        try:
            self._secrets.update(secrets_of(self.read()))
        except ConnectorError:
            pass  # the job fails by it
        return self._fields

    def read(self) -> Any:
        """Return the credential as an action gets it; None if the connector takes none."""
        if self._connector.credential is None or self._fields is None:
            return None
        return self._connector.read_credential(self._fields)

    async def invalidate(
        self, tenant: str, connector: str, credential: str, refused: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the fields: there are no others."""

    async def wait_available(self, timeout_s: float) -> bool:
        """Return at once: memory is never unavailable."""
        return True
