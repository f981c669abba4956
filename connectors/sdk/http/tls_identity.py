"""Which authorities a credential's connections trust, and the certificate that they present."""

import hashlib
from dataclasses import dataclass, field

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What one credential's connections trust and present, as PEM."""

    #: Authorities that are trusted beside the public ones.
    ca: str | None = None
    #: The client's certificate with its chain, and its key without a password.
    certificate: str | None = None
    key: SecretStr | None = field(default=None, repr=False)

    def digest(self) -> str:
        """Return a key that changes with the content."""
        key = "" if self.key is None else self.key.get_secret_value()
        parts = "\0".join((self.ca or "", self.certificate or "", key))
        return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()
