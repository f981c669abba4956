"""Free ports that stay free."""

import socket
from pathlib import Path

from worker.dev.ports import LOOPBACK, free_ports, is_free


def test_ports_are_different_and_free() -> None:
    ports = free_ports(20)

    assert 20 == len(set(ports))
    assert all(is_free(port) for port in ports)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()

        assert not is_free(server.getsockname()[1])


def test_no_outgoing_connection_can_be_given_the_port() -> None:
    of_linux = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(of_linux.read_text().split()[0]) if of_linux.exists() else 49_152

    assert all(port < lowest for port in free_ports(20))
