"""Verified TLS to the broker and the database."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

from worker.settings import Settings


def broker_tls(settings: Settings) -> ssl.SSLContext | None:
    """Create the context for the broker; None if the URL asks for no encryption."""
    return (
        verifying_context(settings.ca_file)
        if settings.rabbitmq_url.get_secret_value().startswith("amqps:")
        else None
    )


def database_tls(settings: Settings) -> ssl.SSLContext | None:
    """Create the context for the ledger's database; None for a file, or if plaintext is accepted."""
    host = database_host(settings.ledger_url)
    return None if host is None or settings.allows_plaintext(host) else verifying_context(settings.ca_file)


def database_host(url: str) -> str | None:
    """Return the host of a PostgreSQL URL; None for SQLite."""
    return None if url.startswith("sqlite") else urlsplit(url).hostname


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Create a context that verifies, trusting the setting's authority beside the machine's own."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
