"""`credentials put|check|list|delete|rotate-key`: secrets from a file or standard input, never argv."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import (
    EXIT_USAGE,
    confirm,
    errors_reported,
    fail,
    print_json,
    print_table,
    run_async,
)
from worker.cli.source import read_text, shown

if TYPE_CHECKING:
    from connectors.sdk.connector import Connector
    from worker.credentials.key_rotation import RotationState
    from worker.credentials.table_operator import TableOperator
    from worker.credentials.vault_operator import VaultOperator

app = typer.Typer(
    help="The credentials of connectors, in the vault or the encrypted table.", no_args_is_help=True
)

Tenant = Annotated[str, typer.Option(help="On whose behalf.")]
Credential = Annotated[str, typer.Option(help="The credential's name.")]


@app.command()
def put(
    connector: str,
    file: Annotated[str, typer.Argument(help="A JSON file, or - for standard input.")],
    tenant: Tenant = "default",
    credential: Credential = "default",
) -> None:
    """Store a credential, checked against what the connector needs. Its values are never printed."""
    try:
        secret = json.loads(read_text(file))
    except (ValueError, RecursionError):
        fail(f"{shown(file)} is not JSON", EXIT_USAGE)
    if not isinstance(secret, dict):
        fail(f"{shown(file)} must hold a JSON object", EXIT_USAGE)
    _check(connector, secret)
    with errors_reported():
        version = _operate("put", tenant, connector, credential, secret)
    print(f"stored {tenant}/{connector}/{credential}{f' (version {version})' if version else ''}")


@app.command()
def check(connector: str, tenant: Tenant = "default", credential: Credential = "default") -> None:
    """Read a credential as a worker does, check its form, and ask the provider whether it takes it.

    A refresh token that the provider exchanges is stored.
    """
    with errors_reported():
        found = _find(connector)
        _note("check", tenant, connector, credential)  # before the read: one that fails is a read, too
        run_async(_check_as_worker(found, tenant, credential))
        if found.can_check:
            print(f"{tenant}/{connector}/{credential}: the provider answers, and does not refuse it")
        else:
            print(f"{tenant}/{connector}/{credential} is there and well-formed; {connector} asks no further")


@app.command("list")
def list_credentials(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the names of credentials, of all tenants or of one."""
    with errors_reported(), _operator() as operator:
        found = [
            {"tenant": each, "connector": connector, "credential": name}
            for each in ([tenant] if tenant is not None else operator.tenants())
            for connector in sorted(operator.connectors(each))
            for name in operator.names(each, connector)
        ]
    if as_json:
        print_json(found)
        return
    rows = [(each["tenant"], each["connector"], each["credential"]) for each in found]
    print_table(
        ["tenant", "connector", "credential"],
        rows,
        empty="There are no credentials." if tenant is None else f"The tenant {tenant!r} has no credentials.",
    )


@app.command()
def delete(connector: str, tenant: Tenant = "default", credential: Credential = "default") -> None:
    """Delete a credential with all its versions."""
    with errors_reported():
        _operate("delete", tenant, connector, credential)
    print(f"deleted {tenant}/{connector}/{credential}")


@app.command("rotate-key")
def rotate_key() -> None:
    """Encrypt every tenant's key under the first key of the keyring, while workers run.

    A rotation that was broken off is begun again: what is done stays done.
    """
    with errors_reported():
        rotation = _table_operator().rotate_key(_show_progress)
    print(
        f"{rotation.done} keys are now under {rotation.master_key!r}, {rotation.already} were before", end=""
    )
    print(f"; {rotation.left} are left, {len(rotation.failed)} do not open")
    for tenant, reason in sorted(rotation.failed.items()):
        print(f"  {tenant}: {reason}")
    for master_key in rotation.free:
        print(
            f"no tenant's key is under {master_key!r} any more: its line may leave the keyring of every worker"
        )
    if rotation.left or rotation.failed:
        raise typer.Exit(1)


@app.command()
def shred(
    tenant: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a tenant's key from the encrypted table: its credentials open no more, nor do backups of them."""
    confirm(f"Delete the key of the tenant {tenant!r}? Its credentials are lost.", yes=yes)
    with errors_reported():
        found = _table_operator().shred(tenant)
    if not found:
        fail(f"the tenant {tenant!r} has no key in the table")
    print(f"the key of {tenant} is deleted")


def _show_progress(rotation: "RotationState") -> None:
    if sys.stderr.isatty():
        print(
            f"\r{rotation.done} done, {rotation.left} left, {len(rotation.failed)} failed ",
            end="",
            file=sys.stderr,
        )


def _table_operator() -> "TableOperator":
    from worker.credentials.table_operator import TableOperator
    from worker.settings import SettingError

    operator = _operator()
    if not isinstance(operator, TableOperator):
        raise SettingError("CONNECTORS_CREDENTIALS is vault, which keeps its own keys; set it to database")
    return operator


def _note(deed: str, tenant: str, connector: str, credential: str) -> None:
    """Write down that a person had a secret read, where the store keeps an audit of its own."""
    from worker.credentials.table_operator import TableOperator

    operator = _operator()
    if isinstance(operator, TableOperator):
        operator.note(deed, tenant, connector, credential)


def _operate(verb: str, *args: Any) -> Any:
    """Do one thing as an operator, in the store that the settings name."""
    with _operator() as operator:
        return getattr(operator, verb)(*args)


def _operator() -> "VaultOperator | TableOperator":
    from worker.cli.calls import settings_for_clients
    from worker.credential_store import credential_table
    from worker.settings import SettingError

    settings = settings_for_clients()
    if settings.credentials == "database":
        from worker.credentials.table_operator import TableOperator

        return TableOperator(lambda: credential_table(settings))
    if settings.vault_url is None:
        raise SettingError("CONNECTORS_VAULT_URL is not set: there is no vault to work on")
    from worker.credentials.vault_config import vault_config
    from worker.credentials.vault_operator import VaultOperator

    return VaultOperator(vault_config(settings))


async def _check_as_worker(connector: "Connector[Any]", tenant: str, credential: str) -> None:
    from worker.cli.calls import settings_for_clients
    from worker.credential_store import stored_credentials
    from worker.credentials.provider_check import ProviderCheck

    settings = settings_for_clients()
    await ProviderCheck(settings, connector, stored_credentials(settings)).run(tenant, credential)


def _check(connector: str, secret: dict[str, Any]) -> None:
    """Check a secret against its connector."""
    from connectors.sdk.errors import CredentialInvalid

    try:
        _find(connector).read_credential(secret)
    except CredentialInvalid as error:
        fail(error.message)


def _find(connector: str) -> "Connector[Any]":
    """Return an installed connector that takes a credential."""
    from connectors.registry import load

    entry = load([connector]).installed.get(connector)
    if entry is None or entry.connector is None:
        fail(
            (entry and entry.fault)
            or f"no connector {connector!r} is installed; `connectors list` names what is",
            EXIT_USAGE,
        )
    if entry.connector.credential is None:
        fail(f"the connector {connector!r} takes no credential", EXIT_USAGE)
    return entry.connector
