"""`credentials put|check|list|delete`: secrets in the vault, from a file or standard input, never argv."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.output import EXIT_USAGE, errors_reported, fail, print_json, print_table, run_async
from worker.cli.source import read_text, shown

if TYPE_CHECKING:
    from connectors.sdk.connector import Connector

app = typer.Typer(help="The credentials of connectors, in the vault.", no_args_is_help=True)

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
        run_async(_check_as_worker(found, tenant, credential))
        if found.can_check:
            print(f"{tenant}/{connector}/{credential}: the provider answers, and does not refuse it")
        else:
            print(f"{tenant}/{connector}/{credential} is there and well-formed; {connector} asks no further")


@app.command("list")
def list_credentials(
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the names of a tenant's credentials."""
    with errors_reported():
        found = [
            {"tenant": tenant, "connector": connector, "credential": name}
            for connector in sorted(_operate("connectors", tenant))
            for name in _operate("names", tenant, connector)
        ]
    if as_json:
        print_json(found)
        return
    rows = [(each["tenant"], each["connector"], each["credential"]) for each in found]
    print_table(
        ["tenant", "connector", "credential"], rows, empty=f"The tenant {tenant!r} has no credentials."
    )


@app.command()
def delete(connector: str, tenant: Tenant = "default", credential: Credential = "default") -> None:
    """Delete a credential with all its versions."""
    with errors_reported():
        _operate("delete", tenant, connector, credential)
    print(f"deleted {tenant}/{connector}/{credential}")


def _operate(verb: str, *args: Any) -> Any:
    """Do one thing with an operator's token."""
    from worker.cli.calls import settings_for_clients
    from worker.credentials.vault_config import vault_config
    from worker.credentials.vault_operator import VaultOperator
    from worker.settings import SettingError

    settings = settings_for_clients()
    if settings.vault_url is None:
        raise SettingError("CONNECTORS_VAULT_URL is not set: there is no vault to work on")
    with VaultOperator(vault_config(settings)) as operator:
        return getattr(operator, verb)(*args)


async def _check_as_worker(connector: "Connector[Any]", tenant: str, credential: str) -> None:
    from worker.cli.calls import settings_for_clients
    from worker.credentials.provider_check import ProviderCheck
    from worker.settings import SettingError

    settings = settings_for_clients()
    if settings.vault_url is None:
        raise SettingError("CONNECTORS_VAULT_URL is not set: there is no vault to read")
    await ProviderCheck(settings, connector).run(tenant, credential)


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
