"""Verified TLS to the broker and the database."""

import ssl
from pathlib import Path

from worker.ledger.database import database_host
from worker.settings import Settings


def broker_tls(settings: Settings) -> ssl.SSLContext | None:
    """Make the context for the broker; None where the URL asks for no encryption."""
    return (
        verifying_context(settings.ca_file)
        if settings.rabbitmq_url.get_secret_value().startswith("amqps:")
        else None
    )


def database_tls(settings: Settings) -> ssl.SSLContext | None:
    """Make the context for the ledger's database; None for a file, or where plaintext is accepted."""
    host = database_host(settings.ledger_url)
    return None if host is None or settings.allows_plaintext(host) else verifying_context(settings.ca_file)


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Make a context that verifies, with the authority of the setting beside the machine's own."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
