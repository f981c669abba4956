"""Free ports on the loopback interface."""

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"

#: Below the ephemeral range of outgoing connections (32768 on Linux, 49152 on macOS): a client that connects
#: to the port of a stopped server could otherwise get that very port, connect to itself, and keep the server
#: from starting again.
_LOWEST, _HIGHEST = 15_000, 32_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return different ports that are free at the moment.

    They are not reserved: start the server, and retry with other ports if one is taken.
    """
    highest = _HIGHEST
    if _EPHEMERAL.exists():
        lowest_ephemeral = int(_EPHEMERAL.read_text().split()[0])
        if lowest_ephemeral > _LOWEST + 1_000:
            highest = min(highest, lowest_ephemeral - 1)
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(_LOWEST, highest)  # noqa: S311  (no secret)
        if port not in ports and is_free(port):
            ports.append(port)
    return ports


def is_free(port: int) -> bool:
    """Return whether the port can be listened on, despite old connections in TIME_WAIT."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
