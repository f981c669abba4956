"""Which store the secrets come from: the settings' choice, for the worker and for the commands."""

import getpass
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from worker.credentials.source import FetchOutcome, NoVault, SecretStore, ignore_outcome
from worker.credentials.stored_credentials import StoredCredentials, ignore_secret
from worker.settings import SettingError, Settings
from worker.tls import database_tls

if TYPE_CHECKING:
    from worker.credentials.table import CredentialTable


def secret_store(
    settings: Settings,
    *,
    on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
    on_secret: Callable[[str], None] = ignore_secret,
) -> SecretStore:
    """Return the store of a worker; its libraries are imported only then.

    Raises:
        SettingError: the keyring cannot be read.
    """
    if settings.credentials == "vault" and settings.vault_url is None:
        return NoVault(on_fetch)
    return stored_credentials(settings, on_fetch=on_fetch, on_secret=on_secret)


def stored_credentials(
    settings: Settings,
    *,
    on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
    on_secret: Callable[[str], None] = ignore_secret,
) -> StoredCredentials:
    """Return the store that the settings name.

    Raises:
        SettingError: there is none.
    """
    if settings.credentials == "database":
        from worker.credentials.table_source import TableCredentials  # noqa: PLC0415

        return TableCredentials(credential_table(settings), on_fetch=on_fetch, on_secret=on_secret)
    if settings.vault_url is None:
        raise SettingError("CONNECTORS_VAULT_URL is not set: there is no vault to read")
    from worker.credentials.vault_config import vault_config  # noqa: PLC0415
    from worker.credentials.vault_source import VaultCredentials  # noqa: PLC0415

    return VaultCredentials(vault_config(settings), on_fetch=on_fetch, on_secret=on_secret)


def credential_table(settings: Settings) -> "CredentialTable":
    """Return the encrypted table of the settings' database.

    Raises:
        SettingError: the keyring cannot be read.
    """
    from worker.credentials.keyring import Keyring  # noqa: PLC0415
    from worker.credentials.table import CredentialTable  # noqa: PLC0415
    from worker.credentials.table_database import table_database  # noqa: PLC0415

    assert settings.keyring_file is not None
    return CredentialTable(
        table_database(settings.ledger_url, partial(database_tls, settings)),
        Keyring(settings.keyring_file),
        actor=_actor(),
    )


def _actor() -> str:
    """Return who is at work, for the audit: the user, the host and the process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"[:255]
