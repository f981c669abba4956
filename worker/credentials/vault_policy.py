"""The numbers of the vault's session: how often it is looked at, and how long it is waited for."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class VaultPolicy:
    """How a session watches its vault and its login."""

    #: Seconds between looks at the vault's health: readiness must tell of a seal within 10 s.
    probe_interval_s: float = 2.0
    #: Seconds a look may take.
    probe_timeout_s: float = 3.0
    #: Seconds without an answer to a read after which the watch makes one, which no job waits for.
    prove_s: float = 5.0
    #: Seconds that a read waits while every reader is at work.
    read_wait_s: float = 30.0
    #: Seconds between logins that fail for what no vault said, at most; they double from 1 s.
    max_login_pause_s: float = 60.0
    #: Seconds without reads after the vault could not be read, at most; they double from 1 s.
    max_read_pause_s: float = 30.0
    #: Seconds between tries to store a rotated token while the vault is unavailable.
    keep_again_s: float = 10.0


VAULT_POLICY: Final = VaultPolicy()
