"""Verified TLS to the broker and the database; a file of authorities that is replaced counts from the next connect."""

import os
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from loguru import logger

from worker.database_url import DatabaseUrl
from worker.settings import Settings

#: Files whose context is kept; a worker has one.
_MAX_CONTEXTS: Final = 8


class _Stamp(NamedTuple):
    """Distinguishes a file from the one that takes its place."""

    inode: int
    size: int
    changed_ns: int


class _Known(NamedTuple):
    """What a file held."""

    stamp: _Stamp | None
    context: ssl.SSLContext


_known: dict[Path | None, _Known] = {}


def broker_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the context for a connection to the broker; None if the URL asks for no encryption."""
    return (
        verifying_context(settings.ca_file)
        if settings.rabbitmq_url.get_secret_value().startswith("amqps:")
        else None
    )


def database_tls(settings: Settings) -> ssl.SSLContext | bool | None:
    """Return the context for a connection to the ledger's database.

    None leaves it to the driver: a file, or a host where plaintext is accepted and the URL says nothing.
    """
    url = DatabaseUrl.parse(settings.ledger_url)
    if url.is_sqlite:
        return None
    if url.ssl_mode in {None, "disable"} and settings.allows_plaintext(url.host):
        return None if url.ssl_mode is None else False
    return verifying_context(settings.ca_file)


def verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies, trusting the file's authorities beside the machine's own.

    The same one until the file changes. A file that is being written, or is gone, changes nothing.

    Raises:
        OSError: there is no such file, or no certificate in it, and never was.
    """
    known = _known.get(ca_file)
    try:
        stamp = _stamp(ca_file)
        if known is not None and known.stamp == stamp:
            return known.context
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        if known is None:
            raise
        logger.warning(
            "CA file cannot be read", file=str(ca_file), reason=str(error), next="the one before still counts"
        )
        return known.context
    if known is not None:
        logger.info("CA file read again", file=str(ca_file))
    elif len(_known) >= _MAX_CONTEXTS:
        _known.clear()
    _known[ca_file] = _Known(stamp, context)
    return context


def _stamp(file: Path | None) -> _Stamp | None:
    if file is None:
        return None
    found = os.stat(file)  # noqa: PTH116  # follows the links that Kubernetes replaces
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
