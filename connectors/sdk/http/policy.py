"""What an operator's settings say about outbound calls, and who is told of them; loads no client."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from connectors.sdk.http.circuit_breaker import BreakerPolicy
from connectors.sdk.http.egress import THIS_MACHINE, Egress

#: Called after each request: how far inside the host lies (`public`, `loopback`, `internal`), how it ended
#: (`2xx` to `5xx`, `timeout`, `unreachable`, `cut`, `oversize`, `refused`, `held_back`, `cancelled`), seconds.
OnCall = Callable[[str, str, float], None]
#: Called with the used part of an account's quota (tenant, connector, credential): `(account, used, total)`.
OnQuota = Callable[[tuple[str, str, str], int, int], None]


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """What an operator's settings say about outbound calls."""

    #: CONNECTORS_EGRESS_ALLOW, which a worker always sets: what may be called inside, and without encryption, if a
    #: credential or a setting names it. By itself this class is for development and tests.
    egress: Egress = THIS_MACHINE
    #: CONNECTORS_CA_FILE: trusted beside the public authorities.
    ca_file: Path | None = None
    #: CONNECTORS_PROXY_URL: where calls to public hosts go through. It resolves their names, so that what
    #: they may lead to is for it to check. What lies inside is called straight.
    proxy_url: str | None = field(default=None, repr=False)
    #: One tenant gets three quarters of them at most.
    max_connections_per_host: int = 128
    #: Seconds a call gets in all, unless it says otherwise.
    timeout_s: float = 30.0
    #: Most decoded bytes of an answer, unless a call says otherwise.
    max_response_bytes: int = 10 * 1024 * 1024
    #: When a host that fails is no longer called.
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
