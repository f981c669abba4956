"""What `connectors credentials` does to the vault, under the operator's own login."""

from collections.abc import Callable, Mapping
from typing import Self, TypeVar

from pydantic import JsonValue

from connectors.sdk.errors import CredentialDenied
from worker.credentials.source import CredentialName
from worker.credentials.vault_client import Login, VaultClient, VaultTokenRefused
from worker.credentials.vault_config import LoginRefused, VaultConfig
from worker.settings import SettingError

ResultT = TypeVar("ResultT")
#: Stands for a name that a listing does not need.
_ANY = "default"


class VaultOperator:
    """Store, list and delete secrets; synchronous, for a command that does one thing and ends.

    Logs in at the first call and keeps that login: a command is over before its token is.

    Every method raises:
        SettingError: the vault refuses the login, or the mount is not KV version 2.
        CredentialDenied: the operator's policy lacks what the message names.
        CredentialNotFound: the names cannot be, or for `delete` are not.
        VaultUnavailable.
    """

    def __init__(self, config: VaultConfig) -> None:
        self._mount = config.mount
        self._client = VaultClient(config)
        self._login: Login | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def put(self, tenant: str, connector: str, credential: str, secret: Mapping[str, JsonValue]) -> int:
        """Store a secret, as a new version where it is there already; return the version's number."""
        name = CredentialName.checked(tenant, connector, credential)
        return self._do(
            lambda login: self._client.write(login.token, name, secret),
            f"`create` and `update` on {self._client.data_path(name)}",
        )

    def names(self, tenant: str, connector: str) -> list[str]:
        """List the credentials that a tenant has for a connector."""
        checked = CredentialName.checked(tenant, connector, _ANY)
        entries = self._list(checked.tenant, checked.connector)
        return [entry for entry in entries if not entry.endswith("/")]

    def connectors(self, tenant: str) -> list[str]:
        """List the connectors that a tenant has credentials for."""
        entries = self._list(CredentialName.checked(tenant, _ANY, _ANY).tenant)
        return [entry[:-1] for entry in entries if entry.endswith("/")]

    def tenants(self) -> list[str]:
        """List the tenants that have credentials."""
        return [entry[:-1] for entry in self._list() if entry.endswith("/")]

    def delete(self, tenant: str, connector: str, credential: str) -> None:
        """Remove a secret with all its versions."""
        name = CredentialName.checked(tenant, connector, credential)
        self._do(
            lambda login: self._client.delete(login.token, name),
            f"`read` and `delete` on {self._mount}/metadata/{name.path}",
        )

    def _list(self, *folders: str) -> list[str]:
        path = "/".join((self._mount, "metadata", "connectors", *folders))
        return self._do(lambda login: self._client.names(login.token, *folders), f"`list` on {path}")

    def _do(self, call: Callable[[Login], ResultT], needed: str) -> ResultT:
        if self._login is None:
            try:
                self._login = self._client.log_in(self._client.read_proof())
            except LoginRefused as refused:
                raise SettingError(str(refused)) from None
            self._client.check_mount(self._login.token)
        try:
            return call(self._login)
        except VaultTokenRefused:
            raise CredentialDenied(f"the vault's policy does not let you: it needs {needed}") from None
