"""All that a connector's process is told before its first call."""

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from connectors.sdk.http.egress import Egress
from connectors.sdk.http.policy import HttpPolicy
from connectors.sdk.isolation.frames import BadFrame, Frame

#: All that the process has of the worker's environment.
KEPT_ENVIRONMENT: Final = frozenset(
    {
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "SSL_CERT_DIR",
        "SSL_CERT_FILE",
        "TMPDIR",
        "TZ",
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One connector, its own settings, and how it may call out."""

    connector: str
    #: Where it is found, as its entry point says: `acme_crm:connector`.
    reference: str
    worker_pid: int
    settings: Mapping[str, str]
    #: Synchronous calls that run at once.
    threads: int
    #: Of the standard library.
    log_level: int
    #: Hosts and networks inside that it may call; see `Egress`.
    egress: tuple[str, ...] = ()
    ca_file: str | None = None
    #: It may hold the proxy's password, which this process needs.
    proxy_url: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Read a plan from its frame.

        Raises:
            BadFrame: it is another frame.
        """
        match frame:
            case ["plan", dict(fields)]:
                return cls(**fields)
        raise BadFrame("the first frame is no plan")

    def as_json(self) -> dict[str, Any]:
        """Return the fields as they cross the wall."""
        return asdict(self)

    def policy(self) -> HttpPolicy:
        """Return how the process may call out."""
        return HttpPolicy(
            egress=Egress.of(self.egress),
            ca_file=None if self.ca_file is None else Path(self.ca_file),
            proxy_url=self.proxy_url,
        )


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a connector's process sees of the environment; its modules are found where the worker's are."""
    kept = {name: value for name, value in environment.items() if name in KEPT_ENVIRONMENT}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
