"""Verified TLS to the broker and the database."""

import ssl

from worker.ledger import database_host
from worker.settings import Settings


def broker_tls(settings: Settings) -> ssl.SSLContext | None:
    """Make the context for the broker; None where the URL asks for no encryption."""
    return _verifying(settings) if settings.rabbitmq_url.get_secret_value().startswith("amqps:") else None


def database_tls(settings: Settings) -> ssl.SSLContext | None:
    """Make the context for the ledger's database; None for a file, or where plaintext is accepted."""
    host = database_host(settings.ledger_url)
    return None if host is None or settings.allows_plaintext(host) else _verifying(settings)


def _verifying(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.ca_file is not None:
        context.load_verify_locations(settings.ca_file)
    return context
