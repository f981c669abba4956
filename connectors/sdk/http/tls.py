"""Which authorities a connection trusts, and the certificate that it presents."""

import asyncio
import os
import ssl
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Final

import httpx
from pydantic import SecretStr

from connectors.sdk.errors import CredentialInvalid, Detail, Sent
from connectors.sdk.http.tls_identity import TlsIdentity

#: Contexts of credentials that are kept; the one unused for longest is forgotten first.
MAX_CONTEXTS: Final = 256
#: Longest certificate or key: it goes through a pipe, which holds so much without a reader.
MAX_PEM_BYTES: Final = 32_768


class TlsContexts:
    """The contexts of all connections: one for those without an identity, one for each identity.

    A CA file that is replaced counts from the next request on.

    Args:
        ca_file: authorities that every connection trusts beside the public ones.

    Raises:
        ValueError: the file cannot be read.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self._ca_file = ca_file
        self.default = _with_file(ca_file)
        self._stamp = _stamp(ca_file)
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    async def of(self, identity: TlsIdentity | None) -> ssl.SSLContext:
        """Return the context of an identity.

        Raises:
            CredentialInvalid: a certificate or key cannot be read, or they do not belong together.
        """
        self._follow_file()
        if identity is None:
            return self.default
        digest = identity.digest()
        context = self._contexts.get(digest)
        if context is None:
            # Some milliseconds of reading and checking: not on the loop.
            context = await asyncio.to_thread(self._create, identity)
            self._contexts[digest] = context
            if len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(digest)
        return context

    def _follow_file(self) -> None:
        """Read the CA file again if it was replaced; one that cannot be read changes nothing."""
        stamp = _stamp(self._ca_file)
        if stamp is None or stamp == self._stamp:
            return
        try:
            self.default = _with_file(self._ca_file)
        except ValueError:
            return  # it is being written; the next request looks again
        self._stamp = stamp
        self._contexts.clear()

    def _create(self, identity: TlsIdentity) -> ssl.SSLContext:
        context = _own_public() if self._ca_file is None else _with_file(self._ca_file)
        if identity.ca is not None:
            try:
                context.load_verify_locations(cadata=identity.ca)
            except (ssl.SSLError, ValueError):
                raise _invalid("ca", "cannot be read as certificates in PEM") from None
        if identity.certificate is not None and identity.key is not None:
            _load_pair(context, identity.certificate, identity.key)
        return context


def _load_pair(context: ssl.SSLContext, certificate: str, key: SecretStr) -> None:
    """Load a client's certificate; through pipes, so that the key touches no disk."""
    pems = certificate.encode("utf-8", "replace"), key.get_secret_value().encode("utf-8", "replace")
    if max(map(len, pems)) > MAX_PEM_BYTES:
        raise _invalid("client_certificate", f"or its key has more than {MAX_PEM_BYTES} bytes")
    ends = [_piped(pem) for pem in pems]
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(f"/dev/fd/{ends[0]}", f"/dev/fd/{ends[1]}", password=lambda: "")
    except (OSError, ValueError):
        raise _invalid(
            "client_certificate", "and client_key cannot be read, or do not belong together"
        ) from None
    finally:
        for end in ends:
            os.close(end)


def _piped(content: bytes) -> int:
    """Return the reading end of a pipe that holds the content."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(content)
    return reading


def _invalid(field_name: str, issue: str) -> CredentialInvalid:
    return CredentialInvalid(
        f"{field_name} {issue}", details=[Detail(field=field_name, issue=issue)], sent=Sent.NO
    )


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Return what tells a file from the one that takes its place; None if there is none."""
    if file is None:
        return None
    try:
        found = file.stat()  # follows the links that Kubernetes replaces
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _with_file(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return _shared_public()
    context = _own_public()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"the CA file {ca_file} cannot be read: {_reason(error)}") from error
    return context


def _own_public() -> ssl.SSLContext:
    # The authorities that ship with httpx rather than the machine's: a slim image has none.
    context: ssl.SSLContext = httpx.create_ssl_context(trust_env=False)
    return context


@cache
def _shared_public() -> ssl.SSLContext:
    # Read once: it takes 40 ms, and a connector's tests make hundreds of pools.
    return _own_public()


def _reason(error: OSError) -> str:
    return "there is no certificate in it" if isinstance(error, ssl.SSLError) else str(error.strerror)
